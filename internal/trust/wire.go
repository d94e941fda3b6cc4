package trust

import (
	"crypto/ed25519"
	"encoding/binary"
	"math/big"
	"strings"

	"golang.org/x/crypto/ssh"
)

// wire reads values of RFC 4251, section 5, from its front.
type wire []byte

// next takes a string off w's front. It is part of w.
func (w *wire) next() ([]byte, bool) {
	if len(*w) < 4 {
		return nil, false
	}
	n := binary.BigEndian.Uint32(*w)
	if uint64(n) > uint64(len(*w)-4) {
		return nil, false
	}
	s := (*w)[4 : 4+n]
	*w = (*w)[4+n:]
	return s, true
}

// number takes a uint32 off w's front.
func (w *wire) number() (uint32, bool) {
	if len(*w) < 4 {
		return 0, false
	}
	n := binary.BigEndian.Uint32(*w)
	*w = (*w)[4:]
	return n, true
}

// mpint takes a multiple precision integer that is not negative off w's front.
func (w *wire) mpint() (*big.Int, bool) {
	s, ok := w.next()
	if !ok || len(s) > 0 && s[0]&0x80 != 0 {
		return nil, false
	}
	return new(big.Int).SetBytes(s), true
}

// A keyType is what is known of one type of public key.
type keyType struct {
	name string
	// The first release of OpenSSH that knows it, and the first that no
	// longer does (0.0: none).
	since, until [2]int
}

// keyTypes are the types that some OpenSSH reads in authorized_keys.
var keyTypes = []keyType{
	{name: "ssh-rsa"},
	{name: "ssh-dss", until: [2]int{10, 1}},
	{name: "ecdsa-sha2-nistp256", since: [2]int{5, 7}},
	{name: "ecdsa-sha2-nistp384", since: [2]int{5, 7}},
	{name: "ecdsa-sha2-nistp521", since: [2]int{5, 7}},
	{name: "ssh-ed25519", since: [2]int{6, 5}},
	{name: "sk-ecdsa-sha2-nistp256@openssh.com", since: [2]int{8, 2}},
	{name: "sk-ssh-ed25519@openssh.com", since: [2]int{8, 2}},
	{name: "ssh-mldsa44-ed25519@openssh.com", since: [2]int{10, 4}, until: [2]int{10, 6}},
	{name: "ssh-mldsa44-ed25519", since: [2]int{10, 6}},
}

// IsCertificate reports whether k is a certificate rather than a key
// (PROTOCOL.certkeys).
func (k PublicKey) IsCertificate() bool {
	_, ok := cutCertificate(k.Type())
	return ok
}

// cutCertificate returns the type of the key that a type of certificates
// certifies, without "@openssh.com", and whether it is one.
func cutCertificate(name string) (string, bool) {
	if plain, ok := strings.CutSuffix(name, "-cert-v01@openssh.com"); ok {
		return plain, true
	}
	return strings.CutSuffix(name, "-cert") // since ssh-mldsa44-ed25519-cert
}

// checkStructure refuses a key that OpenSSH cannot decode: one of a known type
// whose parts are not what the type demands, or that something follows. Keys of
// other types pass.
func (k PublicKey) checkStructure() error {
	ok, w := true, wire(k.blob)
	name, _ := w.next()
	switch string(name) {
	case "ssh-rsa":
		// RSA is read here, since x/crypto refuses exponents that OpenSSH takes.
		_, ok1 := w.mpint()
		n, ok2 := w.mpint()
		ok = ok1 && ok2 && len(w) == 0
		if ok && (n.BitLen() < 1024 || n.BitLen() > 16384) {
			return Errorf(Invalid, "RSA key of %d bits: OpenSSH reads 1024 to 16384", n.BitLen())
		}
	case "ssh-dss":
		for range 4 {
			_, one := w.mpint()
			ok = ok && one
		}
		ok = ok && len(w) == 0
	case "ssh-mldsa44-ed25519@openssh.com", "ssh-mldsa44-ed25519":
		key, there := w.next()
		ok = there && len(key) == 1312+32 && len(w) == 0
	case "ssh-ed25519":
		// Most keys are of this type, and x/crypto takes long by reflection.
		key, there := w.next()
		ok = there && len(key) == ed25519.PublicKeySize && len(w) == 0
	case "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "sk-ecdsa-sha2-nistp256@openssh.com", "sk-ssh-ed25519@openssh.com":
		_, err := ssh.ParsePublicKey([]byte(k.blob))
		ok = err == nil
	}
	if !ok {
		return Errorf(Invalid, "key of type %q is malformed", k.Type())
	}
	return nil
}
