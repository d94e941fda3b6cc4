package trust

import (
	"bytes"
	"cmp"
	"crypto/sha1" //nolint:gosec // KRLs name keys by it
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"time"
)

// A KRL is a key revocation list, which sshd reads from the file that RevokedKeys
// names (OpenSSH's PROTOCOL.krl): what is in it opens nothing any more. Only the
// revocations count, so two lists of them in another order, or packed otherwise,
// are the same list, and Marshal writes one form of all of these.
type KRL struct {
	Version   uint64
	Generated time.Time // to the second
	Comment   string
	// Certificates are those of one CA each.
	Certificates []RevokedCertificates
	// Keys are revoked as such: a certificate for one of them, and one that was
	// signed by one of them, is as well.
	Keys []PublicKey
	// SHA1 and SHA256 are Keys of which only the hash of their blob is known.
	SHA1   [][sha1.Size]byte
	SHA256 [][sha256.Size]byte
}

// RevokedCertificates are certificates that CA signed, or any CA where CA is no key.
type RevokedCertificates struct {
	CA      PublicKey
	Serials []SerialRange
	KeyIDs  []string
}

// A SerialRange is the serial numbers from First to Last, both included. Zero is no
// serial number: sshd takes a certificate of that number as one without.
type SerialRange struct {
	First, Last uint64
}

// Of PROTOCOL.krl. A section is a byte, which says what it holds, and a string.
const (
	krlMagic   = "SSHKRL\n\x00"
	krlVersion = 1

	krlCertificates = 1
	krlKeys         = 2
	krlSHA1         = 3
	krlSHA256       = 5
	krlExtension    = 255

	krlSerialList   = 0x20
	krlSerialRange  = 0x21
	krlSerialBitmap = 0x22
	krlKeyIDs       = 0x23
	krlOfCertsExtra = 0x39
)

// Marshal returns k as a file that sshd and ssh-keygen read. What is revoked twice is
// written once, in the fewest bytes that lists, ranges and bitmaps of serial numbers
// allow. It refuses what sshd would refuse the whole file for, and then let nobody
// in: a serial number of 0, and a range that ends before it begins.
func (k *KRL) Marshal() ([]byte, error) {
	out := []byte(krlMagic)
	out = binary.BigEndian.AppendUint32(out, krlVersion)
	out = binary.BigEndian.AppendUint64(out, k.Version)
	out = binary.BigEndian.AppendUint64(out, uint64(max(0, k.Generated.Unix())))
	out = binary.BigEndian.AppendUint64(out, 0) // flags
	out = appendString(out, "")                 // reserved
	out = appendString(out, k.Comment)
	for _, c := range k.Certificates {
		section, err := c.marshal()
		if err != nil {
			return nil, err
		}
		if section != nil {
			out = appendSection(out, krlCertificates, section)
		}
	}
	keys := make([]string, 0, len(k.Keys))
	for _, key := range k.Keys {
		if key.IsZero() {
			return nil, Errorf(Invalid, "no key cannot be revoked")
		}
		keys = append(keys, key.Plain().blob)
	}
	out = appendStrings(out, krlKeys, keys)
	out = appendStrings(out, krlSHA1, texts(k.SHA1, func(h [sha1.Size]byte) string { return string(h[:]) }))
	out = appendStrings(out, krlSHA256, texts(k.SHA256, func(h [sha256.Size]byte) string { return string(h[:]) }))
	return out, nil
}

// marshal returns the section of c, or nil where c revokes nothing.
func (c RevokedCertificates) marshal() ([]byte, error) {
	runs, err := joinRanges(c.Serials)
	if err != nil || len(runs)+len(c.KeyIDs) == 0 {
		return nil, err
	}
	out := appendString(nil, c.CA.blob)
	out = appendString(out, "") // reserved
	out = appendSerials(out, runs)
	return appendStrings(out, krlKeyIDs, c.KeyIDs), nil
}

// joinRanges returns the same serial numbers in as few ranges as there can be, in
// their order.
func joinRanges(ranges []SerialRange) ([]SerialRange, error) {
	for _, r := range ranges {
		if r.First == 0 || r.First > r.Last {
			return nil, Errorf(Invalid, "serial numbers %d to %d cannot be revoked: OpenSSH reads no list that holds such", r.First, r.Last)
		}
	}
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b SerialRange) int { return cmp.Compare(a.First, b.First) })
	joined := sorted[:0]
	for _, r := range sorted {
		if n := len(joined); n > 0 && (joined[n-1].Last == math.MaxUint64 || r.First <= joined[n-1].Last+1) {
			joined[n-1].Last = max(joined[n-1].Last, r.Last)
			continue
		}
		joined = append(joined, r)
	}
	return joined, nil
}

// appendSection appends a section of one kind.
func appendSection(out []byte, kind byte, data []byte) []byte {
	out = append(out, kind)
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	return append(out, data...)
}

// appendStrings appends a section of strings, each once, in their order, or nothing
// where there is none.
func appendStrings(out []byte, kind byte, all []string) []byte {
	if len(all) == 0 {
		return out
	}
	var data []byte
	for _, s := range slices.Compact(slices.Sorted(slices.Values(all))) {
		data = appendString(data, s)
	}
	return appendSection(out, kind, data)
}

