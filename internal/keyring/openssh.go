package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"encoding/pem"
	"slices"

	//lint:ignore SA1019 bcrypt is made of it, and OpenSSH derives keys with bcrypt
	"golang.org/x/crypto/blowfish"
	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// OpenSSH's container, as its PROTOCOL.key has it. x/crypto/ssh reads and writes
// the keys; what is wrapped around them is read and written here, since
// x/crypto/ssh tells no comment, knows two ciphers of ssh-keygen -Z, and derives
// every key that it writes in 16 rounds.

const (
	openSSHMagic = "openssh-key-v1\x00" // PROTOCOL.key, section 1
	openSSHBlock = "OPENSSH PRIVATE KEY"
)

// maxRounds bounds what a file may cost to open: some ten seconds of a CPU.
// ssh-keygen writes 16, and 24 in later releases, unless told by -a.
const (
	maxRounds     = 1000
	defaultRounds = 24
)

// An openSSHContainer is what PROTOCOL.key, section 1, has after the magic.
type openSSHContainer struct {
	Cipher, KDF string
	KDFOptions  []byte
	Keys        uint32
	Public      []byte
	Private     []byte
	Tag         []byte `ssh:"rest"` // of a cipher that authenticates
}

// bcryptOptions are the KDFOptions of the KDF "bcrypt".
type bcryptOptions struct {
	Salt   []byte
	Rounds uint32
}

func parseOpenSSH(block *pem.Block, passphrase []byte) (Private, error) {
	defer clear(block.Bytes)
	var outer openSSHContainer
	body, ok := bytes.CutPrefix(block.Bytes, []byte(openSSHMagic))
	if !ok {
		return Private{}, trust.Errorf(trust.Invalid, "private key: not of OpenSSH's version 1")
	}
	if err := ssh.Unmarshal(body, &outer); err != nil {
		return Private{}, trust.Errorf(trust.Invalid, "private key: OpenSSH container is malformed")
	}
	public, err := trust.ParsePublicKeyBlob(outer.Public)
	if err != nil {
		return Private{}, trust.Errorf(trust.Invalid, "private key: OpenSSH container holds no public half")
	}
	switch public.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return Private{}, trust.Errorf(trust.Invalid, "private key %s is in a security key (%q) and cannot be held here", public.Fingerprint(), public.Type())
	default:
		return Private{}, unsupportedType(public.Type())
	}
	plain, err := outer.open(passphrase)
	if err != nil {
		return Private{}, err
	}
	defer clear(plain)

	file := openSSHFile(openSSHContainer{Cipher: "none", KDF: "none", Keys: outer.Keys, Public: outer.Public, Private: plain})
	defer clear(file)
	key, err := ssh.ParseRawPrivateKey(file)
	if err != nil {
		return Private{}, trust.Errorf(trust.Invalid, "private key %s: %w", public.Fingerprint(), err)
	}
	_, comment, _ := cutOpenSSHComment(plain)
	p, err := newPrivate(key, OpenSSH, cleanComment(string(comment)))
	if err != nil {
		return Private{}, err
	}
	if p.Public() != public {
		return Private{}, trust.Errorf(trust.Invalid, "private key: the container says it is %s, but it is %s", public.Fingerprint(), p.Public().Fingerprint())
	}
	return p, nil
}

// openSSHFile returns c as the text of a file.
func openSSHFile(c openSSHContainer) []byte {
	body := ssh.Marshal(c)
	defer clear(body)
	container := append([]byte(openSSHMagic), body...)
	defer clear(container)
	return pem.EncodeToMemory(&pem.Block{Type: openSSHBlock, Bytes: container})
}

