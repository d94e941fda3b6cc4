# shell: the loop of a shell that stays, in which every op is a function that runs in a
# process of its own. It reads MARK COUNT OPS, and as input COUNT lines that end with a
# dot. Where printf is a program, input would be among its arguments.
[ "$(command -v printf)" = printf ] || exit 1;
cd /; unset TMOUT;
echo "keyturn shell 1";
text=;
while read -r mark count line; do
  while [ "$count" -gt 0 ]; do
    IFS= read -r more || exit 1;
    text=$text$more$nl; count=$((count-1));
  done;
  if [ -z "$text" ]; then eval "$line" </dev/null;
  else printf %s "${text%.$nl}" | eval "$line"; fi;
  printf "\n%s %s\n" $? "$mark"; printf "%s\n" "$mark" >&2;
  text=;
done;
