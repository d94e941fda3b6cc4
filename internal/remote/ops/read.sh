# read NONCE LIMIT HOME [content|facts|text PATH]...: what lies at each path.
nonce=$1; limit=$2; h=$3; shift 3; k=0; was=;
[ -z "$h" ] || printf "home %s\n" "$(cd -P -- "$h" 2>/dev/null && pwd -P)";
while [ $# -ge 2 ]; do
  echo "path $k"; k=$((k+1));
  if resolve "$2"; then
    printf "real %s/%s\n" "${D%/}" "$N";
    s=absent;
    [ -e "$N" ] && s=special;
    [ -f "$N" ] && s=file;
    [ $s = file ] && { [ -r "$N" ] || s=denied; };
    what=$1; [ $what = text ] || facts;
    echo "state $s";
    case $s.$what in file.content|file.text) give "$N";; esac;
  else
    echo "state $why";
  fi;
  shift 2;
done;
echo ok;
