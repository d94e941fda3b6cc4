package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"math/big"
	"strconv"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// PuTTY's private key files (PPK), versions 2 and 3, after appendix C of the
// PuTTY manual. The whole file is authenticated: under a key derived from the
// passphrase where it is encrypted, and else under one that everybody knows.

// ppkPrefix begins every one of them.
const ppkPrefix = "PuTTY-User-Key-File-"

// What a file may cost to open. PuTTY takes 8 MiB by itself, and as many passes
// as fit into a tenth of a second.
const (
	maxArgon2Memory = 256 << 10 // KiB
	maxArgon2Work   = 4 << 20   // KiB, in all passes together: five to eight seconds of a CPU
	maxArgon2Lanes  = 16
)

// A ppk is a file as it is written.
type ppk struct {
	version                        int
	algorithm, encryption, comment string
	public                         []byte
	kdf                            argon2Params // of an encrypted file of version 3
	private                        []byte       // encrypted or not
	mac                            []byte
}

type argon2Params struct {
	variant               string
	memory, passes, lanes uint32 // memory is KiB
	salt                  []byte
}

func parsePPK(file, passphrase []byte) (Private, error) {
	f, err := readPPK(file)
	defer func() { clear(f.private) }()
	if err != nil {
		return Private{}, err
	}
	public, err := trust.ParsePublicKeyBlob(f.public)
	if err != nil || public.Type() != f.algorithm {
		return Private{}, ppkMalformed("its public half is not of type %.60q", f.algorithm)
	}
	switch public.Plain().Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
	default: // "ssh-dss", "ssh-ed448"
		return Private{}, unsupportedType(f.algorithm)
	}
	if err := f.open(passphrase); err != nil {
		return Private{}, err
	}
	// Only the plain half is taken of a file that holds a certificate.
	key, err := ppkKey(public.Plain(), f.private)
	if err != nil {
		return Private{}, err
	}
	p, err := newPrivate(key, PuTTY, cleanComment(f.comment))
	if err != nil {
		return Private{}, err
	}
	if p.Public() != public.Plain() {
		return Private{}, trust.Errorf(trust.Invalid, "private key: the file says it is %s, but it is %s", public.Plain().Fingerprint(), p.Public().Fingerprint())
	}
	return p, nil
}

func ppkMalformed(format string, args ...any) error {
	return trust.Errorf(trust.Invalid, "private key: PuTTY's file is malformed: "+format, args...)
}

