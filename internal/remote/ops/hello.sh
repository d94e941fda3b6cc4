# hello CONNECTION HOME: who and what is here.
printf "connection %s\nhere %s\n" "$1" "$2";
who; echo "uid $me"; echo "gid $mine";
p=$(getent passwd "$me" 2>/dev/null) || p=$(grep "^[^:]*:[^:]*:$me:" /etc/passwd);
echo "user ${p%%:*}"; p=${p#*:*:*:*:*:}; echo "home ${p%%:*}"; echo "shell ${p#*:}";
t=; set -- $(uname -snrm); echo "kernel $1 $3 $4"; echo "host $2";
if [ "$me" = 0 ]; then
  if t=$(setpriv --reuid=0 --regid=0 --init-groups date +%s 2>/dev/null); then echo drop setpriv;
  elif command -v runuser >/dev/null; then echo drop runuser;
  elif command -v su >/dev/null; then echo drop su; fi;
fi;
echo "time ${t:-$(date +%s)}"; t=;
for c in sudo doas setpriv runuser su ssh ssh-keygen dbclient getent stat df lsattr getfacl setfacl chcon timeout sync perl systemctl sha256sum shasum openssl; do
  command -v $c >/dev/null && t="$t $c";
done;
echo "tools$t";
echo ok;
