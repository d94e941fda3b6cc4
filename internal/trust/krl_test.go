package trust

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
)

// serialModels are sets of serial numbers of every shape, so that lists, ranges and
// bitmaps of them are written and read, and neighbours of different shapes meet.
func serialModels(seed uint64) map[string][]SerialRange {
	r := rand.New(rand.NewPCG(seed, 4))
	models := map[string][]SerialRange{
		"one":        {{7, 7}},
		"range":      {{1, 1 << 40}},
		"last":       {{^uint64(0) - 3, ^uint64(0)}, {^uint64(0) - 90, ^uint64(0) - 90}},
		"unordered":  {{90, 95}, {3, 3}, {94, 120}, {121, 121}, {3, 3}},
		"nothing":    nil,
		"wide apart": {{1, 1}, {1 << 20, 1 << 20}, {1 << 40, 1 << 40}, {1 << 62, 1 << 62}},
	}
	for name, gap := range map[string]uint64{"dense": 3, "thin": 60, "sparse": 300, "long": 9000} {
		var ranges []SerialRange
		at := uint64(1)
		for range 3000 {
			at += 1 + r.Uint64N(gap)
			n := r.Uint64N(gap) / (1 + r.Uint64N(gap))
			ranges = append(ranges, SerialRange{at, at + n})
			at += n + 1
		}
		models[name] = ranges
	}
	var mixed, random []SerialRange
	at := uint64(1)
	for range 60 {
		gap := uint64(1) << r.Uint64N(24)
		for range r.Uint64N(40) {
			at += 2 + r.Uint64N(gap)
			n := r.Uint64N(1 << r.Uint64N(12))
			mixed = append(mixed, SerialRange{at, at + n})
			at += n + 1
		}
	}
	for range 2000 {
		n := 1 + r.Uint64N(1<<63-1)
		random = append(random, SerialRange{n, n})
	}
	models["mixed"], models["random"] = mixed, random
	return models
}

// What is written is read back, whatever its shape, and is written again to the byte.
func TestKRLRoundTrip(t *testing.T) {
	for name, serials := range serialModels(1) {
		t.Run(name, func(t *testing.T) {
			k := &KRL{
				Version: 9, Generated: time.Unix(1_700_000_000, 0).UTC(), Comment: "all that is revoked",
				Certificates: []RevokedCertificates{
					{CA: testKey(t, "ecdsa256", "ca"), Serials: serials, KeyIDs: []string{"bob", "alice", "bob", ""}},
					{Serials: serials},
				},
				Keys:   []PublicKey{testKey(t, "ed25519", "b"), testKey(t, "rsa", "a"), testKey(t, "ed25519", "b")},
				SHA1:   [][sha1.Size]byte{sha1.Sum([]byte("x"))},
				SHA256: [][sha256.Size]byte{sha256.Sum256([]byte("y")), sha256.Sum256([]byte("x"))},
			}
			text, err := k.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			read, err := ParseKRL(text)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := joinRanges(serials)
			if read.Version != 9 || !read.Generated.Equal(k.Generated) || read.Comment != k.Comment {
				t.Errorf("read %d of %v, %q", read.Version, read.Generated, read.Comment)
			}
			if c := read.Certificates[0]; c.CA != k.Certificates[0].CA || !slices.Equal(c.Serials, want) || !slices.Equal(c.KeyIDs, []string{"", "alice", "bob"}) {
				t.Errorf("read key ids %q and %d ranges of %s, want %d", c.KeyIDs, len(c.Serials), c.CA.Fingerprint(), len(want))
			}
			if len(want) > 0 && (len(read.Certificates) != 2 || !read.Certificates[1].CA.IsZero()) {
				t.Errorf("what is revoked of every CA is read as %v", read.Certificates[1:])
			}
			if len(read.Keys) != 2 || len(read.SHA1) != 1 || len(read.SHA256) != 2 {
				t.Errorf("read %d keys, %d and %d hashes", len(read.Keys), len(read.SHA1), len(read.SHA256))
			}
			again, err := read.Marshal()
			if err != nil || !bytes.Equal(again, text) {
				t.Errorf("written again: %v, %d bytes that differ", err, len(again))
			}
		})
	}
}

