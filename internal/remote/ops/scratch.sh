# scratch: makes a directory d that only we can read, in memory where there is
# such a place, and that goes with this op; sweeps those whose shell has died, and what
# an op of this one left that was killed.
# It uses at, o and what who sets.
scratch() {
  who; d=;
  for at in /dev/shm /tmp "$HOME"; do
    [ -d "$at" ] && [ -w "$at" ] || continue;
    for o in "$at"/.keyturn."$me".*; do
      [ -d "$o" ] && [ -O "$o" ] || continue;
      case ${o##*.} in $$) rm -rf -- "$o";; *) kill -0 "${o##*.}" 2>/dev/null || rm -rf -- "$o";; esac;
    done;
    [ -n "$d" ] && continue;
    mkdir -- "$at/.keyturn.$me.$$" 2>/dev/null && d=$at/.keyturn.$me.$$;
  done;
  [ -n "$d" ] || no write "no directory for a scratch file";
  trap "rm -rf -- \"$d\"" 0; trap "exit 1" 1 2 13 15;
};
