# release PATH INSTALLATION EPOCH RUN LIMIT NONCE: the lock and all that it holds
# goes, unless somebody has written to an inode that we replaced.
I=$2; E=$3; R=$4; limit=$5; nonce=$6;
resolve "$1" || { [ $why = absent ] || no $why "$1"; echo ok; exit 0; };
[ -d ".$N.keyturn" ] || { echo ok; exit 0; };
enter . "$N";
held;
prevs; [ -z "$pending" ] || no pending;
# One program takes all away, the claim behind what it claims, where rm has -d.
set -- prev.* new.* next own.* ../".$N.keyturn";
rm -fd -- "$@" 2>/dev/null || {
  rm -f prev.* new.* next own.*;
  e=$(cd .. && rmdir -- ".$N.keyturn" 2>&1) || no write "$e";
};
echo ok;
