# hello CONNECTION HOME: who and what is here.
printf "connection %s\nhere %s\n" "$1" "$2";
echo "uid $(id -u)"; echo "gid $(id -g)"; echo "user $(id -un)";
p=$(getent passwd "$(id -u)" 2>/dev/null) || p=$(grep "^[^:]*:[^:]*:$(id -u):" /etc/passwd);
p=${p#*:*:*:*:*:}; echo "home ${p%%:*}"; echo "shell ${p#*:}";
echo "kernel $(uname -srm)"; echo "host $(uname -n)"; echo "time $(date +%s)";
t=;
for c in sudo doas setpriv runuser su ssh ssh-keygen dbclient getent stat df lsattr getfacl setfacl chcon timeout sync systemctl sha256sum shasum openssl; do
  command -v $c >/dev/null && t="$t $c";
done;
echo "tools$t";
if [ "$(id -u)" = 0 ]; then
  if setpriv --reuid=0 --regid=0 --init-groups true 2>/dev/null; then echo drop setpriv;
  elif command -v runuser >/dev/null; then echo drop runuser;
  elif command -v su >/dev/null; then echo drop su; fi;
fi;
echo ok;
