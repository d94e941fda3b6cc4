# homes: the accounts of who owns what lies where homes do. Those of a directory such as
# LDAP are often not listed (enumerate of sssd.conf(5)), and told when they are asked for.
# ls mounts nothing to know an owner.
dirs() { ls -ln "$1" 2>/dev/null | head -n 20000 | while IFS=" " read -r t x i x x x x x d; do case $t in d*) echo "$i $d";; esac; done; };
a=$(dirs /home/); n=0; u=:; set -f; IFS=$nl;
# A directory of root there may be one of homes: /home/example.com/ann.
for l in $a; do case $l in "0 "*) n=$((n+1));; esac; done;
[ $n -gt 16 ] || for l in $a; do case $l in "0 "*) a="$a$nl$(dirs "/home/${l#0 }/")";; esac; done;
n=0;
for l in $a; do l=${l%% *}; case $u in *":$l:"*) :;; *) u="$u$l:"; n=$((n+1)); [ $n -lt 2000 ] || break;; esac; done;
IFS=:; u=${u#:}; set -- $u;
[ $# = 0 ] || { command -v getent >/dev/null && told "$(getent passwd "$@")"; };
echo ok;
