# swap DIR NAME INSTALLATION EPOCH RUN TOKEN OLD NEW MODE UID GID LIMIT NONCE
# EXCHANGE [MERGED BECOMES]... <BYTES: the file holds OLD now and holds BYTES afterwards.
# Where nothing was merged, nothing may be there to merge.
# verify: all is as it was said to be, the new bytes and those of every inode that we
# replace or replaced, by one process that reads them.
verify() {
  set -- $($hash "$f" prev.* 2>/dev/null); fresh=; stale=;
  while [ $# -ge 2 ]; do
    o=${2#[*]};
    case $o in
      "$f") [ "$1" = "${new%.*}" ] || { [ -z "$failed" ] || no write "$failed"; no short; }; fresh=yes;;
      "$q") [ "$1" = "${old%.*}" ] || no changed; stale=yes;;
      prev.$1.*) :;;
      *) [ -n "$merging" ] || { differ "$@"; no pending; };;
    esac;
    shift 2;
  done;
  [ -n "$fresh" ] || no lost;
  [ "$q" = - ] || [ -n "$stale" ] || no lost;
};
# back: somebody renamed a file of theirs into place since we looked, and it is in our
# hands now. It gets its place back, or one that came later still keeps it. What was ours is
# kept as what we replaced is: somebody may have appended to it meanwhile.
back() {
  exchange "$f" "../$N";
  if [ "$f" -ef /dev/fd/3 ]; then mv -f -- "$f" "prev.$new.c$T"; else exchange "$f" "../$N"; fi;
  no changed;
};
# current: what the file holds now, and the inodes that others have written to.
current() {
  set -- $($hash prev.* "../$N" 2>/dev/null); s=;
  while [ $# -ge 2 ]; do case ${2#[*]} in prev.*) differ "$1" "$2";; *) s=$1; break;; esac; shift 2; done;
  [ ${#s} = 64 ] || s=${s#?};
  echo "now $s";
};
I=$3; E=$4; R=$5; T=$6; old=$7; new=$8; mode=$9; enter "$1" "$2";
shift 9; uid=$1; gid=$2; limit=$3; nonce=$4; number=$5; shift 5;
held; [ "$own" = "$T" ] || no lost;
f=new.$T; q=-; durable=; merging=$1;
if [ "$old" = "$new" ]; then
  [ $# -gt 0 ] || { prevs; [ -z "$pending" ] || no pending; };
  sum "../$N"; [ "$s" = "${old%.*}" ] || no changed;
  while [ $# -ge 2 ]; do mv -f -- "$1" "$2"; shift 2; done;
  e=$(sync "../$N" .. 2>&1) || no sync "$e";
  echo "now $s"; echo ok; exit 0;
fi;
make "$f" || no write "$e";
trap "rm -f $f" 0;
exec 3>>"$f";
if [ "$old" = - ]; then
  [ -e "../$N" ] && no changed;
else
  q=prev.$old.$T; again ln -- "../$N" "$q" || no link "$e";
  trap "rm -f $f $q" 0;
fi;
keep "$f" "$q" "$mode" "$uid" "$gid";
# A dd that cannot sync what it wrote says so before it reads anything. One that could
# not write has read what the next one lacks: then what it said is the reason.
failed=;
e=$(dd bs=65536 conv=fsync 2>&1 >&3) || { failed=$e; e=$(dd bs=65536 2>&1 >&3 && sync "$f" 2>&1) || no write "$failed"; };
held; [ "$own" = "$T" ] || no lost;
verify;
if [ "$old" = - ]; then
  again ln -- "$f" "../$N" || { [ -e "../$N" ] && no changed; [ -e "$f" ] || no lost; no write "$e"; };
else
  [ "$q" -ef "../$N" ] || no changed;
  exchange "$f" "../$N" "$q"; did=$?;
  if [ $did = 0 ]; then durable=yes;
  elif [ "$f" -ef "$q" ]; then rm -f "$f";
  elif [ $did = 3 ]; then back;
  else again mv -f -- "$f" "../$N" || { [ -e "$f" ] || no lost; no write "$e"; };
  fi;
  trap - 0;
fi;
while [ $# -ge 2 ]; do mv -f -- "$1" "$2"; shift 2; done;
[ -n "$durable" ] || sync .. 2>/dev/null || no sync "$(sync .. 2>&1)";
current;
echo ok;
