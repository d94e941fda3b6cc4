package sim_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha512"
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/lab"
	"keyturn/internal/lab/sim"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// keyName is how the files of the corpus of internal/trust name a key.
var keyName = regexp.MustCompile(`\{\{(blob )?([a-z0-9-]+) ([a-z0-9-]+)\}\}`)

// signer returns the key of a kind and name: of the types that need no chip.
// Every other kind is an Ed25519 key here.
func signer(t *testing.T, kind, name string) ssh.Signer {
	t.Helper()
	seed := sha512.Sum512([]byte(kind + " " + name))
	var private any = ed25519.NewKeyFromSeed(seed[:32])
	var err error
	if kind == "ecdsa256" {
		private, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:32])
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// accepts offers a key to a server from a source address.
func accepts(t *testing.T, address, user string, hostKey trust.PublicKey, key ssh.Signer, source string) bool {
	t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	pinned, err := hostKey.SSH()
	if err != nil {
		t.Fatal(err)
	}
	c, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(pinned)})
	if err != nil {
		if !strings.Contains(err.Error(), "unable to authenticate") {
			t.Fatal(err)
		}
		return false
	}
	_ = ssh.NewClient(c, channels, requests).Close()
	return true
}

// A simulated host lets in whom a real sshd lets in, by every file of the corpus.
func TestAgreesWithSshd(t *testing.T) {
	t.Parallel()
	real, err := lab.Start(t.Context(), t.TempDir(), lab.Options{Name: "web1", PenaltiesOff: true})
	if trust.KindOf(err) == trust.NotFound {
		need.Skip(t, "%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(real.Close)
	host := add(t, sim.Options{})
	files, err := filepath.Glob("../../trust/testdata/corpus/authorized_keys/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	logins, accepted := 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		keys := map[string]ssh.Signer{"nobody": signer(t, "ed25519", "nobody")}
		text = keyName.ReplaceAllFunc(text, func(match []byte) []byte {
			m := keyName.FindSubmatch(match)
			s := signer(t, string(m[2]), string(m[3]))
			keys[string(m[2])+" "+string(m[3])] = s
			if len(m[1]) > 0 {
				return []byte(base64.StdEncoding.EncodeToString(s.PublicKey().Marshal()))
			}
			return []byte(trust.PublicKeyOf(s.PublicKey()).String())
		})
		if err := os.WriteFile(real.AuthorizedKeysFiles()[0], text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := host.Write("deploy", "/home/deploy/.ssh/authorized_keys", text, 0o600); err != nil {
			t.Fatal(err)
		}
		sources := []string{"127.0.0.1"}
		if bytes.Contains(text, []byte("from=")) {
			sources = append(sources, "127.0.0.2")
		}
		for name, key := range keys {
			for _, source := range sources {
				want := accepts(t, real.Address(), real.User(), real.HostKey(), key, source)
				got := accepts(t, host.Address(), "deploy", host.HostKey(), key, source)
				if logins++; want {
					accepted++
				}
				if got != want {
					t.Errorf("%s: %s from %s: sshd accepts it: %v, the simulated host: %v", filepath.Base(file), name, source, want, got)
				}
			}
		}
	}
	t.Logf("%d logins, %d accepted", logins, accepted)
	if accepted < 50 || logins-accepted < 50 {
		t.Errorf("of %d logins %d were accepted: the corpus tells little", logins, accepted)
	}
}

// add makes a fleet of one host.
func add(t *testing.T, o sim.Options) *sim.Host {
	t.Helper()
	fleet, err := sim.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	host, err := fleet.Add(o)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// StrictModes, order of files, accounts, and a host that lies.
func TestLets(t *testing.T) {
	key := signer(t, "ed25519", "alice")
	public := trust.PublicKeyOf(key.PublicKey())
	const file = "/home/deploy/.ssh/authorized_keys"
	for name, c := range map[string]struct {
		options sim.Options
		prepare func(h *sim.Host) error
		user    string
		want    bool
	}{
		"plain":              {sim.Options{}, func(*sim.Host) error { return nil }, "deploy", true},
		"nobody such":        {sim.Options{}, func(*sim.Host) error { return nil }, "alice", false},
		"another":            {sim.Options{}, func(*sim.Host) error { return nil }, "root", false},
		"file for all":       {sim.Options{}, func(h *sim.Host) error { return h.Chmod(file, 0o666) }, "deploy", false},
		"not strict":         {sim.Options{NoStrictModes: true}, func(h *sim.Host) error { return h.Chmod(file, 0o666) }, "deploy", true},
		"home for the group": {sim.Options{}, func(h *sim.Host) error { return h.Chmod("/home/deploy", 0o770) }, "deploy", false},
		"above the home":     {sim.Options{}, func(h *sim.Host) error { return h.Chmod("/home", 0o777) }, "deploy", true},
		"unreadable":         {sim.Options{}, func(h *sim.Host) error { return h.Chmod(file, 0) }, "deploy", false},
		"second file": {sim.Options{}, func(h *sim.Host) error {
			text, mode, err := h.Read(file)
			if err != nil {
				return err
			}
			if err := h.Write("deploy", file, nil, mode); err != nil {
				return err
			}
			return h.Write("deploy", file+"2", text, mode)
		}, "deploy", true},
		"lie": {sim.Options{}, func(h *sim.Host) error { h.Lie(); return h.Write("deploy", file, nil, 0o600) }, "deploy", true},
	} {
		t.Run(name, func(t *testing.T) {
			h := add(t, c.options)
			if err := h.Authorize("deploy", public, ""); err != nil {
				t.Fatal(err)
			}
			if err := c.prepare(h); err != nil {
				t.Fatal(err)
			}
			if got := accepts(t, h.Address(), c.user, h.HostKey(), key, "127.0.0.1"); got != c.want {
				t.Errorf("accepted: %v", got)
			}
		})
	}
}
