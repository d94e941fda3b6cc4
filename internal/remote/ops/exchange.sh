# exchange A B [C]: A and B exchange their names in one act, where the kernel, the file
# system and a program here can: else 1. number is that of renameat2(2), if it is known and
# perl is here: that program, if A then is C, also makes the names in .. durable and lets
# go of the name A, which is 0. All else is 3.
exchange() {
  case $number in
    -) mv --exchange -T -- "$1" "$2" 2>/dev/null && return 3; return 1;;
    *) perl -e "
      exit 1 if length(pack(q(p), q())) - 8 || syscall(\$ARGV[0] + 0, -100, \$ARGV[1], -100, \$ARGV[2], 2);
      my (@a, @c); exit 3 if @ARGV < 4;
      exit 3 unless (@a = lstat \$ARGV[1]) && (@c = lstat \$ARGV[3]) && \$a[0] == \$c[0] && \$a[1] == \$c[1];
      exit(open(D, q(<), q(..)) && syscall(\$ARGV[0] == 316 ? 74 : 82, fileno(D)) == 0 && unlink(\$ARGV[1]) ? 0 : 3);
      " "$number" "$@" 2>/dev/null;;
  esac;
};
