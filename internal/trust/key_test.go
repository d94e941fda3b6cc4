package trust

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// TestAgreesWithSSHKeygenOnFingerprints compares fingerprint, size and comment
// of every key of the corpus with what ssh-keygen -l prints.
func TestAgreesWithSSHKeygenOnFingerprints(t *testing.T) {
	t.Parallel()
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	version := installedSSHD(t).version
	path := filepath.Join(t.TempDir(), "key.pub")
	seen := map[PublicKey]bool{}
	for _, name := range corpusFiles(t, "authorized_keys") {
		text, _ := corpus(t, name)
		for _, l := range ParseAuthorizedKeys(text).Lines() {
			if l.Kind() != KeyLine || seen[l.Key()] || len(l.Comment()) > 100 || strings.ContainsAny(l.Comment(), "\t\r") {
				continue
			}
			seen[l.Key()] = true
			if !l.Key().IsCertificate() && l.keyHonoredByOpenSSH(version) != nil {
				continue
			}
			comment := strings.TrimSpace(l.Comment())
			if err := os.WriteFile(path, []byte(l.Key().String()+" "+comment+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(keygen, "-l", "-f", path).CombinedOutput()
			if err != nil {
				t.Errorf("%s: ssh-keygen does not read %q: %s", name, l.Text(), out)
				continue
			}
			if comment == "" {
				comment = "no comment"
			}
			want := fmt.Sprintf("%d %s %s (", l.Key().Bits(), l.Key().Plain().Fingerprint(), comment)
			if !strings.HasPrefix(string(out), want) {
				t.Errorf("%s: ssh-keygen prints %q, we say %q", name, out, want)
			}
		}
	}
	if len(seen) < 50 {
		t.Errorf("only %d keys were compared", len(seen))
	}
}

func TestPublicKeyText(t *testing.T) {
	key := mustKey(t, keyA)
	for _, text := range []string{keyA, keyA + "\n", "  " + keyA + "  a comment ", strings.Replace(keyA, " ", " \t", 1)} {
		if got, _, err := ParsePublicKey(text); err != nil || got != key {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "ssh-ed25519", "ssh-rsa " + strings.Fields(keyA)[1], "ssh-ed25519 AAAA", "ssh-ed25519 !!!!", keyA + "\n" + keyB, keyA + "\x00", "ssh-ed25519 " + strings.Fields(keyA)[1] + "="} {
		if got, _, err := ParsePublicKey(bad); KindOf(err) != Invalid {
			t.Errorf("%q: got %v, %v", bad, got, err)
		}
	}
	var again PublicKey
	text, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &again); err != nil || again != key {
		t.Errorf("through JSON: %v, %v", again, err)
	}
	if err := json.Unmarshal([]byte(`""`), &again); err != nil || !again.IsZero() {
		t.Errorf("an empty text: %v, %v", again, err)
	}
}
