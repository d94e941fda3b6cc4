# facts: of the file N in the directory D, where we stand, all that an edit depends
# on; and the device that it is on, unless that is all that is asked for. What is the
# same for all files of a directory is found out once for those that come one after
# another. Leaves the listing of the file in this, and that of where we stand in here.
was=; groups=;
facts() {
  [ -n "$groups" ] || { [ -r /proc/self/status ] && while read -r field x it rest; do
    case $field in Gid:) groups=$it;; Groups:) groups="$groups $x $it $rest"; break;; esac;
  done </proc/self/status; };
  [ -z "$groups" ] || echo "groups $groups";
  [ -w . ] && echo writable; [ -n "$linked" ] && echo link;
  a=$D; set --; this=; here=;
  while :; do set -- "$a" "$@"; [ "$a" = / ] && break; a=${a%/*}; a=${a:-/}; done;
  set -f; IFS=$nl;
  for l in $(ls -ldin -- "$@" ./ "./$N" 2>/dev/null); do
    case $l in *" ./$N") this=$l; [ $s = special ] || printf "ls %s\n" "$l";; *" ./") here=$l;; *) printf "up %s\n" "$l";; esac;
  done;
  command -v lsattr >/dev/null && for l in $(lsattr -d . "./$N" 2>/dev/null); do printf "attr %s\n" "$l"; done;
  unset IFS;
  if [ "$what $D" = "$was" ]; then :;
  else
    was="$what $D"; m=; dfi=; df=; mount=; dev=;
    [ $what = facts ] || dev=$(stat -c %d . 2>/dev/null);
    set -- $(df -k --output=source,size,used,avail,pcent,itotal,iused,iavail,ipcent,target . 2>/dev/null);
    if [ $# -ge 20 ]; then
      shift $(($#-10)); m=${10}; df="$1 $2 $3 $4 $5 $m"; dfi="$1 $6 $7 $8 $9 $m";
    else
      set -- $(df -P -i . 2>/dev/null); [ $# -lt 6 ] || { shift $(($#-6)); dfi=$*; };
      set -- $(df -P . 2>/dev/null); [ $# -lt 6 ] || { shift $(($#-6)); df=$*; m=$6; };
    fi;
    while read -r src on rest; do [ "$on" = "$m" ] && mount="$src $on $rest"; done </proc/self/mounts;
  fi;
  set +f;
  [ -z "$dev" ] || echo "dev $dev";
  printf "df %s\ndfi %s\n" "$df" "$dfi";
  [ -z "$mount" ] || printf "mount %s\n" "$mount";
  for o in ".$N.keyturn"/own.*; do [ -e "$o" ] && printf "lock %s\n" "${o##*/own.}"; done;
};
# home DIR: says where the home of an account really lies, if it has one.
home() {
  [ -n "$1" ] || return 0;
  if cd -P -- "$1" 2>/dev/null; then printf "home %s\n" "$PWD"; else echo "home "; fi;
};
