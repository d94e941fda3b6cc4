package control

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/trust"
)

// What recordings could not be kept secret by, or not be opened with, is refused.
func TestAuditKeys(t *testing.T) {
	const sample = "1pyl6I1tL7xfJuFYVzXlUW8uXXlpxegHXBzGCBKaSFA="
	raw, err := base64.StdEncoding.DecodeString(sample)
	if err != nil {
		t.Fatal(err)
	}
	basePoint := append([]byte{9}, make([]byte, 31)...)
	for name, key := range map[string]string{"none": "", "the vendor's sample": sample, "the base point": base64.StdEncoding.EncodeToString(basePoint)} {
		if err := checkAuditKey(key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := map[string]string{
		"unpadded": strings.TrimRight(sample, "="), "with a newline": sample + "\n", "of URLs": strings.Replace(sample, "J", "-", 1),
		"short": base64.StdEncoding.EncodeToString(raw[:31]), "long": base64.StdEncoding.EncodeToString(append(raw, 0)),
		"bits after the end": "1pyl6I1tL7xfJuFYVzXlUW8uXXlpxegHXBzGCBKaSFB=",
	}
	// The points of low order (RFC 7748, section 6.1; cr.yp.to/ecdh.html#validate), and
	// encodings that stand for another one.
	for _, point := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"f6ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 9 + p
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		hex.EncodeToString(append(slices.Clone(raw[:31]), raw[31]|0x80)),
	} {
		b, err := hex.DecodeString(point)
		if err != nil {
			t.Fatal(err)
		}
		bad[point] = base64.StdEncoding.EncodeToString(b)
	}
	for name, key := range bad {
		if err := checkAuditKey(key); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Whatever crypto/ecdh refuses to agree with is refused.
	private, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range bad {
		b, err := base64.StdEncoding.DecodeString(key)
		if err != nil || len(b) != 32 {
			continue
		}
		public, err := ecdh.X25519().NewPublicKey(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := private.ECDH(public); err != nil && checkAuditKey(key) == nil {
			t.Errorf("%s: crypto/ecdh says %v", name, err)
		}
	}
}
