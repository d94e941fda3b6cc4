package remote

import (
	"bytes"
	"cmp"
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
	// PublicPerm and CertificatePerm are those of X.pub and X-cert.pub, which come back
	// with them; nil where they are not known.
	PublicPerm, CertificatePerm *Perm
	// Nowhere: there is no such directory.
	Nowhere bool
	// Fixed says why Install would be refused there, or is empty.
	Fixed string
	// PublicForeign and CertificateForeign say why the owner and group of X.pub and
	// X-cert.pub could not be kept, or are empty: then Install takes the account's own.
	PublicForeign, CertificateForeign string
}

// A Perm is the owner and the permission bits of a file.
type Perm struct {
	Mode     uint32
	UID, GID int
}

// String returns the mode and owner as in "mode 644, uid 1000, gid 1000".
func (p Perm) String() string { return fmt.Sprintf("mode %o, uid %d, gid %d", p.Mode, p.UID, p.GID) }

// or returns p, or other where p is not known, as op install takes it.
func (p *Perm) or(other Perm) []string {
	if p != nil {
		other = *p
	}
	return []string{strconv.FormatUint(uint64(other.Mode), 8), strconv.Itoa(other.UID), strconv.Itoa(other.GID)}
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
	// Another name's file is not ours to write, and a file in the link's place would not
	// be what its owner keeps there.
	for _, f := range files[1:] {
		if f.Link {
			return IdentityFiles{}, trust.Errorf(trust.Conflict, "%s:%s is a symbolic link to %s, beside an identity that is a file", h.name, f.Path, cmp.Or(f.Real, "what cannot be reached")).
				WithHint("have a file there instead (as %s on %s: cp --remove-destination -- \"$(readlink -f %s)\" %s), or leave the place to its owner", user, h.name, f.Path, f.Path)
		}
	}
	return IdentityFiles{
		Private: files[0].Content, Public: files[1].Content, Certificate: files[2].Content,
		PublicPerm: files[1].perm(), CertificatePerm: files[2].perm(),
		Nowhere:       files[0].Absent && files[0].Real == "",
		Fixed:         cmp.Or(files[0].Fixed, files[1].Immutable, files[2].Immutable),
		PublicForeign: files[1].Foreign, CertificateForeign: files[2].Foreign,
	}, nil
}

// perm returns the owner and mode of a file, or nil where there is none.
func (f File) perm() *Perm {
	if f.Content == nil {
		return nil
	}
	return &Perm{Mode: f.Mode, UID: f.UID, GID: f.GID}
}

// Absent reports whether there is no private key.
func (f IdentityFiles) Absent() bool { return f.Private == nil }

// Named returns the key that X.pub names, or the zero key. ssh(1) offers that key,
// whatever the private half is, and finds out what to offer from the private half
// only where X.pub names none. It takes the first line that it can read.
func (f IdentityFiles) Named() trust.PublicKey {
	key, _ := f.named()
	return key
}

// named returns the key that X.pub names, and the comment of its line.
func (f IdentityFiles) named() (key trust.PublicKey, comment string) {
	for line := range strings.Lines(string(f.Public)) {
		if key, comment, err := trust.ParsePublicKey(line); err == nil {
			return key, comment
		}
	}
	return key, ""
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
	next := IdentityFiles{Private: private, PublicPerm: f.PublicPerm}
	if f.Public != nil {
		text := public.String()
		if _, comment := f.named(); comment != "" {
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
const marshalled = "keyturn identity files 2\n"

// marshalledWithoutPerms begins what was sealed before the owners and modes of X.pub and
// X-cert.pub were: so that what was rotated then can be rolled back.
const marshalledWithoutPerms = "keyturn identity files 1\n"

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
	for _, p := range []*Perm{f.PublicPerm, f.CertificatePerm} {
		if p == nil {
			out = append(out, 0)
			continue
		}
		out = append(out, 1)
		for _, n := range []uint32{p.Mode, uint32(p.UID), uint32(p.GID)} {
			out = binary.BigEndian.AppendUint32(out, n)
		}
	}
	return out
}

// UnmarshalIdentityFiles is the inverse of Marshal.
func UnmarshalIdentityFiles(data []byte) (IdentityFiles, error) {
	bad := trust.Errorf(trust.Internal, "these %d bytes are no identity files", len(data))
	rest, ok := bytes.CutPrefix(data, []byte(marshalled))
	perms := ok
	if !ok {
		rest, ok = bytes.CutPrefix(data, []byte(marshalledWithoutPerms))
	}
	if !ok {
		return IdentityFiles{}, bad
	}
	present := func() bool {
		if len(rest) == 0 || rest[0] > 1 {
			ok = false
			return false
		}
		is := rest[0] == 1
		rest = rest[1:]
		return is
	}
	number := func() uint32 {
		if len(rest) < 4 {
			ok = false
			return 0
		}
		n := binary.BigEndian.Uint32(rest)
		rest = rest[4:]
		return n
	}
	var f IdentityFiles
	for _, part := range []*[]byte{&f.Private, &f.Public, &f.Certificate} {
		if !present() {
			continue
		}
		n := number()
		if uint64(n) > uint64(len(rest)) {
			return IdentityFiles{}, bad
		}
		*part = append([]byte{}, rest[:n]...)
		rest = rest[n:]
	}
	for _, perm := range []**Perm{&f.PublicPerm, &f.CertificatePerm} {
		if perms && present() {
			*perm = &Perm{Mode: number(), UID: int(number()), GID: int(number())}
		}
	}
	if !ok || len(rest) != 0 {
		return IdentityFiles{}, bad
	}
	return f, nil
}

// Install makes the identity at path consist of exactly the files want, where it
// consists of now: what the caller has read, and can bring back. It does nothing
// where it already is want, and is a Conflict where it is neither. The lock is
// taken or confirmed. X keeps owner, group and mode, or nothing happens; X.pub and
// X-cert.pub are the account's own where theirs cannot be kept.
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
	usual := Perm{Mode: 0o644, UID: uid, GID: gid}
	c.args = append(append(c.args, want.PublicPerm.or(usual)...), want.CertificatePerm.or(usual)...)
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
