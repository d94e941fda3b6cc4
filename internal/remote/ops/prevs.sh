# prevs: a hard link prev.SHA256.SIZE.TOKEN is an inode that we replaced when its
# content was that. Gives those that somebody has written to since.
prevs() {
  pending=;
  set -- prev.*; [ -e "$1" ] || return 0;
  differ $($hash "$@");
};
# differ [SHA256 NAME]...: gives those inodes that do not hold what their name says.
differ() {
  while [ $# -ge 2 ]; do
    o=${2#[*]};
    case $o in prev.$1.*) :;; prev.*) pending=$o; echo "prev $o"; give "$o";; esac;
    shift 2;
  done;
};
