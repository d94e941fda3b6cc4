# generate DIR NAME INSTALLATION EPOCH RUN TOKEN TYPE BITS FORMAT COMMENT: makes
# a key pair that waits in the lock directory for install. The same one again if
# there is one already.
I=$3; E=$4; R=$5; T=$6; type=$7; bits=$8; format=$9; enter "$1" "$2"; shift 9; comment=$1;
held; [ "$own" = "$T" ] || no lost;
if [ -s next ]; then :;
else
  command -v ssh-keygen >/dev/null || no tool ssh-keygen;
  f=new.$T; set -- -q -t "$type" -N "" -C "$comment" -f "$f";
  [ $bits = 0 ] || set -- "$@" -b "$bits";
  [ $format = pem ] && set -- "$@" -m PEM;
  e=$(ssh-keygen "$@" 2>&1 </dev/null) || { rm -f "$f" "$f.pub"; no write "$e"; };
  e=$(rm -f "$f.pub" 2>&1 && sync "$f" 2>&1 && mv "$f" next 2>&1 && sync . 2>&1) || no write "$e";
fi;
e=$(ssh-keygen -y -P "" -f next </dev/null 2>&1) || no write "$e";
printf "public %s\n" "$e";
sum next; echo "sum $s";
echo ok;
