package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"
)

// A PublicFormat is a format of public key files.
type PublicFormat string

const (
	// PublicOpenSSH is one line "type base64 comment", as in a .pub file.
	PublicOpenSSH PublicFormat = "openssh"
	// PublicRFC4716 is the SSH public key file format of RFC 4716, which PuTTY,
	// Tectia and network devices take.
	PublicRFC4716 PublicFormat = "rfc4716"
	// PublicPKCS8 is a SubjectPublicKeyInfo (RFC 5280, section 4.1) in PEM, which
	// ssh-keygen calls PKCS8. It has neither a comment nor a form for
	// certificates, keys in a FIDO token, and DSA keys.
	PublicPKCS8 PublicFormat = "pkcs8"
)

// PublicFormats lists every PublicFormat.
var PublicFormats = []PublicFormat{PublicOpenSSH, PublicRFC4716, PublicPKCS8}

// ParsePublicFormat returns the PublicFormat of that name, or an Invalid error.
func ParsePublicFormat(name string) (PublicFormat, error) {
	for _, f := range PublicFormats {
		if string(f) == name {
			return f, nil
		}
	}
	return "", Errorf(Invalid, "public key format %q is none of openssh, rfc4716, pkcs8", abbreviate(name)).WithField("format")
}

// MaxPublicFile is the size of the largest file that ParsePublicFile reads: the
// blob of an RSA key of 16384 bits takes some 3 kB, a certificate can be larger.
const MaxPublicFile = 64 << 10

const (
	rfc4716Begin = "---- BEGIN SSH2 PUBLIC KEY ----"
	rfc4716End   = "---- END SSH2 PUBLIC KEY ----"
	// rfc4716Line is how long a line may be, and its base64 as ssh-keygen writes it.
	rfc4716Line, rfc4716Base64 = 72, 70
	pkcs8Public                = "PUBLIC KEY"
)

// PublicFile returns k as a file of the given format, with a newline at its end.
// The comment, which may be empty and may not be of several lines, goes into the
// formats that have one; in RFC 4716, up to the end of its line, as ssh-keygen
// does, which cannot read one of several. An error is Invalid: k is of a type
// that the format has no form for.
func (k PublicKey) PublicFile(format PublicFormat, comment string) ([]byte, error) {
	if k.IsZero() {
		return nil, Errorf(Invalid, "no public key to write")
	}
	if !utf8.ValidString(comment) || strings.ContainsFunc(comment, unicode.IsControl) {
		return nil, Errorf(Invalid, "comment %q holds control characters or is not UTF-8", abbreviate(comment)).WithField("comment")
	}
	switch format {
	case PublicOpenSSH:
		return []byte(strings.TrimSpace(k.String()+" "+comment) + "\n"), nil
	case PublicRFC4716:
		return k.rfc4716(comment), nil
	case PublicPKCS8:
		return k.subjectPublicKeyInfo()
	}
	_, err := ParsePublicFormat(string(format))
	return nil, err
}

func (k PublicKey) rfc4716(comment string) []byte {
	var b bytes.Buffer
	b.WriteString(rfc4716Begin + "\n")
	if comment != "" {
		// Quoted, since "some existing implementations fail if these quotation
		// marks are omitted" (section 3.3.2).
		header := `Comment: "` + comment
		if len(header) > rfc4716Line-1 {
			header = strings.ToValidUTF8(header[:rfc4716Line-1], "")
		}
		b.WriteString(header + "\"\n")
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(k.blob))
	for len(encoded) > 0 {
		n := min(len(encoded), rfc4716Base64)
		b.WriteString(encoded[:n] + "\n")
		encoded = encoded[n:]
	}
	b.WriteString(rfc4716End + "\n")
	return b.Bytes()
}

func (k PublicKey) subjectPublicKeyInfo() ([]byte, error) {
	refused := Errorf(Invalid, "a key of type %q has no form in PKCS#8", k.Type()).WithField("format")
	switch k.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
	default:
		return nil, refused
	}
	parsed, err := k.SSH()
	if err != nil {
		return nil, err
	}
	half, ok := parsed.(ssh.CryptoPublicKey)
	if !ok {
		return nil, refused
	}
	der, err := x509.MarshalPKIXPublicKey(half.CryptoPublicKey())
	if err != nil {
		return nil, Errorf(Invalid, "public key of type %q: %w", k.Type(), err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pkcs8Public, Bytes: der}), nil
}

var newlines = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// ParsePublicFile reads a file of one public key, and tells in which format it
// was. Lines may end in "\n", "\r\n" or "\r". A key of a type that is known here
// has to be well formed; one of another type is taken as it is, where the format
// can hold it.
func ParsePublicFile(file []byte) (key PublicKey, comment string, format PublicFormat, err error) {
	if len(file) > MaxPublicFile {
		return PublicKey{}, "", "", Errorf(Invalid, "public key file of %d bytes is larger than %d", len(file), MaxPublicFile)
	}
	text := newlines.Replace(strings.TrimPrefix(string(file), "\ufeff"))
	text = strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(text, rfc4716Begin):
		format = PublicRFC4716
		key, comment, err = parseRFC4716(text)
	case strings.Contains(text, "-----BEGIN "+pkcs8Public+"-----"):
		format = PublicPKCS8
		key, err = parseSubjectPublicKeyInfo(text)
	default:
		format = PublicOpenSSH
		key, comment, err = ParsePublicKey(text)
	}
	if err == nil {
		err = key.checkStructure()
	}
	if err != nil {
		return PublicKey{}, "", "", err
	}
	return key, comment, format, nil
}

// parseRFC4716 reads headers, of which "\" at the end of a line continues the
// value on the next, and then base64.
func parseRFC4716(text string) (key PublicKey, comment string, err error) {
	body, ok := strings.CutSuffix(strings.TrimPrefix(text, rfc4716Begin), rfc4716End)
	if !ok {
		return PublicKey{}, "", Errorf(Invalid, "public key file has no line %q at its end", rfc4716End)
	}
	lines := strings.Split(body, "\n")
	var encoded strings.Builder
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		name, _, isHeader := strings.Cut(line, ":")
		if !isHeader {
			encoded.WriteString(strings.TrimSpace(line))
			continue
		}
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
			i++
			line = strings.TrimSuffix(line, `\`) + lines[i]
		}
		if strings.EqualFold(name, "Comment") {
			comment = strings.TrimSpace(line[len(name)+1:])
			if n := len(comment); n > 1 && comment[0] == '"' && comment[n-1] == '"' {
				comment = comment[1 : n-1]
			}
		}
	}
	blob, err := base64.StdEncoding.DecodeString(encoded.String())
	if err != nil {
		return PublicKey{}, "", Errorf(Invalid, "public key file is not base64 below its headers")
	}
	key, err = ParsePublicKeyBlob(blob)
	return key, comment, err
}

func parseSubjectPublicKeyInfo(text string) (PublicKey, error) {
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return PublicKey{}, Errorf(Invalid, "public key file is damaged: its PEM block cannot be read")
		}
		if block.Type != pkcs8Public {
			continue
		}
		half, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return PublicKey{}, Errorf(Invalid, "public key: %w", err)
		}
		public, err := ssh.NewPublicKey(half)
		if err != nil {
			return PublicKey{}, Errorf(Invalid, "public key: SSH does not use this kind: %w", err)
		}
		return PublicKeyOf(public), nil
	}
}
