package remote

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// KeyInfo is what a private key file is like.
type KeyInfo struct {
	// Format is its container: "openssh", "pem" (PKCS#1 or SEC 1), "pkcs8" or
	// "putty".
	Format    string
	Encrypted bool // it needs a passphrase
}

// Key returns the public half of the private key, and what its file is like. Where
// the public half is encrypted with the rest, it is what X.pub says.
func (f IdentityFiles) Key() (trust.PublicKey, KeyInfo, error) {
	if f.Private == nil {
		return trust.PublicKey{}, KeyInfo{}, trust.Errorf(trust.NotFound, "there is no private key file")
	}
	key, info, err := parsePrivate(f.Private)
	if err == nil && key.IsZero() && f.Public != nil {
		key, _, err = trust.ParsePublicKey(string(f.Public))
	}
	if err == nil && key.IsZero() {
		err = trust.Errorf(trust.Invalid, "the key file is encrypted, and there is no .pub file that tells its public half")
	}
	return key, info, err
}

// parsePrivate returns the public half as far as it can be read without a
// passphrase, else the zero key.
func parsePrivate(text []byte) (trust.PublicKey, KeyInfo, error) {
	if bytes.HasPrefix(text, []byte("PuTTY-User-Key-File-")) {
		return parsePuTTY(text)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return trust.PublicKey{}, KeyInfo{}, trust.Errorf(trust.Invalid, "the file holds no private key in a format that is known")
	}
	var info KeyInfo
	switch block.Type {
	case "OPENSSH PRIVATE KEY":
		return parseOpenSSH(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return trust.PublicKey{}, KeyInfo{"pkcs8", true}, nil
	case "PRIVATE KEY":
		info.Format = "pkcs8"
	case "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY":
		info.Format = "pem"
	default:
		return trust.PublicKey{}, KeyInfo{}, trust.Errorf(trust.Invalid, "the file holds %q, not a private key", block.Type)
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		info.Encrypted = true
		return trust.PublicKey{}, info, nil
	case err != nil:
		return trust.PublicKey{}, info, trust.Errorf(trust.Invalid, "the private key cannot be read: %w", err)
	}
	return trust.PublicKeyOf(signer.PublicKey()), info, nil
}

// parseOpenSSH reads the unencrypted head of OpenSSH's own container, of keys of any
// type (PROTOCOL.key).
func parseOpenSSH(data []byte) (trust.PublicKey, KeyInfo, error) {
	info := KeyInfo{Format: "openssh"}
	var head struct {
		Cipher, KDF, Options string
		Keys                 uint32
		Public               []byte
		Rest                 []byte `ssh:"rest"`
	}
	data, ok := bytes.CutPrefix(data, []byte("openssh-key-v1\x00"))
	if !ok || ssh.Unmarshal(data, &head) != nil || head.Keys != 1 {
		return trust.PublicKey{}, info, trust.Errorf(trust.Invalid, "the private key is not in OpenSSH's format, although it says so")
	}
	info.Encrypted = head.Cipher != "none"
	key, err := trust.ParsePublicKeyBlob(head.Public)
	return key, info, err
}

// parsePuTTY reads the head of a .ppk file, whose public half is not encrypted.
func parsePuTTY(text []byte) (trust.PublicKey, KeyInfo, error) {
	info := KeyInfo{Format: "putty"}
	var encoded strings.Builder
	public := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		name, value, isHeader := strings.Cut(line, ": ")
		switch {
		case isHeader && name == "Encryption":
			info.Encrypted = value != "none"
		case isHeader:
			public = name == "Public-Lines"
		case public:
			encoded.WriteString(line)
		}
	}
	blob, err := base64.StdEncoding.DecodeString(encoded.String())
	if err != nil {
		return trust.PublicKey{}, info, trust.Errorf(trust.Invalid, "the PuTTY key file has no public half: %w", err)
	}
	key, err := trust.ParsePublicKeyBlob(blob)
	return key, info, err
}

