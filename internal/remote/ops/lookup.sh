# lookup USER PATTERN...: the groups of an account, and what each pattern of
# glob(7) matches.
printf "groups %s\n" "$(id -Gn -- "$1" 2>/dev/null || id -Gn "$1" 2>/dev/null)";
shift; IFS=; k=0;
for p in "$@"; do
  echo "pattern $k"; k=$((k+1));
  for f in $p; do [ -e "$f" ] && printf "path %s\n" "$f"; done;
done;
echo ok;
