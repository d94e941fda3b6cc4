package trust

import (
	"encoding/binary"
	"math"
	"time"

	"golang.org/x/crypto/ssh"
)

// A CertificateType says whom a certificate vouches for.
type CertificateType uint32

// The types of PROTOCOL.certkeys.
const (
	UserCertificate CertificateType = 1
	HostCertificate CertificateType = 2
)

// String returns the type as ssh-keygen -L prints it, or "" for one that is none.
func (t CertificateType) String() string {
	switch t {
	case UserCertificate:
		return "user"
	case HostCertificate:
		return "host"
	}
	return ""
}

// A Certificate is what a CA says of a key (OpenSSH's PROTOCOL.certkeys), field by
// field as it stands in the blob: options keep their order, and what is not known is
// kept. One without Signature is not signed yet.
type Certificate struct {
	Nonce  string
	Key    PublicKey // that is certified
	Serial uint64
	Type   CertificateType
	KeyID  string
	// Principals are the accounts or hosts that the certificate is for. Where there
	// are none it is for all of them, to OpenSSH before 10.3.
	Principals []string
	// ValidAfter is the first second and ValidBefore the first no more, to the second.
	// A zero ValidBefore is never.
	ValidAfter, ValidBefore time.Time
	CriticalOptions         []CertificateOption
	Extensions              []CertificateOption
	Reserved                string
	CA                      PublicKey
	Signature               string
}

// A CertificateOption is a critical option or an extension. Data is empty for one that
// is a flag, and else of a form that the option's name says: for all that OpenSSH knows,
// one string.
type CertificateOption struct {
	Name, Data string
}

// TextOption returns an option whose data is one string, such as "force-command".
func TextOption(name, value string) CertificateOption {
	return CertificateOption{name, string(appendString(nil, value))}
}

// Text returns the string that is the data of o, or false where it is not one.
func (o CertificateOption) Text() (string, bool) {
	w := wire(o.Data)
	value, ok := w.next()
	return string(value), ok && len(w) == 0
}

// certifiable are the types of keys that OpenSSH has certificates for: the type of
// those, and of how many fields a key consists.
var certifiable = map[string]struct {
	certificate string
	fields      int
}{
	ssh.KeyAlgoRSA:        {ssh.CertAlgoRSAv01, 2},
	ssh.KeyAlgoECDSA256:   {ssh.CertAlgoECDSA256v01, 2},
	ssh.KeyAlgoECDSA384:   {ssh.CertAlgoECDSA384v01, 2},
	ssh.KeyAlgoECDSA521:   {ssh.CertAlgoECDSA521v01, 2},
	ssh.KeyAlgoED25519:    {ssh.CertAlgoED25519v01, 1},
	ssh.KeyAlgoSKECDSA256: {ssh.CertAlgoSKECDSA256v01, 3},
	ssh.KeyAlgoSKED25519:  {ssh.CertAlgoSKED25519v01, 2},
}

// Certifiable returns nil for a key that a certificate can be made for, and an Invalid
// error that says why not for another.
func (k PublicKey) Certifiable() error {
	if k.IsCertificate() {
		return Errorf(Invalid, "key of type %q is a certificate already", k.Type())
	}
	if _, ok := certifiable[k.Type()]; !ok {
		return Errorf(Invalid, "there are no certificates for keys of type %q", abbreviate(k.Type()))
	}
	return k.checkStructure()
}

// Unsigned returns what the CA of c signs: its blob up to the signature. The key must
// be Certifiable.
func (c Certificate) Unsigned() ([]byte, error) {
	if err := c.Key.Certifiable(); err != nil {
		return nil, err
	}
	name := c.Key.Type()
	out := appendString(nil, certifiable[name].certificate)
	out = appendString(out, c.Nonce)
	out = append(out, c.Key.blob[4+len(name):]...)
	out = binary.BigEndian.AppendUint64(out, c.Serial)
	out = binary.BigEndian.AppendUint32(out, uint32(c.Type))
	out = appendString(out, c.KeyID)
	var principals []byte
	for _, p := range c.Principals {
		principals = appendString(principals, p)
	}
	out = appendString(out, string(principals))
	out = binary.BigEndian.AppendUint64(out, uint64(c.ValidAfter.Unix()))
	before := uint64(math.MaxUint64)
	if !c.ValidBefore.IsZero() {
		before = uint64(c.ValidBefore.Unix())
	}
	out = binary.BigEndian.AppendUint64(out, before)
	out = appendString(out, optionsBlob(c.CriticalOptions))
	out = appendString(out, optionsBlob(c.Extensions))
	out = appendString(out, c.Reserved)
	return appendString(out, c.CA.blob), nil
}

