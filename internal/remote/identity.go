package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"keyturn/internal/trust"
)

// IdentityFiles are the files of one identity: the private key X, X.pub and
// X-cert.pub, each nil where it does not exist. They hold a secret, and print as
// its hash.
type IdentityFiles struct {
	Private, Public, Certificate []byte
}

// IdentityFiles reads the files of the identity at path, as user sees them.
func (h *Host) IdentityFiles(ctx context.Context, user, path string) (IdentityFiles, error) {
	files, err := h.Files(ctx, user, []string{path, path + ".pub", path + "-cert.pub"})
	if err != nil {
		return IdentityFiles{}, err
	}
	for _, f := range files {
		if f.Unreadable {
			return IdentityFiles{}, trust.Errorf(trust.Denied, "%s:%s may not be read by %s", h.name, f.Path, user)
		}
	}
	// ssh looks for .pub beside the name that it was given, not beside the file
	// that a link leads to: the order in which Install goes would not hold.
	if files[0].Link {
		return IdentityFiles{}, trust.Errorf(trust.Conflict, "%s:%s is a symbolic link to %s, which is the identity", h.name, path, files[0].Real).
			WithHint("keyturn scan %s, then take this run back and rotate again: a link follows what it leads to", h.name)
	}
	return IdentityFiles{Private: files[0].Content, Public: files[1].Content, Certificate: files[2].Content}, nil
}

// Absent reports whether there is no private key.
func (f IdentityFiles) Absent() bool { return f.Private == nil }

// Named returns the key that X.pub names, or the zero key. ssh(1) offers that key,
// whatever the private half is, and finds out what to offer from the private half
// only where X.pub names none. It takes the first line that it can read.
func (f IdentityFiles) Named() trust.PublicKey {
	for line := range strings.Lines(string(f.Public)) {
		if key, _, err := trust.ParsePublicKey(line); err == nil {
			return key
		}
	}
	return trust.PublicKey{}
}

// SHA256 returns the hash of the private key file in hex, or "" if there is none.
func (f IdentityFiles) SHA256() string {
	if f.Private == nil {
		return ""
	}
	return hexSum(f.Private)
}

// Equal reports whether all three files are the same, byte for byte.
func (f IdentityFiles) Equal(other IdentityFiles) bool {
	same := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
	return same(f.Private, other.Private) && same(f.Public, other.Public) && same(f.Certificate, other.Certificate)
}

// With returns the files of an identity that takes the place of f: another private
// key, its .pub with f's comment if f has one, and no certificate, which was for
// f's key.
func (f IdentityFiles) With(private []byte, public trust.PublicKey) IdentityFiles {
	next := IdentityFiles{Private: private}
	if f.Public != nil {
		text := public.String()
		if _, comment, err := trust.ParsePublicKey(string(f.Public)); err == nil && comment != "" {
			text += " " + comment
		}
		next.Public = []byte(text + "\n")
	}
	return next
}

// Format writes the hash of the private key for every verb.
func (f IdentityFiles) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, "identity "+f.SHA256())
}

// marshalled begins what Marshal returns: a name and a version.
const marshalled = "keyturn identity files 1\n"

// Marshal returns the files as bytes to be sealed.
func (f IdentityFiles) Marshal() []byte {
	out := []byte(marshalled)
	for _, b := range [][]byte{f.Private, f.Public, f.Certificate} {
		if b == nil {
			out = append(out, 0)
			continue
		}
		out = binary.BigEndian.AppendUint32(append(out, 1), uint32(len(b)))
		out = append(out, b...)
	}
	return out
}

// UnmarshalIdentityFiles is the inverse of Marshal.
func UnmarshalIdentityFiles(data []byte) (IdentityFiles, error) {
	bad := trust.Errorf(trust.Internal, "these %d bytes are no identity files", len(data))
	rest, ok := bytes.CutPrefix(data, []byte(marshalled))
	if !ok {
		return IdentityFiles{}, bad
	}
	var parts [3][]byte
	for i := range parts {
		if len(rest) == 0 || rest[0] > 1 {
			return IdentityFiles{}, bad
		}
		present := rest[0] == 1
		rest = rest[1:]
		if !present {
			continue
		}
		if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return IdentityFiles{}, bad
		}
		n := binary.BigEndian.Uint32(rest)
		parts[i] = append([]byte{}, rest[4:4+n]...)
		rest = rest[4+n:]
	}
	if len(rest) != 0 {
		return IdentityFiles{}, bad
	}
	return IdentityFiles{parts[0], parts[1], parts[2]}, nil
}

// Install makes the identity at path consist of exactly the files want, where it
// consists of now: what the caller has read, and can bring back. It does nothing
// where it already is want, and is a Conflict where it is neither. The lock is
// taken or confirmed.
//
// The private key and its .pub cannot change together, and a login with a pair that
// does not match fails. So the new key is written beside, X.pub and X-cert.pub are
// unlinked, the new key is renamed over X, and the new .pub is written: each state
// alone logs in.
func (h *Host) Install(ctx context.Context, l Lock, user, path string, now, want IdentityFiles) error {
	if want.Private == nil {
		return trust.Errorf(trust.Invalid, "an identity without a private key cannot be installed at %s:%s", h.name, path)
	}
	return h.install(ctx, l, user, path, now, want, hexSum(want.Private))
}