// readPPK reads the outer form: headers in a fixed order, of which some count the
// lines of base64 that follow. Lines end in LF, CR LF or CR.
func readPPK(file []byte) (f ppk, err error) {
	text := bytes.ReplaceAll(bytes.ReplaceAll(file, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	defer clear(text)
	r := &ppkLines{rest: text}
	for f.version = 3; f.version > 1; f.version-- {
		if f.algorithm, err = r.header("PuTTY-User-Key-File-" + strconv.Itoa(f.version)); err == nil {
			break
		}
	}
	if err != nil {
		return f, trust.Errorf(trust.Invalid, "private key: of a version of PuTTY's format that is not supported: 2 and 3 are").
			WithHint("write it anew: puttygen KEY.ppk -O private -o NEW.ppk")
	}
	f.encryption = r.text("Encryption")
	f.comment = r.text("Comment")
	f.public = r.lines("Public-Lines")
	switch {
	case r.err != nil:
	case f.encryption == "none":
	case f.encryption != "aes256-cbc":
		return f, trust.Errorf(trust.Invalid, "private key is encrypted with %.60q, which is not supported", f.encryption)
	case f.version == 3:
		f.kdf = argon2Params{
			variant: r.text("Key-Derivation"),
			memory:  r.number("Argon2-Memory"), passes: r.number("Argon2-Passes"), lanes: r.number("Argon2-Parallelism"),
			salt: r.hex("Argon2-Salt"),
		}
	}
	f.private = r.lines("Private-Lines")
	f.mac = r.hex("Private-MAC")
	return f, r.err
}

// ppkLines takes lines off the front of a file until one is not as it has to be.
type ppkLines struct {
	rest []byte
	err  error
}

func (r *ppkLines) line() []byte {
	line, rest, _ := bytes.Cut(r.rest, []byte("\n"))
	r.rest = rest
	return line
}

// header returns the value of the next line if it is of that name, and else takes
// nothing.
func (r *ppkLines) header(name string) (string, error) {
	before := r.rest
	got, value, ok := bytes.Cut(r.line(), []byte(": "))
	if !ok || string(got) != name {
		r.rest = before
		return "", ppkMalformed("%q is not where it has to be", name)
	}
	return string(value), nil
}

func (r *ppkLines) text(name string) (value string) {
	if r.err == nil {
		value, r.err = r.header(name)
	}
	return value
}

func (r *ppkLines) number(name string) uint32 {
	n, err := strconv.ParseUint(r.text(name), 10, 32)
	if err != nil && r.err == nil {
		r.err = ppkMalformed("%q is no number", name)
	}
	return uint32(n)
}

func (r *ppkLines) hex(name string) []byte {
	b, err := hex.DecodeString(r.text(name))
	if err != nil && r.err == nil {
		r.err = ppkMalformed("%q is not hexadecimal", name)
	}
	return b
}

// lines returns what as many lines of base64 hold as the next header says.
func (r *ppkLines) lines(name string) []byte {
	var joined []byte
	for n := r.number(name); n > 0 && len(r.rest) > 0; n-- {
		joined = append(joined, r.line()...)
	}
	defer func() { clear(joined) }()
	b := make([]byte, base64.StdEncoding.DecodedLen(len(joined)))
	n, err := base64.StdEncoding.Strict().Decode(b, joined)
	if err != nil && r.err == nil {
		r.err = ppkMalformed("what follows %q is not base64", name)
	}
	return b[:n]
}

// open decrypts the private part in place, and checks that nobody changed the
// file.
func (f ppk) open(passphrase []byte) error {
	encrypted := f.encryption != "none"
	newHash, key, iv, macKey := sha256.New, []byte(nil), []byte(nil), []byte(nil)
	if encrypted && len(f.private)%aes.BlockSize != 0 {
		return ppkMalformed("its private part is not a whole number of blocks")
	}
	if encrypted && f.version == 3 {
		if err := f.kdf.check(); err != nil {
			return err
		}
	}
	if encrypted && len(passphrase) == 0 {
		return passphraseMissing()
	}
	switch {
	case f.version == 2:
		if !encrypted {
			passphrase = nil
		}
		newHash = sha1.New
		for i := range byte(2) {
			key = append(key, sha1Of([]byte{0, 0, 0, i}, passphrase)...)
		}
		key, iv = key[:32], make([]byte, aes.BlockSize)
		macKey = sha1Of([]byte("putty-private-key-file-mac-key"), passphrase)
	case encrypted:
		derived := f.kdf.derive(passphrase, 32+aes.BlockSize+32)
		key, iv, macKey = derived[:32], derived[32:48], derived[48:]
	}
	defer clear(key)
	defer clear(macKey)
	if encrypted {
		block, err := aes.NewCipher(key)
		if err != nil {
			return err
		}
		cipher.NewCBCDecrypter(block, iv).CryptBlocks(f.private, f.private)
	}
	if hmac.Equal(f.macOf(newHash, macKey), f.mac) {
		return nil
	}
	if encrypted {
		return passphraseWrong()
	}
	return trust.Errorf(trust.Invalid, "private key: PuTTY's file was damaged or changed since it was written")
}

// macOf authenticates all that the file says, with the private part in clear and
// its padding.
func (f ppk) macOf(newHash func() hash.Hash, key []byte) []byte {
	mac := hmac.New(newHash, key)
	signed := ssh.Marshal(struct {
		Algorithm, Encryption, Comment string
		Public, Private                []byte
	}{f.algorithm, f.encryption, f.comment, f.public, f.private})
	defer clear(signed)
	mac.Write(signed)
	return mac.Sum(nil)
}

func sha1Of(parts ...[]byte) []byte {
	h := sha1.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// check refuses what would cost too much, and what Argon2 cannot do (RFC 9106,
// section 3.1).
func (a argon2Params) check() error {
	switch {
	case a.variant != "Argon2id" && a.variant != "Argon2i" && a.variant != "Argon2d":
		return trust.Errorf(trust.Invalid, "private key is encrypted under the key derivation %.60q, which is not supported", a.variant)
	case a.passes == 0 || a.lanes == 0 || uint64(a.memory) < 8*uint64(a.lanes):
		return ppkMalformed("Argon2 cannot run with %d KiB, %d passes and %d lanes", a.memory, a.passes, a.lanes)
	case a.lanes > maxArgon2Lanes || a.memory > maxArgon2Memory || uint64(a.memory)*uint64(a.passes) > maxArgon2Work:
		return trust.Errorf(trust.Invalid, "private key takes %d KiB, %d passes and %d lanes of Argon2 to open, more than %d KiB at a time, %d KiB in all passes, or %d lanes",
			a.memory, a.passes, a.lanes, maxArgon2Memory, maxArgon2Work, maxArgon2Lanes).
			WithHint("write it anew: puttygen KEY.ppk --reencrypt -o NEW.ppk")
	}
	return nil
}

// isLarge reports whether a file takes much more memory to open than PuTTY's own do.
func isLarge(file []byte) bool {
	if !bytes.HasPrefix(file, []byte(ppkPrefix)) {
		return false
	}
	f, err := readPPK(file)
	clear(f.private)
	return err == nil && f.kdf.memory > 16<<10
}

func (a argon2Params) derive(passphrase []byte, length uint32) []byte {
	switch a.variant {
	case "Argon2id":
		return argon2.IDKey(passphrase, a.salt, a.passes, a.memory, uint8(a.lanes), length)
	case "Argon2i":
		return argon2.Key(passphrase, a.salt, a.passes, a.memory, uint8(a.lanes), length)
	default:
		return argon2d(argon2Input{password: passphrase, salt: a.salt, passes: a.passes, memory: a.memory, lanes: a.lanes}, length)
	}
}

// ppkKey puts a key together from its halves. The private one is numbers as of RFC
// 4251, section 5, and then padding.
func ppkKey(public trust.PublicKey, private []byte) (any, error) {
	parsed, err := public.SSH()
	if err != nil {
		return nil, err
	}
	malformed := ppkMalformed("its private part is not that of a key of type %q", public.Type())
	switch half := parsed.(ssh.CryptoPublicKey).CryptoPublicKey().(type) {
	case *rsa.PublicKey:
		var n struct {
			D, P, Q, Inverse *big.Int // of Q modulo P
			Padding          []byte   `ssh:"rest"`
		}
		if ssh.Unmarshal(private, &n) != nil || n.D.Sign() <= 0 || n.P.Sign() <= 0 || n.Q.Sign() <= 0 {
			return nil, malformed
		}
		clear(n.Inverse.Bits()) // it follows from the others
		return &rsa.PrivateKey{PublicKey: *half, D: n.D, Primes: []*big.Int{n.P, n.Q}}, nil
	case *ecdsa.PublicKey:
		var n struct {
			Scalar  *big.Int
			Padding []byte `ssh:"rest"`
		}
		size := (half.Curve.Params().BitSize + 7) / 8
		if ssh.Unmarshal(private, &n) != nil || n.Scalar.Sign() <= 0 || n.Scalar.BitLen() > 8*size {
			return nil, malformed
		}
		scalar := n.Scalar.FillBytes(make([]byte, size))
		defer clear(scalar)
		clear(n.Scalar.Bits())
		key, err := ecdsa.ParseRawPrivateKey(half.Curve, scalar)
		if err != nil {
			return nil, malformed
		}
		return key, nil
	case ed25519.PublicKey:
		var n struct {
			Seed    []byte
			Padding []byte `ssh:"rest"`
		}
		// PuTTY takes it for a number, little end first, and so of any length.
		seed := make([]byte, ed25519.SeedSize)
		defer clear(seed)
		if ssh.Unmarshal(private, &n) != nil || len(bytes.TrimRight(n.Seed, "\x00")) > len(seed) {
			return nil, malformed
		}
		copy(seed, n.Seed)
		return ed25519.NewKeyFromSeed(seed), nil
	}
	return nil, malformed
}