func optionsBlob(options []CertificateOption) string {
	var out []byte
	for _, o := range options {
		out = appendString(appendString(out, o.Name), o.Data)
	}
	return string(out)
}

// SignedCertificate returns the certificate of which unsigned is what its CA signed.
func SignedCertificate(unsigned []byte, signature *ssh.Signature) PublicKey {
	return PublicKey{string(appendString([]byte(string(unsigned)), string(ssh.Marshal(signature))))}
}

// ParseCertificate reads a certificate, signed or not. It does not verify the
// signature.
func ParseCertificate(blob []byte) (Certificate, error) {
	w := wire(blob)
	name, _ := w.next()
	malformed := Errorf(Invalid, "certificate of type %q is malformed", abbreviate(string(name)))
	plain, fields := "", 0
	for key, c := range certifiable {
		if c.certificate == string(name) {
			plain, fields = key, c.fields
		}
	}
	if plain == "" {
		return Certificate{}, Errorf(Invalid, "%q is no type of certificates that is known", abbreviate(string(name)))
	}
	var c Certificate
	nonce, ok := w.next()
	key := w
	for range fields {
		if _, more := w.next(); !more {
			return Certificate{}, malformed
		}
	}
	c.Nonce = string(nonce)
	c.Key = PublicKey{string(appendString(nil, plain)) + string(key[:len(key)-len(w)])}
	if err := c.Key.Certifiable(); err != nil {
		return Certificate{}, err
	}
	serial, ok1 := w.long()
	kind, ok2 := w.number()
	id, ok3 := w.next()
	names, ok4 := w.next()
	after, ok5 := w.long()
	before, ok6 := w.long()
	critical, ok7 := w.next()
	extensions, ok8 := w.next()
	reserved, ok9 := w.next()
	ca, ok10 := w.next()
	if !(ok && ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7 && ok8 && ok9 && ok10) {
		return Certificate{}, malformed
	}
	if after > math.MaxInt64 || before > math.MaxInt64 && before != math.MaxUint64 {
		return Certificate{}, malformed
	}
	c.Serial, c.Type, c.KeyID, c.Reserved = serial, CertificateType(kind), string(id), string(reserved)
	c.ValidAfter = time.Unix(int64(after), 0).UTC()
	if before != math.MaxUint64 {
		c.ValidBefore = time.Unix(int64(before), 0).UTC()
	}
	for principals := wire(names); len(principals) > 0; {
		p, ok := principals.next()
		if !ok {
			return Certificate{}, malformed
		}
		c.Principals = append(c.Principals, string(p))
	}
	var err error
	if c.CA, err = ParsePublicKeyBlob(ca); err != nil {
		return Certificate{}, err
	}
	if c.CriticalOptions, ok1 = readOptions(critical); !ok1 {
		return Certificate{}, malformed
	}
	if c.Extensions, ok1 = readOptions(extensions); !ok1 {
		return Certificate{}, malformed
	}
	if len(w) > 0 {
		signature, ok := w.next()
		if !ok || len(w) > 0 || len(signature) == 0 {
			return Certificate{}, malformed
		}
		c.Signature = string(signature)
	}
	return c, nil
}

func readOptions(data []byte) (options []CertificateOption, ok bool) {
	for w := wire(data); len(w) > 0; {
		name, ok1 := w.next()
		value, ok2 := w.next()
		if !ok1 || !ok2 {
			return nil, false
		}
		options = append(options, CertificateOption{string(name), string(value)})
	}
	return options, true
}
