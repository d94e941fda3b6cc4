package trust

import (
	"testing"

	"golang.org/x/crypto/ssh"
)

// An Ed25519 key is well formed where x/crypto, which takes longer to tell, says so.
func TestStructureOfEd25519(t *testing.T) {
	well := testKey(t, "ed25519", "alice").blob
	for name, blob := range map[string]string{
		"a key":           well,
		"a byte short":    string(appendString([]byte(well[:len("\x00\x00\x00\x0bssh-ed25519")]), string(make([]byte, 31)))),
		"a byte long":     string(appendString([]byte(well[:len("\x00\x00\x00\x0bssh-ed25519")]), string(make([]byte, 33)))),
		"cut":             well[:len(well)-1],
		"nothing of it":   well[:len("\x00\x00\x00\x0bssh-ed25519")],
		"something after": well + "\x00",
	} {
		_, want := ssh.ParsePublicKey([]byte(blob))
		if got := (PublicKey{blob}).checkStructure(); (got == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
