package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A Fingerprint names a public key by its content: "SHA256:" and the unpadded
// base64 of the SHA-256 of its blob, as ssh-keygen -l prints it.
type Fingerprint string

// A PublicKey is the public half of a key pair, or a certificate: the blob of
// RFC 4253, section 6.6. Two keys are the same key if their blobs are equal;
// comments play no part. The zero value is no key.
//
// A PublicKey may be of a type that this program knows nothing else about.
type PublicKey struct {
	blob string
}

// ParsePublicKeyBlob reads the wire form of a public key. It checks only that
// the blob starts with the name of its type.
func ParsePublicKeyBlob(blob []byte) (PublicKey, error) {
	if _, ok := blobType(string(blob)); !ok {
		return PublicKey{}, Errorf(Invalid, "public key blob of %d bytes does not start with a key type", len(blob))
	}
	return PublicKey{string(blob)}, nil
}

// ParsePublicKey reads one line "type base64 [comment]", as in a .pub file.
// The type must be the one that the blob declares.
func ParsePublicKey(line string) (key PublicKey, comment string, err error) {
	line = strings.TrimSpace(line)
	if strings.ContainsAny(line, "\r\n\x00") {
		return PublicKey{}, "", Errorf(Invalid, "public key is more than one line")
	}
	name, rest, ok := strings.Cut(line, " ")
	rest = strings.TrimLeft(rest, " \t")
	if !ok || rest == "" {
		return PublicKey{}, "", Errorf(Invalid, "public key %q is not of the form \"type base64 [comment]\"", abbreviate(line))
	}
	encoded, comment := rest, ""
	if i := strings.IndexAny(rest, " \t"); i >= 0 {
		encoded, comment = rest[:i], strings.TrimSpace(rest[i:])
	}
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return PublicKey{}, "", Errorf(Invalid, "public key %q is not base64: %w", abbreviate(line), err)
	}
	declared, ok := blobType(string(blob))
	if !ok || declared != name {
		return PublicKey{}, "", Errorf(Invalid, "public key says %q but its blob says %q", abbreviate(name), abbreviate(declared))
	}
	return PublicKey{string(blob)}, comment, nil
}

// PublicKeyOf returns k as x/crypto/ssh knows it in our form.
func PublicKeyOf(k ssh.PublicKey) PublicKey { return PublicKey{string(k.Marshal())} }

// IsZero reports whether k is no key.
func (k PublicKey) IsZero() bool { return k.blob == "" }

// Blob returns a copy of k's wire form.
func (k PublicKey) Blob() []byte { return []byte(k.blob) }

// Type returns the name of k's type as its blob declares it, such as
// "ssh-ed25519".
func (k PublicKey) Type() string {
	t, _ := blobType(k.blob)
	return t
}

// Equal reports whether k and other are the same key.
func (k PublicKey) Equal(other PublicKey) bool { return k.blob == other.blob }

// Plain returns the key that a certificate certifies, and any other key as it
// is. A certificate that cannot be read is returned as it is, too.
func (k PublicKey) Plain() PublicKey {
	if !k.IsCertificate() {
		return k
	}
	parsed, err := ssh.ParsePublicKey([]byte(k.blob))
	cert, ok := parsed.(*ssh.Certificate)
	if err != nil || !ok {
		return k
	}
	return PublicKeyOf(cert.Key)
}

// Fingerprint returns the SHA-256 fingerprint of k. Of a certificate ssh-keygen
// and sshd print that of the key in it: k.Plain().Fingerprint().
func (k PublicKey) Fingerprint() Fingerprint {
	sum := sha256.Sum256([]byte(k.blob))
	return Fingerprint("SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]))
}

// String returns k as "type base64", without a comment or newline.
func (k PublicKey) String() string {
	if k.IsZero() {
		return ""
	}
	return k.Type() + " " + base64.StdEncoding.EncodeToString([]byte(k.blob))
}

// MarshalText and UnmarshalText let a PublicKey stand in JSON as its String.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (k *PublicKey) UnmarshalText(text []byte) error {
	if len(bytes.TrimSpace(text)) == 0 {
		*k = PublicKey{}
		return nil
	}
	parsed, _, err := ParsePublicKey(string(text))
	if err != nil {
		return err
	}
	*k = parsed
	return nil
}

// SSH returns k as x/crypto/ssh knows it, or an Invalid error where that
// package does not know k's type or finds k malformed.
func (k PublicKey) SSH() (ssh.PublicKey, error) {
	parsed, err := ssh.ParsePublicKey([]byte(k.blob))
	if err != nil {
		return nil, Errorf(Invalid, "public key of type %q: %w", k.Type(), err)
	}
	return parsed, nil
}

// Bits returns the size of k as ssh-keygen -l prints it, or 0 where k's type is
// not known here or k is malformed.
func (k PublicKey) Bits() int {
	w := wire(k.blob)
	name, _ := w.next()
	plain, isCert := cutCertificate(string(name))
	if isCert {
		w.next() // the nonce
	}
	switch strings.TrimSuffix(plain, "@openssh.com") {
	case "ssh-rsa":
		w.next() // the exponent
		if n, ok := w.mpint(); ok {
			return n.BitLen()
		}
	case "ssh-dss":
		if p, ok := w.mpint(); ok {
			return p.BitLen()
		}
	case "ecdsa-sha2-nistp384":
		return 384
	case "ecdsa-sha2-nistp521":
		return 521
	case "ssh-ed25519", "sk-ssh-ed25519", "ecdsa-sha2-nistp256", "sk-ecdsa-sha2-nistp256":
		return 256
	case "ssh-mldsa44-ed25519":
		if strings.HasSuffix(plain, "@openssh.com") {
			return 256 // as 10.4 and 10.5 say; 10.6 gave it a new name and size
		}
		return 512
	}
	return 0
}

// blobType returns the first string of an SSH wire value (RFC 4251, section 5).
func blobType(blob string) (string, bool) {
	if len(blob) < 4 {
		return "", false
	}
	n := binary.BigEndian.Uint32([]byte(blob[:4]))
	if n == 0 || n > 128 || int64(len(blob)) < 4+int64(n) {
		return "", false
	}
	name := blob[4 : 4+n]
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == ',' {
			return "", false
		}
	}
	return name, true
}

// abbreviate shortens text for an error message.
func abbreviate(s string) string {
	if len(s) > 60 {
		return s[:57] + "..."
	}
	return s
}
