package trust

import (
	"encoding/base64"
	"strings"
)

// A keyText is where "type base64 comment" stands in the text of a line: the
// type in [typeAt, typeEnd), the base64 in [blobAt, blobEnd), the comment from
// commentAt on. The zero keyText is none.
type keyText struct {
	key                                         PublicKey
	typeAt, typeEnd, blobAt, blobEnd, commentAt int
}

// readKeyText reads "type base64 comment" at an offset of a text, as sshkey_read
// does.
func readKeyText(seen string, at int) (keyText, bool) {
	k := keyText{typeAt: at}
	k.typeEnd = skipWord(seen, at)
	k.blobAt = skipBlanks(seen, k.typeEnd)
	k.blobEnd = skipWord(seen, k.blobAt)
	if k.typeEnd == at || k.blobEnd == k.blobAt {
		return keyText{}, false
	}
	key, ok := decodeKey(seen[at:k.typeEnd], seen[k.blobAt:k.blobEnd])
	if !ok {
		return keyText{}, false
	}
	k.key, k.commentAt = key, skipBlanks(seen, k.blobEnd)
	return k, true
}

// with returns text with another key in the place of its own. What lies between
// type and base64 and all behind them stays.
func (k keyText) with(text string, key PublicKey) string {
	encoded := base64.StdEncoding.EncodeToString([]byte(key.blob))
	return text[:k.typeAt] + key.Type() + text[k.typeEnd:k.blobAt] + encoded + text[k.blobEnd:]
}

// comment returns what follows the base64 in text.
func (k keyText) comment(text string) string {
	if k.key.IsZero() {
		return ""
	}
	return strings.TrimRight(visible(text[k.commentAt:]), "\r")
}

// decodeKey reads a key from the name of its type and its base64, as
// sshkey_read does: white space within the base64 is ignored (which is how a
// "\r" at the end of a line does no harm), and the names of RSA's and webauthn's
// signature algorithms stand for their keys' types.
func decodeKey(name, encoded string) (PublicKey, bool) {
	if strings.ContainsAny(encoded, "\t\n\v\f\r ") {
		encoded = strings.Join(strings.FieldsFunc(encoded, func(r rune) bool { return strings.ContainsRune("\t\n\v\f\r ", r) }), "")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return PublicKey{}, false
	}
	declared, ok := blobType(string(blob))
	if !ok || declared != keyTypeOfAlgorithm(name) {
		return PublicKey{}, false
	}
	return PublicKey{string(blob)}, true
}

// keyTypeOfAlgorithm returns the type of key that the public key algorithm name
// uses: itself, but for the algorithms that are only another way to sign.
func keyTypeOfAlgorithm(name string) string {
	switch name {
	case "rsa-sha2-256", "rsa-sha2-512":
		return "ssh-rsa"
	case "webauthn-sk-ecdsa-sha2-nistp256@openssh.com":
		return "sk-ecdsa-sha2-nistp256@openssh.com"
	}
	return name
}

// whyNoKey explains a line in which no key was found.
func whyNoKey(text string) string {
	switch {
	case strings.HasPrefix(text, "\ufeff"):
		return "it starts with a UTF-8 byte order mark, which hides the first key"
	case strings.HasPrefix(text, "\xff\xfe"), strings.HasPrefix(text, "\xfe\xff"):
		return "the file is UTF-16, which no SSH server reads"
	case strings.HasPrefix(text, "---- BEGIN SSH2 PUBLIC KEY"), strings.HasPrefix(text, "-----BEGIN"):
		return "it belongs to a key in another format; ssh-keygen -i converts it"
	case strings.Contains(text, " "):
		return "no key type is followed by that type's key in base64"
	}
	return "it is one word: a key's line may not be wrapped"
}

// visible returns what of s a program sees that reads it as a C string.
func visible(s string) string {
	if i := strings.IndexByte(s, 0); i >= 0 {
		return s[:i]
	}
	return s
}

func skipBlanks(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

func skipWord(s string, i int) int {
	for i < len(s) && s[i] != ' ' && s[i] != '\t' {
		i++
	}
	return i
}
