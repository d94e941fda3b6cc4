# login IDENTITY USER ADDRESS PORT KEY,KEY... SECONDS: does the identity that lies
# here log in there, now? One read of it, none of its .pub, no other key, no agent,
# no channel, and a host key that must be one of those given.
id=$1; user=$2; addr=$3; port=$4; keys=$5; sec=$6;
[ -f "$id" ] && [ -r "$id" ] || no absent "$id";
scratch;
dd bs=1048576 count=1 <"$id" >"$d/id" 2>/dev/null || no write "$id";
unset SSH_AUTH_SOCK; SHELL=/bin/sh; export SHELL;
wait=; command -v timeout >/dev/null && wait="timeout $((sec+sec))";
if command -v ssh >/dev/null; then
  echo "client $(ssh -V 2>&1)";
  IFS=,; for k in $keys; do printf "keyturn %s\n" "$k"; done >"$d/known"; unset IFS;
  $wait ssh -v -n -N -T -a -x -F /dev/null -i "$d/id" -p "$port" -l "$user"
    -o IdentitiesOnly=yes -o BatchMode=yes -o PreferredAuthentications=publickey
    -o StrictHostKeyChecking=yes -o HostKeyAlias=keyturn -o CheckHostIP=no
    -o UserKnownHostsFile="$d/known" -o GlobalKnownHostsFile=/dev/null -o UpdateHostKeys=no
    -o ConnectTimeout="$sec" -o ConnectionAttempts=1 -o ServerAliveInterval=5
    -o ControlMaster=no -o ControlPath=none -o PermitLocalCommand=yes
    -o LocalCommand="echo >$d/in; kill \$PPID" -- "$addr" >/dev/null 2>"$d/log";
elif command -v dbclient >/dev/null; then
  echo "client $(dbclient -V 2>&1)";
  mkdir "$d/.ssh"; IFS=,; for k in $keys; do printf "%s %s\n" "$addr" "$k"; done >"$d/.ssh/known_hosts"; unset IFS;
  HOME=$d $wait dbclient -T -i "$d/id" -p "$port" -l "$user" "$addr" true </dev/null >/dev/null 2>"$d/log" && echo >"$d/in";
else no tool ssh; fi;
[ -e "$d/in" ] && echo accepted;
tail -n 100 "$d/log" | while read -r l; do printf "log %s\n" "$l"; done;
echo ok;
