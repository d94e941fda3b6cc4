package trust

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxSignable is how many bytes of data a key is asked to sign at most, as with
// OpenSSH's ssh-agent. What SSH has signed is shorter by far.
const MaxSignable = 256 << 10

// A Signable is data that SSH programs have a user key sign: the request of a login
// (RFC 4252, section 7, and OpenSSH's publickey-hostbound-v00@openssh.com), or a
// message, as for git (PROTOCOL.sshsig). The two cannot be taken for each other, nor
// for anything else that a key signs.
type Signable struct {
	// Of a login: the session that it is good in, the account, and the key that the
	// client offers with the signature algorithm.
	Session   []byte
	User      string
	Key       PublicKey
	Algorithm string
	// HostKey is by which key the client knows the server, where the login is bound
	// to that.
	HostKey PublicKey

	// Namespace is what a message is signed for, such as "git"; of a login it is empty.
	Namespace string
}

// IsLogin reports whether the signature logs in, rather than vouches for a message.
func (s Signable) IsLogin() bool { return s.Namespace == "" }

// ParseSignable reads data that is to be signed. What is neither a login nor a
// message is an Invalid error.
func ParseSignable(data []byte) (Signable, error) {
	if len(data) > MaxSignable {
		return Signable{}, Errorf(Invalid, "data of %d bytes to sign is longer than %d", len(data), MaxSignable).WithField("data")
	}
	s, ok := parseSSHSIG(data)
	if !ok {
		s, ok = parseUserauth(data)
	}
	if !ok {
		return Signable{}, Errorf(Invalid, "the data is neither the request of an SSH login nor a message as ssh-keygen -Y signs it: nothing else is signed").WithField("data")
	}
	return s, nil
}

// parseSSHSIG reads what PROTOCOL.sshsig calls the signed data.
func parseSSHSIG(data []byte) (s Signable, ok bool) {
	rest, ok := strings.CutPrefix(string(data), "SSHSIG")
	if !ok {
		return s, false
	}
	w := wire(rest)
	namespace, ok1 := w.next()
	_, ok2 := w.next() // reserved
	hash, ok3 := w.next()
	sum, ok4 := w.next()
	size := map[string]int{"sha256": 32, "sha512": 64}[string(hash)]
	s.Namespace = string(namespace)
	return s, ok1 && ok2 && ok3 && ok4 && len(w) == 0 && size > 0 && len(sum) == size && isName(s.Namespace)
}

// parseUserauth reads what a client signs to log in.
func parseUserauth(data []byte) (s Signable, ok bool) {
	const (
		userauthRequest = 50 // SSH_MSG_USERAUTH_REQUEST
		maxSession      = 128
	)
	w := wire(data)
	session, ok := w.next()
	if !ok || len(session) == 0 || len(session) > maxSession || len(w) == 0 || w[0] != userauthRequest {
		return s, false
	}
	w = w[1:]
	user, ok1 := w.next()
	service, ok2 := w.next()
	method, ok3 := w.next()
	if !ok1 || !ok2 || !ok3 || string(service) != "ssh-connection" || len(w) == 0 || w[0] != 1 {
		return s, false
	}
	w = w[1:]
	algorithm, ok1 := w.next()
	blob, ok2 := w.next()
	if !ok1 || !ok2 {
		return s, false
	}
	var err error
	if s.Key, err = ParsePublicKeyBlob(blob); err != nil {
		return s, false
	}
	switch string(method) {
	case "publickey":
	case "publickey-hostbound-v00@openssh.com":
		host, ok := w.next()
		if !ok {
			return s, false
		}
		if s.HostKey, err = ParsePublicKeyBlob(host); err != nil {
			return s, false
		}
	default:
		return s, false
	}
	s.Session, s.User, s.Algorithm = session, string(user), string(algorithm)
	return s, len(w) == 0 && isName(s.User) && isName(s.Algorithm)
}

// isName reports whether s may stand in a log as what it is.
func isName(s string) bool {
	return s != "" && len(s) <= 256 && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
