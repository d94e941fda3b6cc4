# config BINARY SPEC OPTION...: the configuration that this sshd would use for a
# connection, as it says itself: by -G (since 9.3), else -T, else -T with a passing
# host key. SPEC gives the address as the client's name: where the sshd looks names up,
# it is asked again with the name that it finds, if that leads back to the address.
# Where names of key files may have blanks, which it prints without quotes, and where it
# says nothing, it tells which file it reads.
b=$1; spec=$2; shift 2;
[ -x "$b" ] || no absent "$b";
v=$("$b" -V 2>&1 </dev/null);
case $v in *OpenSSH_*) v=${v#*OpenSSH_}; v=OpenSSH_${v%%"$nl"*};; *) v=;; esac;
printf "version %s\n" "$v";
try() { o=$($wait "$b" "$@" 2>/dev/null </dev/null); };
d=;
case $v in OpenSSH_[1-8].*|OpenSSH_9.[0-2][p,]*) old=yes;; *) old=;; esac;
if [ -z "$old" ] && try -G -C "$spec" "$@"; then how=-G;
elif try -T -C "$spec" "$@"; then how=-T;
else
  files -C "$spec" "$@";
  scratch; ssh-keygen -q -t ed25519 -N "" -f "$d/key" </dev/null >/dev/null 2>&1;
  if try -T -h "$d/key" -C "$spec" "$@"; then how=-h;
  else
    [ -z "$main" ] || printf "%s\n" "$main";
    no failed "$(printf "%s\n" "$e" | grep -v "^debug" | tail -n 1)";
  fi;
fi;
case $nl$o$nl in *"${nl}usedns yes$nl"*)
  a=${spec#*,addr=}; a=${a%%,*}; was=$o;
  n=$($wait getent hosts "$a" | { read -r x n x; printf "%s" "$n"; });
  case $n,$nl$($wait getent ahosts "$n") in *,*,*) ;; *"$nl$a "*)
    spec=${spec%%,host=*},host=$n,addr=${spec#*,addr=};
    case $how in -h) try -T -h "$d/key" -C "$spec" "$@";; *) try $how -C "$spec" "$@";; esac || o=$was;;
  esac;;
esac;
# Line by line: to cut off what stands before it takes a shell time that grows with the
# square of that.
k=$o; set -f; IFS=$nl;
for l in $o; do case $l in [aA]uthorized[kK]eys[fF]ile" "*) k=${l#* }; break;; esac; done;
unset IFS; part=; for x in $k; do case $x in /*|.*|%h*) ;; *) part=yes;; esac; done; set +f;
[ -z "$part" ] || { files -C "$spec" "$@"; [ -z "$main" ] || printf "%s\n" "$main"; };
echo "how $how";
set -f; IFS=$nl;
for l in $o; do [ "$l" = "hostkey $d/key" ] || printf "set %s\n" "$l"; done;
echo ok;
