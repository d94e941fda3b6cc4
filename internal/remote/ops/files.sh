# files OPTION...: sets main to the line that says which file the sshd $b reads its
# configuration from, if it does, and e to all that it says on the way. wait is what
# bounds it in time.
wait=; command -v timeout >/dev/null && wait="timeout 30";
files() {
  e=$($wait "$b" -T -ddd "$@" 2>&1 >/dev/null </dev/null | tr -d "\r");
  main=$(printf "%s\n" "$e" | while read -r x y z f; do
    case "$x $y $z" in "debug2: load_server_config: filename") printf "file %s\n" "$f"; break;; esac;
  done);
};
