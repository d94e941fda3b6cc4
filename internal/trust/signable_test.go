package trust

import (
	"bytes"
	"crypto/sha512"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A userauth is RFC 4252, section 7, as a client signs it.
type userauth struct {
	Session   []byte
	Message   byte
	User      string
	Service   string
	Method    string
	Signature bool
	Algorithm string
	Key       []byte
	Rest      []byte `ssh:"rest"`
}

func signables(tb testing.TB) (login userauth, message []byte) {
	tb.Helper()
	login = userauth{
		bytes.Repeat([]byte{7}, 32), 50, "deploy", "ssh-connection", "publickey", true, "ssh-ed25519", testKey(tb, "ed25519", "signable").Blob(), nil,
	}
	sum := sha512.Sum512([]byte("a commit"))
	return login, append([]byte("SSHSIG"), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{"git", "", "sha512", sum[:]})...)
}

// A login and a message are read, whole, and whatever is a byte away from them is not.
func TestParseSignable(t *testing.T) {
	login, message := signables(t)
	s, err := ParseSignable(ssh.Marshal(login))
	if err != nil || !s.IsLogin() || s.User != "deploy" || s.Algorithm != "ssh-ed25519" || !bytes.Equal(s.Key.Blob(), login.Key) || !s.HostKey.IsZero() || !bytes.Equal(s.Session, login.Session) {
		t.Errorf("a login is %+v, %v", s, err)
	}
	host := testKey(t, "ed25519", "signable-host")
	bound := login
	bound.Method, bound.Rest = "publickey-hostbound-v00@openssh.com", ssh.Marshal(struct{ Key []byte }{host.Blob()})
	if s, err := ParseSignable(ssh.Marshal(bound)); err != nil || s.HostKey != host {
		t.Errorf("a login that is bound to a host is %+v, %v", s, err)
	}
	if s, err := ParseSignable(message); err != nil || s.IsLogin() || s.Namespace != "git" {
		t.Errorf("a message is %+v, %v", s, err)
	}
	for _, good := range [][]byte{ssh.Marshal(login), ssh.Marshal(bound), message} {
		for n := range good {
			if s, err := ParseSignable(good[:n]); KindOf(err) != Invalid {
				t.Errorf("%d of %d bytes are %+v, %v", n, len(good), s, err)
			}
		}
		if s, err := ParseSignable(append(bytes.Clone(good), 0)); KindOf(err) != Invalid {
			t.Errorf("with a byte more it is %+v, %v", s, err)
		}
	}

	for name, wrong := range map[string]func(*userauth){
		"no session":           func(u *userauth) { u.Session = nil },
		"a session of 1 KiB":   func(u *userauth) { u.Session = make([]byte, 1024) },
		"another message":      func(u *userauth) { u.Message = 51 },
		"another service":      func(u *userauth) { u.Service = "ssh-userauth" },
		"another method":       func(u *userauth) { u.Method = "hostbased" },
		"a question":           func(u *userauth) { u.Signature = false },
		"no account":           func(u *userauth) { u.User = "" },
		"a line in an account": func(u *userauth) { u.User = "root\nroot" },
		"no key":               func(u *userauth) { u.Key = nil },
		"bound to no host":     func(u *userauth) { u.Method = bound.Method },
	} {
		u := login
		wrong(&u)
		if s, err := ParseSignable(ssh.Marshal(u)); KindOf(err) != Invalid {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	for name, data := range map[string][]byte{
		"nothing":            nil,
		"a text":             []byte("sign this"),
		"too much":           make([]byte, MaxSignable+1),
		"no namespace":       bytes.Replace(message, []byte("\x00\x00\x00\x03git"), []byte("\x00\x00\x00\x00"), 1),
		"an unknown hash":    bytes.Replace(message, []byte("sha512"), []byte("sha384"), 1),
		"a hash cut short":   bytes.Replace(message, []byte("sha512"), []byte("sha256"), 1),
		"a certificate":      ssh.Marshal(struct{ Type, Nonce string }{ssh.CertAlgoED25519v01, strings.Repeat("n", 32)}),
		"a host's signature": bytes.Repeat([]byte{7}, 32),
	} {
		if s, err := ParseSignable(data); KindOf(err) != Invalid {
			t.Errorf("%s is taken for %+v, %v", name, s, err)
		}
	}
}

// Whatever is taken for a login or a message is so for its very bytes.
func FuzzSignable(f *testing.F) {
	login, message := signables(f)
	f.Add(ssh.Marshal(login))
	f.Add(message)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSignable(data)
		if err != nil || !s.IsLogin() {
			return
		}
		again := userauth{s.Session, 50, s.User, "ssh-connection", "publickey", true, s.Algorithm, s.Key.Blob(), nil}
		if !s.HostKey.IsZero() {
			again.Method, again.Rest = "publickey-hostbound-v00@openssh.com", ssh.Marshal(struct{ Key []byte }{s.HostKey.Blob()})
		}
		if !bytes.Equal(ssh.Marshal(again), data) {
			t.Errorf("%q is read as %+v", data, s)
		}
	})
}