// open returns the private part of c in clear, as memory of its own.
func (c openSSHContainer) open(passphrase []byte) ([]byte, error) {
	if c.Cipher == "none" {
		if len(c.Tag) > 0 {
			return nil, trust.Errorf(trust.Invalid, "private key: OpenSSH container is malformed")
		}
		return bytes.Clone(c.Private), nil
	}
	length := openSSHCiphers[c.Cipher]
	if length.key == 0 || c.KDF != "bcrypt" {
		return nil, trust.Errorf(trust.Invalid, "private key is encrypted with %.60q under the key derivation %.60q, which is not supported", c.Cipher, c.KDF).
			WithHint("write it anew: ssh-keygen -p -Z aes256-ctr -f KEY")
	}
	var kdf bcryptOptions
	if err := ssh.Unmarshal(c.KDFOptions, &kdf); err != nil || len(kdf.Salt) == 0 || kdf.Rounds == 0 ||
		len(c.Private)%length.block != 0 || len(c.Tag) != length.tag {
		return nil, trust.Errorf(trust.Invalid, "private key: OpenSSH container is malformed")
	}
	if kdf.Rounds > maxRounds {
		return nil, trust.Errorf(trust.Invalid, "private key takes %d rounds of bcrypt to open, more than %d", kdf.Rounds, maxRounds).
			WithHint("write it anew: ssh-keygen -p -a 100 -f KEY")
	}
	if len(passphrase) == 0 {
		return nil, passphraseMissing()
	}
	derived := bcryptPBKDF(passphrase, kdf.Salt, int(kdf.Rounds), length.key+length.iv)
	defer clear(derived)
	plain, err := length.open(derived[:length.key], derived[length.key:], append(bytes.Clone(c.Private), c.Tag...))
	// Two equal numbers at the beginning tell that it was the right passphrase.
	if err != nil || len(plain) < 8 || !bytes.Equal(plain[:4], plain[4:8]) {
		clear(plain)
		return nil, passphraseWrong()
	}
	return plain, nil
}

// An openSSHCipher opens the private part of a container in place. Its lengths
// are bytes.
type openSSHCipher struct {
	key, iv, block, tag int
	open                func(key, iv, data []byte) ([]byte, error)
}

// openSSHCiphers are those that ssh-keygen -Z offers, but for
// chacha20-poly1305@openssh.com.
var openSSHCiphers = map[string]openSSHCipher{
	"aes256-ctr":             {32, 16, 16, 0, openCTR},
	"aes192-ctr":             {24, 16, 16, 0, openCTR},
	"aes128-ctr":             {16, 16, 16, 0, openCTR},
	"aes256-cbc":             {32, 16, 16, 0, openCBC(aes.NewCipher)},
	"aes192-cbc":             {24, 16, 16, 0, openCBC(aes.NewCipher)},
	"aes128-cbc":             {16, 16, 16, 0, openCBC(aes.NewCipher)},
	"3des-cbc":               {24, 8, 8, 0, openCBC(des.NewTripleDESCipher)},
	"aes256-gcm@openssh.com": {32, 12, 16, 16, openGCM},
	"aes128-gcm@openssh.com": {16, 12, 16, 16, openGCM},
}

func openCTR(key, iv, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	cipher.NewCTR(block, iv).XORKeyStream(data, data)
	return data, nil
}

func openCBC(newCipher func([]byte) (cipher.Block, error)) func(key, iv, data []byte) ([]byte, error) {
	return func(key, iv, data []byte) ([]byte, error) {
		block, err := newCipher(key)
		if err != nil {
			return nil, err
		}
		cipher.NewCBCDecrypter(block, iv).CryptBlocks(data, data)
		return data, nil
	}
}

func openGCM(key, iv, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return aead.Open(data[:0], iv, data, nil)
}

// Encrypt returns a private key file that Reveal gave in the container of OpenSSH,
// encrypted as ssh-keygen does by itself: aes256-ctr under a key that so many
// rounds of bcrypt derive from the passphrase; 0 stands for 24. Each round takes
// some ten milliseconds of a CPU, so it is no work for a transaction.
func Encrypt(file Secret, passphrase []byte, rounds int) (Secret, error) {
	if len(passphrase) == 0 {
		return Secret{}, trust.Errorf(trust.Invalid, "no passphrase to encrypt the private key with").WithField("passphrase")
	}
	if rounds == 0 {
		rounds = defaultRounds
	}
	if rounds < 1 || rounds > maxRounds {
		return Secret{}, trust.Errorf(trust.Invalid, "bcrypt makes 1 to %d rounds, not %d", maxRounds, rounds).WithField("rounds")
	}
	var c openSSHContainer
	block, _ := pem.Decode(file.Bytes())
	if block == nil {
		return Secret{}, errNotPlain()
	}
	defer clear(block.Bytes)
	body, ok := bytes.CutPrefix(block.Bytes, []byte(openSSHMagic))
	if !ok || ssh.Unmarshal(body, &c) != nil || c.Cipher != "none" {
		return Secret{}, errNotPlain()
	}
	head, _, ok := cutOpenSSHComment(c.Private)
	if !ok {
		return Secret{}, errNotPlain()
	}
	plain := append(make([]byte, 0, len(head)+aes.BlockSize), head...)
	defer func() { clear(plain) }()
	for pad := byte(1); len(plain)%aes.BlockSize != 0; pad++ {
		plain = append(plain, pad)
	}

	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return Secret{}, err
	}
	const cipherName = "aes256-ctr"
	length := openSSHCiphers[cipherName]
	derived := bcryptPBKDF(passphrase, salt, rounds, length.key+length.iv)
	defer clear(derived)
	// What opens in counter mode closes as well.
	sealed, err := openCTR(derived[:length.key], derived[length.key:], bytes.Clone(plain))
	if err != nil {
		return Secret{}, err
	}
	return NewSecret(openSSHFile(openSSHContainer{
		Cipher: cipherName, KDF: "bcrypt", KDFOptions: ssh.Marshal(bcryptOptions{salt, uint32(rounds)}),
		Keys: 1, Public: c.Public, Private: sealed,
	})), nil
}

