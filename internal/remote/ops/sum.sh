# sum FILE: sets s to the SHA-256 of FILE in hex.
if command -v sha256sum >/dev/null; then hash=sha256sum;
elif command -v shasum >/dev/null; then hash="shasum -a 256";
elif command -v openssl >/dev/null; then hash="openssl dgst -sha256 -r";
else no tool sha256sum; fi;
sum() { s=$($hash <"$1") || s=; s=${s%% *}; };
