# give FILE: its first LIMIT+1 bytes by one read, then NONCE on a line of its own.
give() { echo content; dd bs=$((limit+1)) count=1 2>/dev/null <"$1"; printf "\n%s\n" "$nonce"; };
