# identities NONCE DIR...: the private key files in these directories; of each
# its listing, its kind, where it leads if it is a link, and its public half as far
# as that is to be had.
nonce=$1; shift; n=0; limit=8192;
wait=; command -v timeout >/dev/null && wait="timeout 10";
for dir in "$@"; do
  for f in "$dir"/* "$dir"/.[a-zA-Z0-9]*; do
    [ -f "$f" ] && [ -r "$f" ] || continue;
    a=; b=; { read -r a; read -r b; } <"$f" 2>/dev/null;
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
    n=$((n+1)); [ $n -le 500 ] || no many;
    echo "identity $kind $enc"; printf "real %s\n" "$f"; printf "ls %s\n" "$(ls -ldin -- "$f")";
    [ -h "$f" ] && {
      t=$(resolve "$f"; printf "%s" "$D/$N"); base=$(cd -P -- "$dir" && pwd -P);
      case $t in "$base"/*) printf "link %s\n" "$dir/${t#"$base"/}";; *) printf "link %s\n" "$t";; esac;
      for e in .pub -cert.pub; do
        [ -e "$f$e" ] && { [ "$(resolve "$f$e"; printf "%s" "$D/$N")" = "$t$e" ] || echo apart; };
      done;
    };
    [ $enc = no ] && p=$($wait ssh-keygen -y -P "" -f "$f" 2>/dev/null </dev/null) && printf "public %s\n" "$p";
    [ $kind.$enc = openssh.yes ] && { echo content; head -n 14 "$f"; printf "\n%s\n" "$nonce"; };
    p=; [ -r "$f.pub" ] && read -r p <"$f.pub"; [ -z "$p" ] || printf "pub %s\n" "$p";
    [ -e "$f-cert.pub" ] && echo cert;
  done;
done;
echo ok;
