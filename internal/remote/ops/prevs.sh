# prevs: a hard link prev.SHA256.SIZE.TOKEN is an inode that we replaced when its
# content was that. Gives those that somebody has written to since.
prevs() {
  pending=;
  set -- prev.*; [ -e "$1" ] || return 0;
  for o in $($hash "$@" | while read -r s o; do o=${o#[*]}; case $o in prev.$s.*) :;; *) echo "$o";; esac; done); do
    pending=$o; echo "prev $o"; give "$o";
  done;
};
