package trust

import (
	"bytes"
	"testing"
	"time"
)

// A fleet's scan parses one such file for each account of each host.
func BenchmarkAuthorizedKeys(b *testing.B) {
	text, _ := corpus(b, "authorized_keys/gitolite")
	text = bytes.Repeat(text, 20) // 120 lines
	key := testKey(b, "ed25519", "admin")
	b.Run("parse", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			ParseAuthorizedKeys(text)
		}
	})
	f := ParseAuthorizedKeys(text)
	a := Attempt{Key: testKey(b, "ed25519", "nobody"), Addr: mustAddr(b, "192.0.2.1"), Time: time.Unix(1e9, 0), Server: OpenSSHVersion(10, 0)}
	b.Run("refuse", func(b *testing.B) {
		for b.Loop() {
			if WouldAccept([]*AuthorizedKeys{f}, a).Accepted {
				b.Fatal("accepted")
			}
		}
	})
	b.Run("succeed", func(b *testing.B) {
		for b.Loop() {
			f := ParseAuthorizedKeys(text)
			if len(f.AddSuccessor(key, a.Key)) != 20 {
				b.Fatal("not added")
			}
			f.Bytes()
		}
	})
}
