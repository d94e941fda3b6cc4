# hold PATH UMASK|- INSTALLATION EPOCH RUN TOKEN NONCE LIMIT content|sum|facts [HOME]:
# takes the lock of a file, fences off whoever acted before us, tells what is there.
path=$1; make=$2; I=$3; E=$4; R=$5; T=$6; nonce=$7; limit=$8; what=$9; shift 9;
[ $what = facts ] && home "$1";
if resolve "$path"; then :;
else
  [ $what = facts ] && echo "state $why";
  [ $why = absent ] || no $why "$path";
  [ $make = - ] && no absent "$path";
  a=$missing;
  while :; do [ -d "$a" ] && break; a=${a%/*}; a=${a:-/}; done;
  cd -P -- "$a" && ours;
  e=$(umask $make; mkdir -p -- "$missing" 2>&1) || no write "$e";
  sync "$a"; resolve "$path" || no $why "$path";
fi;
printf "real %s/%s\n" "${D%/}" "$N";
this=; [ $what = facts ] && { facts; echo "state $s"; };
ours;
case $s in
  special) no special "$(ls -ldin -- "$N")";;
  absent) [ $make = - ] && no absent "$path";;
esac;
L=.$N.keyturn;
[ -h "$L" ] && no special "$(ls -ldin -- "$L")";
n=0;
while :; do
  e=; [ -d "$L" ] || again mkdir -- "$L";
  if cd -P -- "$L" 2>/dev/null; then
    held;
    make "own.$I.$E.$R.$T" && break;
    cd -P -- "$D" || no absent "$D";
  elif [ -d "$L" ]; then set -- $(ls -ldin -- "$L"); [ "$4" = "$me" ] || no owner "$4"; fi;
  n=$((n+1)); [ $n -lt 5 ] || no write "$e";
done;
undo=own.$I.$E.$R.$T; held; undo=;
settle;
for o in new.*; do [ -e "$o" ] && rm -f new.*; break; done;
for o in prev.*; do [ "$o" -ef "../$N" ] && rm -f "$o"; done;
prevs;
if [ -e "../$N" ]; then
  # What was seen before we had the lock may have been another attempt at its work.
  set -- $this;
  [ "$3" = 1 ] || { this=$(ls -ldin -- "../$N"); printf "ls %s\n" "$this"; set -- $this; };
  [ -r "../$N" ] || no denied "$path";
  [ "$3" = 1 ] || no links "$3";
  if [ $what = sum ]; then sum "../$N"; echo "sum $s";
  else give "../$N"; fi;
fi;
echo ok;