// ssh-keygen reads of our lists what they revoke, and we read the same of its lists,
// in at most as many bytes. Where it writes a bitmap that neither it nor sshd reads
// (9.2 does from 16,385 bits on), we read it as little.
func TestKRLAgreesWithSSHKeygen(t *testing.T) {
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	dir := t.TempDir()
	ca, other := testKey(t, "ecdsa256", "ca"), testKey(t, "ed25519", "other")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caFile, unread := write("ca.pub", ca.String()+"\n"), 0
	for name, serials := range serialModels(2) {
		want, _ := joinRanges(serials)
		spec := fmt.Sprintf("id: alice laptop\nid: bob\nkey: %s\nhash: %s\n", ca, other.Fingerprint())
		for _, r := range want {
			if r.First == r.Last {
				spec += fmt.Sprintf("serial: %d\n", r.First)
			} else {
				spec += fmt.Sprintf("serial: %d-%d\n", r.First, r.Last)
			}
		}
		theirs := filepath.Join(dir, "theirs")
		if out, err := exec.Command(keygen, "-k", "-f", theirs, "-s", caFile, "-z", "3", write("spec", spec)).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		text, err := os.ReadFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := (&KRL{
			Certificates: []RevokedCertificates{{CA: ca, Serials: serials, KeyIDs: []string{"bob", "alice laptop"}}},
			Keys:         []PublicKey{ca},
			SHA256:       [][sha256.Size]byte{sha256.Sum256(other.Blob())},
		}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(keygen, "-Ql", "-f", write("ours", string(ours))).CombinedOutput()
		if ranges, rest := listed(string(out)); err != nil || !slices.Equal(ranges, want) || len(rest) != 4 {
			t.Errorf("%s: ssh-keygen reads of our list %d ranges, want %d, and %q (%v)", name, len(ranges), len(want), rest, err)
		}

		read, err := ParseKRL(text)
		if exec.Command(keygen, "-Ql", "-f", theirs).Run() != nil {
			unread++
			if KindOf(err) != Invalid {
				t.Errorf("%s: ssh-keygen does not read its own list; we do: %v", name, err)
			}
			continue
		}
		if len(ours) > len(text) {
			t.Errorf("%s: our list has %d bytes, that of ssh-keygen %d", name, len(ours), len(text))
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		read.Generated = time.Time{}
		read.Version = 0
		if again, err := read.Marshal(); err != nil || !bytes.Equal(again, ours) {
			t.Errorf("%s: what we read of ssh-keygen's list is not what it was told to write: %v", name, err)
		}
	}
	t.Logf("%d of the lists that ssh-keygen wrote it does not read", unread)
}

// listed returns the serial numbers that ssh-keygen -Ql says are revoked, and what else
// is.
func listed(out string) (ranges []SerialRange, rest []string) {
	for line := range strings.Lines(out) {
		var r SerialRange
		if n, _ := fmt.Sscanf(line, "serial: %d-%d", &r.First, &r.Last); n == 2 {
			ranges = append(ranges, r)
		} else if n == 1 {
			ranges = append(ranges, SerialRange{r.First, r.First})
		} else if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			rest = append(rest, line)
		}
	}
	ranges, _ = joinRanges(ranges)
	return ranges, rest
}

// What OpenSSH would refuse is not written, and what it refuses is not read.
func TestKRLRefused(t *testing.T) {
	for _, bad := range []SerialRange{{0, 0}, {0, 4}, {5, 4}} {
		k := KRL{Certificates: []RevokedCertificates{{Serials: []SerialRange{bad}}}}
		if _, err := k.Marshal(); KindOf(err) != Invalid {
			t.Errorf("%v is written: %v", bad, err)
		}
	}
	if _, err := (&KRL{Keys: []PublicKey{{}}}).Marshal(); KindOf(err) != Invalid {
		t.Errorf("no key is written: %v", err)
	}
	whole, err := (&KRL{Certificates: []RevokedCertificates{{Serials: []SerialRange{{4, 4}, {9, 12}}, KeyIDs: []string{"x"}}}, Keys: []PublicKey{testKey(t, "ed25519", "x")}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	head, _ := (&KRL{}).Marshal()
	ends := 0
	for n := range whole {
		if _, err := ParseKRL(whole[:n]); err == nil {
			ends++ // between two sections, where OpenSSH reads it too
		} else if KindOf(err) != Invalid {
			t.Fatalf("cut off after %d bytes: %v", n, err)
		}
	}
	if ends != 2 {
		t.Errorf("%d prefixes are lists, want that of no section and that of one", ends)
	}
	extension := func(critical byte) []byte {
		return appendSection(nil, krlExtension, append(append(appendString(nil, "later@example.org"), critical), appendString(nil, "data")...))
	}
	if _, err := ParseKRL(slices.Concat(whole, extension(0))); err != nil {
		t.Errorf("with an extension that need not be understood: %v", err)
	}
	for name, tail := range map[string][]byte{
		"critical extension": extension(1),
		"signature":          appendSection(nil, 4, appendString(nil, "key")),
		"short hash":         appendSection(nil, krlSHA1, appendString(nil, "short")),
		"unknown section":    appendSection(nil, 77, appendString(nil, "x")),
		"one byte":           {1},
		"range from 0":       appendSection(nil, krlCertificates, append(appendString(appendString(nil, ""), ""), appendSection(nil, krlSerialRange, make([]byte, 16))...)),
	} {
		if _, err := ParseKRL(slices.Concat(head, tail)); KindOf(err) != Invalid {
			t.Errorf("with %s: %v", name, err)
		}
	}
}

// Whatever is read is written, and reads the same again.
func FuzzKRL(f *testing.F) {
	for _, serials := range serialModels(3) {
		k := KRL{Certificates: []RevokedCertificates{{Serials: serials[:min(len(serials), 40)], KeyIDs: []string{"x"}}}, SHA1: make([][20]byte, 1)}
		text, err := k.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKRL(data)
		if err != nil {
			return
		}
		text, err := k.Marshal()
		if err != nil {
			t.Fatalf("read and not written: %v", err)
		}
		again, err := ParseKRL(text)
		if err != nil {
			t.Fatalf("written and not read: %v", err)
		}
		if text2, err := again.Marshal(); err != nil || !bytes.Equal(text, text2) {
			t.Fatalf("%x\nis written again as\n%x (%v)", text, text2, err)
		}
	})
}

// A list of 100,000 certificates, of random serial numbers as authority gives them and
// of a CA that counts, beside the floor: the same bytes copied.
func BenchmarkKRL(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	random, counted := make([]SerialRange, 100_000), make([]SerialRange, 100_000)
	for i := range random {
		n := 1 + r.Uint64N(1<<63-1)
		random[i] = SerialRange{n, n}
		n = uint64(i)*7 + 1 + r.Uint64N(5)
		counted[i] = SerialRange{n, n}
	}
	ca := testKey(b, "ecdsa256", "ca")
	for name, serials := range map[string][]SerialRange{"random": random, "counted": counted} {
		b.Run(name, func(b *testing.B) {
			k := KRL{Certificates: []RevokedCertificates{{CA: ca, Serials: serials}}}
			n := 0
			for b.Loop() {
				text, err := k.Marshal()
				if err != nil {
					b.Fatal(err)
				}
				n = len(text)
			}
			b.ReportMetric(float64(n), "bytes")
		})
	}
	b.Run("read", func(b *testing.B) {
		text, err := (&KRL{Certificates: []RevokedCertificates{{CA: ca, Serials: random}}}).Marshal()
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := ParseKRL(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor", func(b *testing.B) { // sorting them and writing 8 bytes each
		for b.Loop() {
			sorted := slices.Clone(random)
			slices.SortFunc(sorted, func(a, b SerialRange) int {
				if a.First < b.First {
					return -1
				}
				return 1
			})
			var out []byte
			for _, r := range sorted {
				out = append(out, byte(r.First>>56), byte(r.First>>48), byte(r.First>>40), byte(r.First>>32), byte(r.First>>24), byte(r.First>>16), byte(r.First>>8), byte(r.First))
			}
			if len(out) != 800_000 {
				b.Fatal(len(out))
			}
		}
	})
}
