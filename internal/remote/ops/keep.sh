# enter DIR NAME: stands in the lock directory of a file.
enter() {
  cd -P -- "$1" 2>/dev/null || no absent "$1";
  ours;
  [ -h ".$2.keyturn" ] && no special ".$2.keyturn";
  cd -P -- ".$2.keyturn" 2>/dev/null || no lost; N=$2;
};
# keep FILE LIKE MODE UID GID: FILE gets the owner, mode, ACL, label and extended
# attributes of LIKE; where there is no LIKE, the owner and mode that are named. Its
# time is its own: a copier goes by it, and a new key is as long as the old one.
keep() {
  if [ -e "$2" ]; then
    if cp --attributes-only --preserve=all --no-preserve=timestamps -- "$2" "$1" 2>/dev/null; then
      [ -O "$1" ] && [ -O "$2" ] && [ -G "$1" ] && [ -G "$2" ] && return 0;
    else
      set -- "$1" "$2" $(ls -ldn "$2"); bits=${3%[.+@]}; bits=${bits#?}; group=${bits#???};
      chown "$5:$6" "$1" 2>/dev/null;
      chmod "u=${bits%??????},g=${group%???},o=${bits#??????}" "$1";
      getfacl -p -- "$2" 2>/dev/null | setfacl --set-file=- "$1" 2>/dev/null;
      [ -e /sys/fs/selinux/enforce ] && chcon --reference="$2" "$1" 2>/dev/null;
    fi;
    set -- "$1" "$2" $(ls -ldn "$1"; ls -ldn "$2");
    [ "$3 $5 $6" = "${12} ${14} ${15}" ] || no meta "$3 $5 $6, not ${12} ${14} ${15}";
  else
    chown "$4:$5" "$1" 2>/dev/null; chmod "$3" "$1";
    set -- "$1" "$4:$5" $(ls -ldn "$1");
    [ "$5:$6" = "$2" ] || no meta "$5:$6, not $2";
  fi;
};
