# told LINES: accounts, as passwd(5) has them.
told() {
  set -f; IFS=$nl;
  for l in $1; do
    IFS=:; set -- $l;
    r=; [ -x "${7:-/bin/sh}" ] && r=x;
    printf "account %s:%s:%s:%s:%s:%s\n" "$1" "$3" "$4" "$r" "$6" "$7";
  done;
};
