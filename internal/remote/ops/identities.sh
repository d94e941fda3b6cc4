# identities NONCE DIR...: the private key files in these directories; of each
# its listing, its kind, where it leads if it is a link, and its public half as far
# as that is to be had. What lies there is for its account to choose: of each file a
# block is read and no more, by a program that can be waited for, and of so many files
# and keys no more.
nonce=$1; shift; n=0; m=0;
wait=; command -v timeout >/dev/null && wait="timeout 10";
begin() { $wait dd if="$1" bs="$2" count=1 2>/dev/null; };
for dir in "$@"; do
  a=${dir%/*}; [ -d "${a:-/}" ] || echo left home;
  for f in "$dir"/* "$dir"/.[a-zA-Z0-9]*; do
    [ -f "$f" ] && [ -r "$f" ] || continue;
    m=$((m+1)); [ $m -le 2000 ] || { echo left many; break 2; };
    { t=$(begin "$f" 1000); } 2>/dev/null;
    a=${t%%"$nl"*}; b=${t#"$a$nl"}; b=${b%%"$nl"*};
    enc=no;
    case $a in
      "-----BEGIN OPENSSH PRIVATE KEY-----"*) kind=openssh;
        case $b in b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ*) :;; *) enc=yes;; esac;;
      "-----BEGIN ENCRYPTED PRIVATE KEY-----"*) kind=pkcs8; enc=yes;;
      "-----BEGIN PRIVATE KEY-----"*) kind=pkcs8;;
      "-----BEGIN "*" PRIVATE KEY-----"*) kind=pem; case $b in Proc-Type:*ENCRYPTED*) enc=yes;; esac;;
      PuTTY-User-Key-File-*) kind=putty; enc=unknown;;
      *) continue;;
    esac;
    n=$((n+1)); [ $n -le 500 ] || { echo left many; break 2; };
    case $f in *"$nl"*) echo left name; continue;; esac;
    echo "identity $kind $enc"; printf "real %s\n" "$f"; printf "ls %s\n" "$(ls -ldin -- "$f")";
    [ -h "$f" ] && {
      t=$(resolve "$f"; printf "%s" "$D/$N"); base=$(cd -P -- "$dir" && pwd -P);
      case $t in "$base"/*) printf "link %s\n" "$dir/${t#"$base"/}";; *) printf "link %s\n" "$t";; esac;
      for e in .pub -cert.pub; do
        [ -e "$f$e" ] && { [ "$(resolve "$f$e"; printf "%s" "$D/$N")" = "$t$e" ] || echo apart; };
      done;
    };
    [ $enc = no ] && p=$($wait ssh-keygen -y -P "" -f "$f" 2>/dev/null </dev/null) && printf "public %s\n" "$p";
    [ $kind.$enc = openssh.yes ] && { echo content; begin "$f" 1000; printf "\n%s\n" "$nonce"; };
    p=; [ -f "$f.pub" ] && [ -r "$f.pub" ] && { p=$(begin "$f.pub" 8192); p=${p%%"$nl"*}; } 2>/dev/null;
    [ -z "$p" ] || printf "pub %s\n" "$p";
    [ -e "$f-cert.pub" ] && echo cert;
  done;
done;
echo ok;
