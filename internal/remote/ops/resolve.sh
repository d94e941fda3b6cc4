# resolve PATH: follows links, stands in the directory that really holds the
# file, and sets D (that directory) and N (the name in it); else sets why.
resolve() {
  p=$1; n=0; why=;
  while :; do
    case $p in */*) d=${p%/*}; d=${d:-/};; *) d=.;; esac;
    N=${p##*/};
    cd -P -- "$d" 2>/dev/null || { why=absent; missing=$d;
      case $(ls -d -- "$d/." 2>&1) in *ermission*) why=denied;; esac; return 1; };
    [ -h "$N" ] || break;
    n=$((n+1));
    [ $n -le 16 ] || { why=loop; return 1; };
    p=$(readlink -- "$N") || { why=loop; return 1; };
  done;
  D=$(pwd -P);
  case $N in ""|.|..) why=special; return 1;; esac;
};