// install brings want, whose private key has a hash, and is not in want but made by
// Generate where want.Private is nil.
func (h *Host) install(ctx context.Context, l Lock, user, path string, now, want IdentityFiles, sum string) error {
	got, err := h.hold(ctx, l, user, path, true, "sum")
	if err != nil {
		return err
	}
	there, err := h.IdentityFiles(ctx, user, path)
	if err != nil {
		return err
	}
	if want.Private != nil && there.Equal(want) {
		return nil
	}
	if there.SHA256() != got.sum || (got.sum != now.SHA256() && got.sum != sum) {
		return trust.Errorf(trust.Conflict, "%s:%s is no longer the identity that was read there", h.name, path).
			WithHint("keyturn scan shows what it is now")
	}
	old, mode, uid, gid := "-", "600", -1, -1
	if got.listing != nil {
		old, mode, uid, gid = got.sum, strconv.FormatUint(uint64(got.listing.permissions()), 8), got.listing.uid, got.listing.gid
	} else {
		owner, err := h.account(ctx, user)
		if err != nil {
			return err
		}
		uid, gid = owner.UID, owner.GID
	}
	all := bytes.Join([][]byte{want.Private, want.Public, want.Certificate}, nil)
	c := call{op: opInstall, as: got.as, stdin: all}
	c.args = append([]string{got.dir, got.name}, l.args()...)
	c.args = append(c.args, got.token, old, sum, mode, strconv.Itoa(uid), strconv.Itoa(gid), hexSum(all),
		strconv.Itoa(len(want.Private)), strconv.Itoa(len(want.Public)), strconv.Itoa(len(want.Certificate)))
	lines, err := h.run(ctx, c)
	if err != nil {
		return h.lockFailure(err, l, path)
	}
	for _, ln := range lines {
		if ln.word == "now" && ln.rest == sum {
			return nil
		}
	}
	return trust.Errorf(trust.Conflict, "%s:%s was written by somebody else while Keyturn installed a key there", h.name, path)
}

// A Spec is what a key pair is to be like.
type Spec struct {
	Type    string // as ssh-keygen -t takes it: "ed25519", "rsa", "ecdsa"
	Bits    int    // 0: the type's default
	PEM     bool   // the older container, which some programs need
	Comment string
}

// Generate makes a key pair on the host, for the identity at path, with the host's
// own ssh-keygen. The private half never leaves the host: it waits beside the
// identity, under its lock, for InstallGenerated, and goes with the lock. The same
// pair comes back if there is one already. It is durable when Generate returns.
func (h *Host) Generate(ctx context.Context, l Lock, user, path string, spec Spec) (trust.PublicKey, error) {
	key, _, err := h.generate(ctx, l, user, path, spec)
	return key, err
}

func (h *Host) generate(ctx context.Context, l Lock, user, path string, spec Spec) (key trust.PublicKey, sum string, err error) {
	if !namePart.MatchString(spec.Type) || spec.Bits < 0 || strings.ContainsAny(spec.Comment, "\n\r\x00") {
		return key, "", trust.Errorf(trust.Invalid, "a key of type %q with %d bits cannot be made", spec.Type, spec.Bits)
	}
	got, err := h.hold(ctx, l, user, path, true, "sum")
	if err != nil {
		return key, "", err
	}
	format := "openssh"
	if spec.PEM {
		format = "pem"
	}
	c := call{op: opGenerate, as: got.as}
	c.args = append([]string{got.dir, got.name}, l.args()...)
	c.args = append(c.args, got.token, spec.Type, strconv.Itoa(spec.Bits), format, spec.Comment)
	lines, err := h.run(ctx, c)
	if err != nil {
		return key, "", h.lockFailure(err, l, path)
	}
	for _, ln := range lines {
		switch ln.word {
		case "public":
			if key, _, err = trust.ParsePublicKey(ln.rest); err != nil {
				return key, "", h.garbled(ln)
			}
		case "sum":
			sum = ln.rest
		}
	}
	if key.IsZero() || len(sum) != 64 {
		return key, "", trust.Errorf(trust.Unavailable, "%s did not say which key it made", h.name)
	}
	return key, sum, nil
}

// InstallGenerated does what Install does with the pair that Generate made; public
// is its public half. It does nothing where that pair is installed already.
func (h *Host) InstallGenerated(ctx context.Context, l Lock, user, path string, now IdentityFiles, public trust.PublicKey) error {
	there, err := h.IdentityFiles(ctx, user, path)
	if err != nil {
		return err
	}
	want := now.With(nil, public)
	if key, _, err := there.Key(); err == nil && key == public && bytes.Equal(there.Public, want.Public) && there.Certificate == nil {
		return nil
	}
	key, sum, err := h.generate(ctx, l, user, path, Spec{Type: "ed25519"})
	if err != nil {
		return err
	}
	if key != public {
		return trust.Errorf(trust.Conflict, "%s made the key %s for %s, not %s", h.name, key.Fingerprint(), path, public.Fingerprint())
	}
	return h.install(ctx, l, user, path, now, want, sum)
}
