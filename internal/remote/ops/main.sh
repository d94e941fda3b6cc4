# main BINARY OPTION...: which file this sshd reads its configuration from.
b=$1; shift;
[ -x "$b" ] || no absent "$b";
files "$@";
[ -z "$main" ] || printf "%s\n" "$main";
echo ok;
