# accounts [NAME]: the accounts that are to be seen here, without their secrets.
get=; command -v getent >/dev/null && get=getent;
case $get.$# in
  getent.1) o=$(getent passwd "$1"); p=$(getent shadow "$1" 2>/dev/null);;
  getent.*) o=$(getent passwd | head -n 20000); p=$(getent shadow 2>/dev/null | head -n 20000);;
  .1) o=$(grep "^$1:" /etc/passwd); p=$(grep "^$1:" /etc/shadow 2>/dev/null);;
  *) o=$(head -n 20000 /etc/passwd); p=$(head -n 20000 /etc/shadow 2>/dev/null);;
esac;
told "$o";
IFS=$nl;
for l in $p; do
  IFS=:; set -- $l;
  case $2 in "") p=empty;; "*LK*"*) p=locked;; "*"*) p=none;; [a-zA-Z0-9_./$]*) p=set;; *) p=locked;; esac;
  printf "shadow %s:%s:%s:%s:%s:%s\n" "$1" "$p" "$3" "$5" "$7" "$8";
done;
echo ok;