func errNotPlain() error {
	return trust.Errorf(trust.Invalid, "what is to be encrypted is no unencrypted private key in OpenSSH's container")
}

// cutOpenSSHComment finds the comment in the private part of a container: two
// equal numbers, type, the type's fields, comment, padding. What it returns as
// head is all of that up to the padding.
func cutOpenSSHComment(private []byte) (head, comment []byte, ok bool) {
	var first struct {
		Check1, Check2 uint32
		Type           string
		Rest           []byte `ssh:"rest"`
	}
	if ssh.Unmarshal(private, &first) != nil {
		return nil, nil, false
	}
	fields := map[string]int{
		ssh.KeyAlgoED25519:  2,                                                 // public, private
		ssh.KeyAlgoRSA:      6,                                                 // n, e, d, iqmp, p, q
		ssh.KeyAlgoECDSA256: 3, ssh.KeyAlgoECDSA384: 3, ssh.KeyAlgoECDSA521: 3, // curve, public, scalar
	}[first.Type]
	if fields == 0 {
		return nil, nil, false
	}
	next := struct {
		Value []byte
		Rest  []byte `ssh:"rest"`
	}{Rest: first.Rest}
	for range fields + 1 {
		if ssh.Unmarshal(next.Rest, &next) != nil {
			return nil, nil, false
		}
	}
	return private[:len(private)-len(next.Rest)], next.Value, true
}

// bcryptPBKDF derives a key of that many bytes from a passphrase, as
// bcrypt_pbkdf(3) of OpenBSD: PBKDF2 in which bcrypt stands for HMAC, with the
// blocks dealt out over the key like cards, so that each is needed for any part
// of it. x/crypto has it for its own use only.
func bcryptPBKDF(passphrase, salt []byte, rounds, length int) []byte {
	const size = 32 // of a block
	secret := sha512.Sum512(passphrase)
	defer clear(secret[:])
	blocks := (length + size - 1) / size
	key := make([]byte, blocks*size)
	for i := range blocks {
		hashed := sha512.Sum512(binary.BigEndian.AppendUint32(bytes.Clone(salt), uint32(i+1)))
		last := bcryptHash(secret[:], hashed[:])
		sum := last
		for range rounds - 1 {
			hashed = sha512.Sum512(last[:])
			last = bcryptHash(secret[:], hashed[:])
			for j := range sum {
				sum[j] ^= last[j]
			}
		}
		for j, b := range sum {
			key[j*blocks+i] = b
		}
		clear(sum[:])
		clear(last[:])
	}
	return key[:length]
}

// bcryptHash is bcrypt of fixed cost over hashes of a passphrase and a salt.
func bcryptHash(secret, salt []byte) (sum [32]byte) {
	c, err := blowfish.NewSaltedCipher(secret, salt)
	if err != nil {
		panic(err) // only for an empty key
	}
	for range 64 {
		blowfish.ExpandKey(salt, c)
		blowfish.ExpandKey(secret, c)
	}
	copy(sum[:], "OxychromaticBlowfishSwatDynamite")
	for i := 0; i < len(sum); i += blowfish.BlockSize {
		for range 64 {
			c.Encrypt(sum[i:], sum[i:])
		}
	}
	// Blowfish is big-endian, and bcrypt writes its words little-endian.
	for i := 0; i < len(sum); i += 4 {
		slices.Reverse(sum[i : i+4])
	}
	return sum
}
