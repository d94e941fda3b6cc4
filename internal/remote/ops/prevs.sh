# prevs: a hard link prev.SHA256.SIZE.TOKEN is an inode that we replaced when its
# content was that. Gives those that somebody has written to since.
prevs() {
  pending=;
  for o in prev.*; do
    [ -e "$o" ] || continue;
    sum "$o"; case $o in prev.$s.*) continue;; esac;
    pending=$o; echo "prev $o"; give "$o";
  done;
};