// appendString appends a string of RFC 4251, section 5.
func appendString(out []byte, s string) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(s)))
	return append(out, s...)
}

func texts[T any](all []T, text func(T) string) []string {
	out := make([]string, 0, len(all))
	for _, x := range all {
		out = append(out, text(x))
	}
	return out
}

// ParseKRL reads a key revocation list. It is as strict as OpenSSH, which lets nobody
// in while it cannot read the file: a list that is cut off, that something follows, or
// that says something which has to be understood and is not, is Invalid. It reads no
// signed lists, of which later releases of OpenSSH skip the signature.
func ParseKRL(data []byte) (*KRL, error) {
	if !bytes.HasPrefix(data, []byte(krlMagic)) {
		return nil, Errorf(Invalid, "this is no key revocation list: it does not begin as one does")
	}
	w := wire(data[len(krlMagic):])
	format, ok0 := w.number()
	if ok0 && format != krlVersion {
		return nil, Errorf(Invalid, "key revocation list is of format %d, not %d", format, krlVersion)
	}
	k := &KRL{}
	version, ok1 := w.long()
	generated, ok2 := w.long()
	_, ok3 := w.long() // flags
	_, ok4 := w.next() // reserved
	comment, ok5 := w.next()
	if !(ok0 && ok1 && ok2 && ok3 && ok4 && ok5) || generated > math.MaxInt64 {
		return nil, malformedKRL("header")
	}
	k.Version, k.Generated, k.Comment = version, time.Unix(int64(generated), 0).UTC(), string(comment)
	for len(w) > 0 {
		kind, section, ok := w.section()
		if !ok {
			return nil, malformedKRL("section")
		}
		if err := k.read(kind, section); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func malformedKRL(what string) error {
	return Errorf(Invalid, "key revocation list is malformed: its %s is not whole", what)
}

// read adds what one section revokes.
func (k *KRL) read(kind byte, w wire) error {
	if kind == krlCertificates {
		c, err := readRevoked(w)
		k.Certificates = append(k.Certificates, c)
		return err
	}
	if kind == krlExtension {
		return skipExtension(w)
	}
	for len(w) > 0 {
		s, ok := w.next()
		if !ok {
			return malformedKRL("list of keys")
		}
		switch {
		case kind == krlKeys:
			key, err := ParsePublicKeyBlob(s)
			if err != nil {
				return err
			}
			k.Keys = append(k.Keys, key)
		case kind == krlSHA1 && len(s) == sha1.Size:
			k.SHA1 = append(k.SHA1, [sha1.Size]byte(s))
		case kind == krlSHA256 && len(s) == sha256.Size:
			k.SHA256 = append(k.SHA256, [sha256.Size]byte(s))
		default:
			return Errorf(Invalid, "key revocation list has a section of kind %d with an entry of %d bytes, which is none that is read here", kind, len(s))
		}
	}
	return nil
}

// readRevoked reads a section of the certificates of one CA.
func readRevoked(w wire) (c RevokedCertificates, err error) {
	ca, ok1 := w.next()
	_, ok2 := w.next() // reserved
	if !ok1 || !ok2 {
		return c, malformedKRL("CA")
	}
	if len(ca) > 0 {
		if c.CA, err = ParsePublicKeyBlob(ca); err != nil {
			return c, err
		}
	}
	for len(w) > 0 {
		kind, section, ok := w.section()
		if !ok {
			return c, malformedKRL("list of certificates")
		}
		switch kind {
		case krlKeyIDs:
			for len(section) > 0 {
				id, ok := section.next()
				if !ok {
					return c, malformedKRL("list of key ids")
				}
				c.KeyIDs = append(c.KeyIDs, string(id))
			}
		case krlOfCertsExtra:
			err = skipExtension(section)
		default:
			err = c.readSerials(kind, section)
		}
		if err != nil {
			return c, err
		}
	}
	c.Serials, err = joinRanges(c.Serials)
	return c, err
}

// skipExtension passes over what need not be understood.
func skipExtension(w wire) error {
	name, ok1 := w.next()
	critical, ok2 := w.flag()
	_, ok3 := w.next()
	if !(ok1 && ok2 && ok3) || len(w) > 0 {
		return malformedKRL("extension")
	}
	if critical {
		return Errorf(Invalid, "key revocation list needs %q to be understood, which is not known here", abbreviate(string(name)))
	}
	return nil
}

// long takes a uint64 off w's front.
func (w *wire) long() (uint64, bool) {
	if len(*w) < 8 {
		return 0, false
	}
	n := binary.BigEndian.Uint64(*w)
	*w = (*w)[8:]
	return n, true
}

// flag takes a boolean off w's front.
func (w *wire) flag() (bool, bool) {
	if len(*w) < 1 {
		return false, false
	}
	b := (*w)[0] != 0
	*w = (*w)[1:]
	return b, true
}

// section takes a section off w's front.
func (w *wire) section() (kind byte, data wire, ok bool) {
	if len(*w) < 1 {
		return 0, nil, false
	}
	kind = (*w)[0]
	*w = (*w)[1:]
	data, ok = w.next()
	return kind, data, ok
}
