# release DIR NAME INSTALLATION EPOCH RUN LIMIT NONCE: the lock and all that it
# holds goes, unless somebody has written to an inode that we replaced.
I=$3; E=$4; R=$5; limit=$6; nonce=$7;
[ -d "$1/.$2.keyturn" ] || { echo ok; exit 0; };
enter "$1" "$2";
held;
prevs; [ -z "$pending" ] || no pending;
rm -f prev.* new.* next next.pub own.*;
e=$(cd .. && rmdir -- ".$N.keyturn" 2>&1) || no write "$e";
echo ok;
