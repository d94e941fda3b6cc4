# exchange A B: A and B exchange their names in one act, where the kernel, the file system
# and a program here can. number is that of renameat2(2), if it is known and perl is here.
exchange() {
  case $number in
    -) mv --exchange -T -- "$1" "$2" 2>/dev/null;;
    *) perl -e "exit(length(pack(q(p), q())) - 8 || syscall(shift() + 0, -100, shift(), -100, shift(), 2))" "$number" "$1" "$2" 2>/dev/null;;
  esac;
};
