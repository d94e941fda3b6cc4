package keyring

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/lab"
	"keyturn/internal/need"
)

// A key that other programs wrote, of each type and in each format that it has,
// encrypted and not, logs in to a real sshd once it is read.
func TestReadKeysLogIn(t *testing.T) {
	t.Parallel()
	need.Within(t, 5*time.Minute)
	need.Program(t, "sshd", "openssh-server")
	openssl := need.Program(t, "openssl", "openssl")
	server, err := lab.Start(t.Context(), t.TempDir(), lab.Options{Name: "web1", PenaltiesOff: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	host, err := server.HostKey().SSH()
	if err != nil {
		t.Fatal(err)
	}
	const passphrase = "correct horse"
	given := map[string]string{"": writeFile(t, "none", nil), passphrase: writeFile(t, "passphrase", []byte(passphrase))}
	containers := map[string]Format{"OpenSSH": OpenSSH, "PEM": PEM, "PKCS#8": PKCS8, "PPK 2": PuTTY, "PPK 3": PuTTY}
	convert := map[string]func(t *testing.T, id, passphrase string){ // in place
		"OpenSSH": func(t *testing.T, id, passphrase string) {
			sshKeygen(t, "-q", "-p", "-a", "1", "-P", "", "-N", passphrase, "-f", id)
		},
		"PEM": func(t *testing.T, id, passphrase string) {
			sshKeygen(t, "-q", "-p", "-m", "PEM", "-P", "", "-N", passphrase, "-f", id)
		},
		"PKCS#8": func(t *testing.T, id, passphrase string) {
			file, err := os.ReadFile(id)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Parse(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			plain := writeFile(t, "plain", writeText(t, p, PKCS8))
			args := []string{"pkcs8", "-topk8", "-in", plain, "-out", id, "-passout", "pass:" + passphrase}
			if passphrase == "" {
				args = append(args, "-nocrypt")
			}
			if out, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
				t.Fatalf("openssl %q: %v\n%s", args, err, out)
			}
		},
		"PPK 2": func(t *testing.T, id, passphrase string) {
			puttygen(t, id, "-O", "private", "-o", id, "--ppk-param", "version=2", "--new-passphrase", given[passphrase])
		},
		"PPK 3": func(t *testing.T, id, passphrase string) {
			puttygen(t, id, "-O", "private", "-o", id, "--ppk-param", "version=3,memory=64,passes=1", "--new-passphrase", given[passphrase])
		},
	}
	for _, kind := range [][]string{{"-t", "ed25519"}, {"-t", "ecdsa", "-b", "256"}, {"-t", "ecdsa", "-b", "384"}, {"-t", "ecdsa", "-b", "521"}, {"-t", "rsa", "-b", "2048"}} {
		original := filepath.Join(t.TempDir(), "id")
		sshKeygen(t, append([]string{"-q", "-N", "", "-C", "", "-f", original}, kind...)...)
		text, err := os.ReadFile(original)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := os.ReadFile(original + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Authorize(mustPublic(t, string(pub)), ""); err != nil {
			t.Fatal(err)
		}
		for format, convert := range convert {
			if format == "PEM" && kind[1] == "ed25519" {
				continue // it has no such form
			}
			for passphrase := range given {
				t.Run(fmt.Sprintf("%s %s encrypted=%t", kind[1:], format, passphrase != ""), func(t *testing.T) {
					id := writeFile(t, "id", text)
					convert(t, id, passphrase)
					file, err := os.ReadFile(id)
					if err != nil {
						t.Fatal(err)
					}
					p, err := Parse(file, []byte(passphrase))
					if err != nil {
						t.Fatal(err)
					}
					if p.Container() != containers[format] {
						t.Fatalf("the file is in the form %q: it was not converted", p.Container())
					}
					signer, err := p.Signer()
					if err != nil {
						t.Fatal(err)
					}
					client, err := ssh.Dial("tcp", server.Address(), &ssh.ClientConfig{
						User: server.User(), Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
						HostKeyCallback: ssh.FixedHostKey(host), Timeout: time.Minute,
					})
					if err != nil {
						t.Fatalf("%s does not log in: %v", p.Public().Fingerprint(), err)
					}
					client.Close()
				})
			}
		}
	}
}
