# The lock directory holds one empty file own.INSTALLATION.EPOCH.RUN.TOKEN per
# claim. held: refuses by name if another installation or run has a claim, or a
# later epoch of this one. Sets own to the token of this epoch, else empty.
held() {
  own=;
  for o in own.*; do
    [ -e "$o" ] || continue;
    IFS=.; set -- $o; unset IFS;
    [ "$2.$4" = "$I.$R" ] || no held "$2 $3 $4";
    [ "$3" -gt "$E" ] && no superseded "$2 $3 $4";
    [ "$3" -eq "$E" ] && own=$5;
  done;
};
# settle: the claims go that ours takes over from. One that is later than ours may have
# come since we looked, and must stay: its holder has been told that we are fenced off.
settle() {
  for o in own.*; do
    IFS=.; set -- $o; unset IFS;
    [ "$3.$5" = "$E.$T" ] && continue;
    [ "$2.$4" = "$I.$R" ] && [ "$3" -le "$E" ] && rm -f "$o";
  done;
};
# ours: nobody else may be able to exchange what lies beneath our feet. As root we
# act only in a directory that only root can write, as anybody else in one that this
# user can write; one of its own that it cannot write is immutable, say. Sets me to our user id. here is the listing of this directory, if
# somebody made one.
here=;
ours() {
  who;
  [ "$me" = 0 ] || { [ -w . ] && return 0; };
  set -- ${here:-$(ls -ldin .)};
  case $me:$4:$2 in
    0:0:?????-??-*) :;;
    0:0:*) no shared "$2";;
    "$4:$me":*) no fixed "$2 $(lsattr -d -- "$PWD" 2>/dev/null)";;
    *) no owner "$4";;
  esac;
};
# make FILE: makes an empty file where there is none, or sets e to what is in the way.
make() {
  e=; set -C;
  { true >"$1"; } 2>/dev/null || e=$( (true >"$1") 2>&1) || e=${e:-$1};
  set +C; [ -z "$e" ];
};
