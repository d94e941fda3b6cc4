# resolve PATH: follows links, stands in the directory that really holds the
# file, and sets D (that directory), N (the name in it), linked (if the last part was
# a link) and s (what it is: absent, file, denied or special); else sets why.
resolve() {
  p=$1; n=0; why=; linked=;
  while :; do
    case $p in */*) d=${p%/*}; d=${d:-/};; *) d=.;; esac;
    N=${p##*/};
    cd -P -- "$d" 2>/dev/null || { why=absent; missing=$d;
      case $(ls -d -- "$d/." 2>&1) in *ermission*) why=denied;; esac; return 1; };
    [ -h "$N" ] || break;
    linked=yes;
    n=$((n+1));
    [ $n -le 16 ] || { why=loop; return 1; };
    p=$(readlink -- "$N") || { why=loop; return 1; };
  done;
  D=$PWD;
  case $N in ""|.|..) why=special; return 1;; esac;
  s=absent;
  [ -e "$N" ] && s=special;
  [ -f "$N" ] && s=file;
  [ $s = file ] && { [ -r "$N" ] || s=denied; };
  return 0;
};