// An Identity is a private key file of a host, as far as it is known without its
// private half having been read.
type Identity struct {
	Path string
	// Key is the public half, zero where it is not to be had. Claimed says that it
	// is only what X.pub says.
	Key         trust.PublicKey
	Claimed     bool
	Info        KeyInfo
	Comment     string // of X.pub
	Certificate bool   // there is an X-cert.pub
	// Link is the file that Path leads to, where Path is a symbolic link. Apart says
	// that the X.pub or X-cert.pub beside the link is not the one beside that file.
	Link     string
	Apart    bool
	Mode     uint32
	UID, GID int
}

// Identities are the private key files in the ~/.ssh of an account, in the order of
// their names. Left says what of them is not in List, if anything is not. Homeless is the
// home directory of the account where that does not exist: it was removed, or the file
// system that it lies on is not mounted.
type Identities struct {
	List     []Identity
	Left     string
	Homeless string
}

// FilesAndIdentities returns what Files does, and the identities of user. No private
// byte leaves the host.
func (h *Host) FilesAndIdentities(ctx context.Context, user string, paths []string) (files []File, found Identities, err error) {
	if err := checkPaths(paths); err != nil {
		return nil, found, err
	}
	owner, err := h.account(ctx, user)
	if err != nil {
		return nil, found, err
	}
	dir := owner.Home
	if user == h.login && strings.HasPrefix(h.here, "/") {
		dir = h.here
	}
	dir = strings.TrimSuffix(dir, "/") + "/.ssh"
	answers, err := h.runAll(ctx, append([]call{h.finding(user, dir)}, h.readings(owner, paths, "content")...)...)
	if err != nil {
		return nil, found, err
	}
	if files, err = h.readFiles(answers[1:], owner, paths); err != nil {
		return nil, found, err
	}
	found, err = h.readIdentities(answers[0], dir)
	return files, found, err
}

// finding is a call of op identities.
func (h *Host) finding(user string, dirs ...string) call {
	c := call{op: opIdentities, as: h.actorsFor(user)[0], nonce: newNonce()}
	c.args = append([]string{c.nonce}, dirs...)
	return c
}

// readIdentities reads the answer of op identities.
func (h *Host) readIdentities(a answer, dir string) (found Identities, err error) {
	if a.no != nil {
		return found, h.fail(a.no, dir)
	}
	for _, l := range a.lines {
		switch {
		case l.word == "identity":
			format, encrypted, _ := strings.Cut(l.rest, " ")
			found.List = append(found.List, Identity{Info: KeyInfo{Format: format, Encrypted: encrypted != "no"}})
			continue
		case l.word == "left" && l.rest == "home":
			found.Homeless = strings.TrimSuffix(dir, "/.ssh")
			continue
		case l.word == "left" && l.rest == "many":
			found.Left = "there are more files or private keys in " + dir + " than are looked at"
			continue
		case l.word == "left":
			found.Left = "the name of a private key file in " + dir + " holds a line break"
			continue
		case len(found.List) == 0:
			return found, h.garbled(l)
		}
		i := &found.List[len(found.List)-1]
		switch l.word {
		case "real":
			i.Path = l.rest
		case "ls":
			ls, ok := parseListing(l.rest)
			if !ok {
				return found, h.garbled(l)
			}
			i.Mode, i.UID, i.GID = ls.permissions(), ls.uid, ls.gid
		case "link":
			i.Link = l.rest
		case "apart":
			i.Apart = true
		case "cert":
			i.Certificate = true
		case "public":
			i.Key, _, _ = trust.ParsePublicKey(l.rest)
		case "content":
			i.Key = headKey(l.block)
		case "pub":
			key, comment, err := trust.ParsePublicKey(l.rest)
			if err != nil {
				continue
			}
			i.Comment = comment
			if i.Key.IsZero() {
				i.Key, i.Claimed = key, true
			}
		}
	}
	return found, nil
}

// headKey returns the public half at the beginning of an encrypted key file in
// OpenSSH's format.
func headKey(head []byte) trust.PublicKey {
	var encoded strings.Builder
	for line := range strings.Lines(string(head)) {
		if !strings.HasPrefix(line, "-----") {
			encoded.WriteString(strings.TrimSpace(line))
		}
	}
	text := encoded.String()
	data, err := base64.StdEncoding.DecodeString(text[:len(text)/4*4])
	if err != nil {
		return trust.PublicKey{}
	}
	key, _, err := parseOpenSSH(data)
	if err != nil {
		return trust.PublicKey{}
	}
	return key
}
