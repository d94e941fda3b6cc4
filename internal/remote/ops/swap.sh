# swap DIR NAME INSTALLATION EPOCH RUN TOKEN OLD NEW MODE UID GID LIMIT NONCE
# [MERGED BECOMES]... <BYTES: the file holds OLD now and holds BYTES afterwards.
# Where nothing was merged, nothing may be there to merge.
I=$3; E=$4; R=$5; T=$6; old=$7; new=$8; mode=$9; enter "$1" "$2";
shift 9; uid=$1; gid=$2; limit=$3; nonce=$4; shift 4;
held; [ "$own" = "$T" ] || no lost;
f=new.$T; q=-;
[ $# -gt 0 ] || { prevs; [ -z "$pending" ] || no pending; };
if [ "$old" = "$new" ]; then
  sum "../$N"; [ "$s" = "${old%.*}" ] || no changed;
  while [ $# -ge 2 ]; do mv -f -- "$1" "$2"; shift 2; done;
  e=$(sync "../$N" .. 2>&1) || no sync "$e";
  echo "now $s"; echo ok; exit 0;
fi;
e=$( (set -C; : >"$f") 2>&1) || no write "$e";
trap "rm -f $f" 0;
exec 3>>"$f";
if [ "$old" = - ]; then
  [ -e "../$N" ] && no changed;
else
  q=prev.$old.$T; e=$(ln -- "../$N" "$q" 2>&1) || no link "$e";
  trap "rm -f $f $q" 0;
fi;
keep "$f" "$q" "$mode" "$uid" "$gid";
e=$(dd bs=65536 2>&1 >&3) || no write "$e";
exec 3>&-;
sum "$f"; [ "$s" = "${new%.*}" ] || no short;
e=$(sync "$f" 2>&1) || no write "$e";
held; [ "$own" = "$T" ] || no lost;
if [ "$old" = - ]; then
  e=$(ln -- "$f" "../$N" 2>&1) || { [ -e "../$N" ] && no changed; [ -e "$f" ] || no lost; no write "$e"; };
else
  sum "$q"; [ "$s" = "${old%.*}" ] || no changed;
  [ "$q" -ef "../$N" ] || no changed;
  e=$(mv -f -- "$f" "../$N" 2>&1) || { [ -e "$f" ] || no lost; no write "$e"; };
  trap "rm -f $f" 0;
fi;
while [ $# -ge 2 ]; do mv -f -- "$1" "$2"; shift 2; done;
e=$(sync .. 2>&1) || no sync "$e";
sum "../$N"; echo "now $s";
prevs;
echo ok;
