# install DIR NAME INSTALLATION EPOCH RUN TOKEN OLD NEW MODE UID GID SUM PRIVATE
# PUBLIC CERTIFICATE [MODE UID GID]... <BYTES: an identity changes hands. BYTES are the
# private key (of PRIVATE bytes), the .pub file and the -cert.pub file, one after the
# other, and SUM is their SHA-256; with PRIVATE 0 the key is the one that generate made.
# The last two get the modes and owners at the end, unless they are there already; or as
# much of them as this account may give: whose they are keeps nobody from a login.
# Each state alone logs in: no .pub stands beside the old key, nor the new one,
# while they change.
I=$3; E=$4; R=$5; T=$6; old=$7; new=$8; mode=$9; enter "$1" "$2";
shift 9; uid=$1; gid=$2; all=$3; npriv=$4; npub=$5; ncert=$6; shift 6;
held; [ "$own" = "$T" ] || no lost;
a=new.$T; f=$a.key; g=$a.pub; c=$a.cert; r=$a.rest;
e=$( (set -C; : >"$a"; : >"$f"; : >"$g"; : >"$c"; : >"$r") 2>&1) || no write "$e";
trap "rm -f $a $a.*" 0;
e=$(dd bs=65536 of="$a" 2>&1) || no write "$e";
sum "$a"; [ "$s" = "$all" ] || no short;
part() { from=$1; to=$2; shift 2; e=$(dd if="$from" of="$to" "$@" 2>&1) || no write "$e"; };
if [ $npriv = 0 ]; then e=$(ln -f next "$f" 2>&1) || no lost; part "$a" "$r" bs=65536;
else part "$a" "$f" bs=$npriv count=1; part "$a" "$r" bs=$npriv skip=1; fi;
if [ $npub = 0 ]; then part "$r" "$c" bs=65536;
else part "$r" "$g" bs=$npub count=1; part "$r" "$c" bs=$npub skip=1; fi;
sum "$f"; [ "$s" = "$new" ] || no short;
keep "$f" "../$N" "$mode" "$uid" "$gid";
[ $npub = 0 ] || (keep "$g" "../$N.pub" "$1" "$2" "$3") >/dev/null;
[ $ncert = 0 ] || (keep "$c" "../$N-cert.pub" "$4" "$5" "$6") >/dev/null;
e=$(sync "$f" "$g" "$c" 2>&1) || no write "$e";
held; [ "$own" = "$T" ] || no lost;
if [ -e "../$N" ]; then sum "../$N"; [ "$s" = "$old" ] || [ "$s" = "$new" ] || no changed;
elif [ "$old" = - ]; then :; else no changed; fi;
[ -e "$f" ] || no lost;
e=$(rm -f -- "../$N.pub" "../$N-cert.pub" 2>&1 && sync .. 2>&1) || no write "$e";
e=$(mv -f -- "$f" "../$N" 2>&1) || { [ -e "$f" ] || no lost; no write "$e"; };
e=$(sync .. 2>&1) || no sync "$e";
[ $npub = 0 ] || { e=$(mv -f -- "$g" "../$N.pub" 2>&1) || no write "$e"; };
[ $ncert = 0 ] || { e=$(mv -f -- "$c" "../$N-cert.pub" 2>&1) || no write "$e"; };
rm -f next;
e=$(sync .. 2>&1) || no sync "$e";
sum "../$N"; echo "now $s";
echo ok;
