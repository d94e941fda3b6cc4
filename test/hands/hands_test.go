//go:build linux

// Package hands proves dial and remote on hosts of every kind that test/lab boots:
// releases of OpenSSH from 8.4 to the newest, systemd, a container, Dropbear;
// accounts with dash, bash and busybox for their shells; root by sudo and doas.
package hands

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/dial"
	"keyturn/internal/need"
	"keyturn/internal/remote"
	"keyturn/internal/trust"
	"keyturn/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// A key is a key pair with its private key file.
type key struct {
	ssh.Signer
	public trust.PublicKey
	file   []byte
}

func newKey(t testing.TB) key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	must(t, err)
	return key{signer, trust.PublicKeyOf(signer.PublicKey()), pem.EncodeToMemory(block)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open logs in to a host.
func open(t testing.TB, h *lab.Host, user string, become remote.Become, k key) *remote.Host {
	t.Helper()
	need.Within(t, 5*time.Minute)
	conn, err := dial.Dial(t.Context(), target(h, user), []dial.Credential{dial.KeyCredential("k", k)})
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	hands, err := remote.Open(t.Context(), conn, h.Name(), become, nil)
	must(t, err)
	return hands
}

func target(h *lab.Host, user string) dial.Target {
	return dial.Target{Address: h.Address(), User: user, Pins: h.HostKeys()}
}

var lock = remote.Lock{Installation: "here", Epoch: 1, Run: "run"}

// A whole rotation of bob's key by alice, who is not root, on each kind of host.
func TestEveryKindOfHost(t *testing.T) {
	need.Long(t)
	w := lab.NewWorld(t)
	type c struct {
		name   string
		spec   lab.Spec
		become string
	}
	var cases []c
	for _, root := range lab.Roots() {
		cases = append(cases, c{string(root), lab.Spec{Root: root}, "sudo"})
	}
	cases = append(cases,
		c{"doas", lab.Spec{}, "doas"},
		c{"container", lab.Spec{Container: true}, "sudo"},
		c{"keys elsewhere", lab.Spec{SSHD: []string{"AuthorizedKeysFile /etc/ssh/keys/%u .ssh/authorized_keys", "MaxAuthTries 2"}}, "sudo"},
		c{"penalties", lab.Spec{Root: lab.OpenSSH100, Penalties: lab.Enforced, SSHD: []string{"AuthorizedKeysFile .ssh/authorized_keys .ssh/keys.d/*"}}, "sudo"},
	)
	for i, c := range need.Share(t, 4, cases...) {
		t.Run(c.name, func(t *testing.T) {
			own, old, next := newKey(t), newKey(t), newKey(t)
			spec := c.spec
			spec.Name = fmt.Sprintf("h%d", i)
			options := `restrict,command="true" `
			if spec.Root == lab.Dropbear {
				options = `command="true" `
			}
			spec.Users = []lab.User{
				{Name: "alice", Shell: "bash", Become: c.become, AuthorizedKeys: []string{own.public.String()}},
				{Name: "bob", Shell: "busybox", AuthorizedKeys: []string{"# bob's", options + old.public.String() + " bob@laptop"}, Identities: map[string][]byte{".ssh/id_ed25519": old.file}},
			}
			h := w.Boot(t, spec)
			hands := open(t, h, "alice", remote.Become(c.become), own)

			sshd, err := hands.Sshd(t.Context())
			must(t, err)
			if pid := strings.TrimSpace(h.Sh(t, "ps -o pid= -p "+fmt.Sprint(sshd.PID))); !strings.HasSuffix(sshd.Binary, "sshd") && !strings.HasSuffix(sshd.Binary, "dropbear") || pid != fmt.Sprint(sshd.PID) {
				t.Errorf("found %+v", sshd)
			}
			config, err := hands.AccountConfig(t.Context(), "bob")
			must(t, err)
			path := "/home/bob/.ssh/authorized_keys"
			if config.AuthorizedKeys[len(config.AuthorizedKeys)-1] != path && config.AuthorizedKeys[0] != path || config.Evaluated != "" {
				t.Errorf("keys in %q, evaluated %q", config.AuthorizedKeys, config.Evaluated)
			}
			files, err := hands.Files(t.Context(), "bob", []string{path})
			must(t, err)
			if f := files[0]; f.Fixed != "" || f.Fault != "" || f.Mode&0o077 != 0 && f.Mode != 0o644 {
				t.Errorf("file: %+v", f)
			}

			prove := func(k key, want dial.Outcome) {
				t.Helper()
				if got, err := dial.Prove(t.Context(), target(h, "bob"), k); err != nil || got != want {
					t.Errorf("prove: %v, %v, want %v", got, err, want)
				}
			}
			prove(old, dial.Accepted)
			change, err := hands.Edit(t.Context(), lock, "bob", path, func(b []byte) ([]byte, error) {
				f := trust.ParseAuthorizedKeys(b)
				f.AddSuccessor(old.public, next.public)
				return f.Bytes(), nil
			})
			must(t, err)
			if n := bytes.Count(change.After, []byte(options)); n != 2 {
				t.Errorf("the new line has not the old one's options:\n%s", change.After)
			}
			prove(old, dial.Accepted)
			prove(next, dial.Accepted)

			// The identity, and a login from there to the same host.
			id := "/home/bob/.ssh/id_ed25519"
			now, err := hands.IdentityFiles(t.Context(), "bob", id)
			must(t, err)
			must(t, hands.Install(t.Context(), lock, "bob", id, now, now.With(next.file, next.public)))
			from := id
			if spec.Root == lab.Dropbear {
				// A host that has only Dropbear's client, and keys in its format.
				from = "/home/bob/.ssh/id_dropbear"
				h.Sh(t, "rm /usr/bin/ssh; dropbearkey -t ed25519 -f "+from+" | grep ^ssh- >>"+path+"; chown bob "+from)
			}
			ok, detail, err := hands.LoginFrom(t.Context(), "bob", from, "bob", h.Address(), h.HostKeys())
			if !ok || err != nil {
				t.Errorf("login from there: %v, %q, %v", ok, detail, err)
			}
			wrong := []trust.PublicKey{next.public}
			if ok, detail, err := hands.LoginFrom(t.Context(), "bob", from, "bob", h.Address(), wrong); ok || trust.KindOf(err) != trust.Conflict {
				t.Errorf("login from there to a host with another key: %v, %q, %v", ok, detail, err)
			}
			if _, err := hands.Edit(t.Context(), lock, "bob", path, func(b []byte) ([]byte, error) {
				f := trust.ParseAuthorizedKeys(b)
				f.RemoveKey(old.public)
				return f.Bytes(), nil
			}); err != nil {
				t.Fatal(err)
			}
			// A prober that is careless is shut out after four of these.
			for range 6 {
				if still, err := dial.Disprove(t.Context(), target(h, "bob"), old.public, next); err != nil || still {
					t.Fatalf("old is still accepted: %v, %v", still, err)
				}
			}
			must(t, hands.Release(t.Context(), lock, "bob", path))
			must(t, hands.Release(t.Context(), lock, "bob", id))
			if left := h.Sh(t, "find /home /etc /root /dev/shm /tmp -name '*keyturn*'"); strings.TrimSpace(left) != "" {
				t.Errorf("left behind: %s", left)
			}
			if got := strings.Fields(h.Sh(t, "stat -c %U:%G:%a "+path+" "+id)); len(got) != 2 || got[0] != "bob:bob:600" || got[1] != "bob:bob:600" {
				t.Errorf("owners and modes: %v", got)
			}
		})
	}
}
