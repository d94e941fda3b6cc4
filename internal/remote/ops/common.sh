# What every op begins with. See ../ops.go for how these files become one word.
umask 077; nl=${IFS#??};
LC_ALL=C; export LC_ALL;
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin; export PATH;
ulimit -t 120 2>/dev/null;
# again WORD...: runs a program whose failure may be repeated: then e is what it says.
again() { "$@" 2>/dev/null || e=$("$@" 2>&1); };
# no WORD DETAIL...: the op's refusal, always its last line. What undo names goes.
undo=;
no() {
  [ -z "$undo" ] || rm -f -- "$undo";
  printf "no %s" "$1"; shift;
  [ $# -eq 0 ] || printf " %s" "$*" | tr "\n\r" "  ";
  echo; exit 0;
};
