# read NONCE LIMIT content|facts HOME PATH...: what lies at each path.
nonce=$1; limit=$2; what=$3; h=$4; shift 4; k=0;
[ -z "$h" ] || printf "home %s\n" "$(cd -P -- "$h" 2>/dev/null && pwd -P)";
for path in "$@"; do
  echo "path $k"; k=$((k+1));
  if resolve "$path"; then
    printf "real %s/%s\n" "${D%/}" "$N";
    a=$D; set --;
    while :; do set -- "$a" "$@"; [ "$a" = / ] && break; a=${a%/*}; a=${a:-/}; done;
    ls -ldin -- "$@" | while read -r l; do printf "up %s\n" "$l"; done;
    s=absent;
    [ -e "$N" ] && s=special;
    [ -f "$N" ] && s=file;
    [ $s = file ] && { [ -r "$N" ] || s=denied; };
    [ -w . ] && echo writable; [ -n "$linked" ] && echo link;
    echo "dev $(stat -c %d . 2>/dev/null)";
    m=$(df -P . 2>/dev/null | tail -n 1); printf "df %s\n" "$m";
    printf "dfi %s\n" "$(df -P -i . 2>/dev/null | tail -n 1)";
    m=${m##* }; f=;
    while read -r src on rest; do [ "$on" = "$m" ] && f="$src $on $rest"; done </proc/self/mounts;
    [ -z "$f" ] || printf "mount %s\n" "$f";
    command -v lsattr >/dev/null && lsattr -d . "./$N" 2>/dev/null | while read -r l; do printf "attr %s\n" "$l"; done;
    for o in ".$N.keyturn"/own.*; do [ -e "$o" ] && printf "lock %s\n" "${o##*/own.}"; done;
    [ -f "$N" ] && printf "ls %s\n" "$(ls -ldin -- "$N")";
    echo "state $s";
    [ $s.$what = file.content ] && give "$N";
  else
    echo "state $why";
  fi;
done;
echo ok;
