package sim

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"path"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// lets decides on a key as sshd does: the files of the account, in order, their
// owners and modes, and their lines. The error is for nobody to see.
func (h *Host) lets(user string, key trust.PublicKey, from netip.Addr) (trust.Grant, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a, ok := h.accounts[user]
	if !ok {
		return trust.Grant{}, trust.Errorf(trust.Denied, "there is no account %q", user)
	}
	if err := h.config.AcceptsKey(key); err != nil {
		return trust.Grant{}, err
	}
	if slices.Contains(h.faults.revoked, key) {
		return trust.Grant{}, trust.Errorf(trust.Denied, "key %s is revoked", key.Fingerprint())
	}
	var files []*trust.AuthorizedKeys
	for _, text := range h.authorized(a) {
		files = append(files, trust.ParseAuthorizedKeys(text))
	}
	v := trust.WouldAccept(files, trust.Attempt{Key: key, User: user, Addr: from, Time: h.now(), Server: h.version})
	if !v.Accepted {
		return trust.Grant{}, trust.Errorf(trust.Denied, "%s", v.Why)
	}
	return v.Grant, h.config.AllowsAccount(trust.Account{User: user, UID: a.UID, Home: a.Home}, "", from, v.Grant.HasForcedCommand)
}

// authorized returns the content of the files that sshd reads for an account: of
// the moment at which the host began to lie, if it does.
func (h *Host) authorized(a Account) [][]byte {
	if frozen := h.faults.frozen; frozen != nil {
		return frozen[a.User]
	}
	paths, err := h.config.AuthorizedKeysPaths(trust.Account{User: a.User, UID: a.UID, Home: a.Home})
	if err != nil {
		return nil
	}
	var texts [][]byte
	for _, p := range paths {
		n, err := h.fs.walk(subject{a.UID, a.GID}, p.Path)
		if err == nil && !n.isDir() && (subject{a.UID, a.GID}).may(n, toRead) && h.safe(p.Path, a) {
			texts = append(texts, n.data)
		}
	}
	return texts
}

// safe is sshd's check of owners and modes (safe_path in OpenSSH's misc.c): from
// the file up to the home, or to "/".
func (h *Host) safe(file string, a Account) bool {
	if !h.config.StrictModes {
		return true
	}
	for at := path.Clean(file); ; at = path.Dir(at) {
		n, err := h.fs.walk(subject{}, at)
		if err != nil || n.uid != 0 && n.uid != a.UID || n.mode&0o022 != 0 {
			return false
		}
		if at == path.Clean(a.Home) || at == "/" {
			return true
		}
	}
}

// errHostKey ends a login to a host with another key than those that are known.
var errHostKey = errors.New("sim: another host key")

// logIn makes a login from this host to another, simulated or not, with the bytes
// of an identity file.
func (h *Host) logIn(identity []byte, user, address, port string, keys []string, patience time.Duration) error {
	signer, err := ssh.ParsePrivateKey(identity)
	if err != nil {
		return err
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: h.address.Addr().AsSlice()}, Timeout: patience}
	conn, err := dialer.Dial("tcp", net.JoinHostPort(address, port))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	var types []string
	known := func(k ssh.PublicKey) bool {
		for _, text := range keys {
			if want, _, err := trust.ParsePublicKey(text); err == nil && bytes.Equal(want.Blob(), k.Marshal()) {
				return true
			}
		}
		return false
	}
	for _, text := range keys {
		if k, _, err := trust.ParsePublicKey(text); err == nil {
			types = append(types, k.Type())
		}
	}
	c, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		Config: ssh.Config{KeyExchanges: []string{ssh.KeyExchangeCurve25519}, Ciphers: []string{ssh.CipherAES128GCM}},
		User:   user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyAlgorithms: types,
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			if !known(k) {
				return errHostKey
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(requests)
	go func() {
		for c := range channels {
			_ = c.Reject(ssh.Prohibited, "")
		}
	}()
	return c.Close()
}
