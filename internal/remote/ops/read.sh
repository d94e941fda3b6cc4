# read NONCE LIMIT HOME [content|text PATH]...: what lies at each path.
nonce=$1; limit=$2; home "$3"; shift 3; k=0;
while [ $# -ge 2 ]; do
  echo "path $k"; k=$((k+1));
  if resolve "$2"; then
    printf "real %s/%s\n" "${D%/}" "$N";
    what=$1; [ $what = text ] || facts;
    echo "state $s";
    [ $s = file ] && give "$N";
  else
    echo "state $why";
  fi;
  shift 2;
done;
echo ok;
