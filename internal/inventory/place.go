package inventory

import (
	"bytes"
	"time"

	"keyturn/internal/trust"
)

// A FileKind says which halves of keys lie in a file.
type FileKind string

// The kinds of files.
const (
	AuthorizedFile FileKind = "authorized"
	IdentityFile   FileKind = "identity"
)

// A File is one file in which halves of keys lie, as a scan or a run found it.
type File struct {
	trust.Place
	Kind FileKind
	// SHA256 is of the file's content, in lower-case hex.
	SHA256 string
	Size   int64
	// Mode is its permission bits, Owner "user:group".
	Mode  uint32
	Owner string
	// Inode tells the file apart from every other of its host, and is equal
	// where two paths or accounts share one: "device:inode".
	Inode string
	// FileSystem is the type of file system that it lies on, such as "nfs".
	FileSystem string
	// Fault is why sshd does not take the file as it lies (StrictModes), and
	// Fixed why it cannot be changed; nothing where that is not so.
	Fault string
	Fixed string
	// Order is its position among the account's AuthorizedKeysFile entries,
	// from 0 on.
	Order int
	// ChangedAt is when it was first seen with this content.
	ChangedAt time.Time
	// LastRead is when it was last read, and UnreadWhy why not since: what is
	// known of it is hearsay from then. Zero and nothing where the host's
	// newest scan read it.
	LastRead  time.Time
	UnreadWhy string
}

// An AuthorizedKey is a line of an authorized_keys file that holds a key.
type AuthorizedKey struct {
	Key trust.PublicKey
	// Line counts from 1, as sshd's log does.
	Line int
	// Options and Raw are the bytes of the line's options, and of all of it
	// without its ending.
	Options string
	Raw     []byte
	Comment string
	// Authority marks a line with the option cert-authority: its key lets in
	// nobody itself, but everyone whom it certifies.
	Authority bool
	// Refused is why the host's server does not honor the line, such as an option
	// that it does not know.
	Refused string
}

// AuthorizedKeysOf returns the lines of an authorized_keys file that hold a
// key, in order, and which of them the server that reads it honors.
func AuthorizedKeysOf(content []byte, server trust.ServerVersion) []AuthorizedKey {
	var keys []AuthorizedKey
	for i, line := range trust.ParseAuthorizedKeys(content).Lines() {
		if line.Kind() != trust.KeyLine || len(line.Key().Blob()) > MaxKeyBlob {
			continue
		}
		k := AuthorizedKey{
			Key: line.Key(), Line: i + 1, Options: line.OptionsText(),
			Raw: []byte(line.Text()), Comment: plainText(line.Comment(), maxComment),
		}
		if err := line.HonoredBy(server); err != nil {
			k.Refused = plainText(err.Error(), maxComment)
		}
		if grant, err := line.Grant(); err == nil {
			k.Authority = grant.CertAuthority
		}
		keys = append(keys, k)
	}
	return keys
}

// sameForm reports whether two lines are equal, wherever in their file.
func (k AuthorizedKey) sameForm(o AuthorizedKey) bool {
	return k.Key == o.Key && k.Options == o.Options && bytes.Equal(k.Raw, o.Raw) &&
		k.Comment == o.Comment && k.Authority == o.Authority && k.Refused == o.Refused
}

// An Identity is what a private key file tells without being opened.
type Identity struct {
	// Key is its public half, or zero where only its owner can tell: an
	// encrypted file of the old PEM format without a .pub beside it.
	Key trust.PublicKey
	// Format is "openssh", "pem" (PKCS#1 or SEC1), "pkcs8", or "putty".
	Format    string
	Encrypted bool
	Comment   string
	// Link is the file that holds the key, where this one is a symbolic link to
	// it. Apart says that ssh(1) finds another X.pub or X-cert.pub beside the link
	// than beside that file.
	Link  string
	Apart bool
}

// An AuthorizedPlace is a place where a key's public half grants a login.
type AuthorizedPlace struct {
	trust.Place
	HostName string
	KeyID    trust.KeyID
	// Ordinal counts the lines of the file with this key, from 0 on: with
	// place and key it names the line for as long as others come and go.
	Ordinal int
	// Key is zero: KeyID names it.
	AuthorizedKey
	// SeenAt is when this line was first seen in its present form.
	SeenAt time.Time
	// AsOf is when a scan last saw the line there, or a run put it there.
	AsOf time.Time
}

// An IdentityPlace is a place where a key's private half lies.
type IdentityPlace struct {
	trust.Place
	HostName string
	// KeyID is empty where Identity.Key is zero.
	KeyID     trust.KeyID
	Format    string
	Encrypted bool
	Comment   string
	// Link and Apart are as in Identity.
	Link  string
	Apart bool
	// SeenAt and AsOf are as in AuthorizedPlace.
	SeenAt, AsOf time.Time
}

// A FindingKind names a risk (NIST IR 7966, section 4).
type FindingKind string

// The kinds of findings.
const (
	// Unknown keys have no owner, or let in somebody whose identity file was
	// never seen.
	Unknown FindingKind = "unknown"
	// Orphaned keys are authorized and nothing known can use them.
	Orphaned FindingKind = "orphaned"
	// Shared private keys lie in more than one place.
	Shared FindingKind = "shared"
	// Weak keys have an algorithm or size that no longer holds.
	Weak FindingKind = "weak"
	// Stale keys are older than the tenant lets them be, or are accepted
	// although they were taken out of use.
	Stale FindingKind = "stale"
	// Expired keys are accepted for longer than they were meant to be.
	Expired FindingKind = "expired"
	// Unrestricted keys let in root or a machine from anywhere to anything.
	Unrestricted FindingKind = "unrestricted"
	// Unconfirmed hosts are known by a key that was accepted on first use.
	Unconfirmed FindingKind = "unconfirmed"
	// Doubled hosts share a machine, or its identity, with another host.
	Doubled FindingKind = "doubled"
	// Mistrusted hosts are known somewhere, in a known_hosts file, by another key
	// than the one that is pinned.
	Mistrusted FindingKind = "mistrusted"
)

// FindingKinds lists the kinds of findings.
var FindingKinds = []FindingKind{Unknown, Orphaned, Shared, Weak, Stale, Expired, Unrestricted, Unconfirmed, Doubled, Mistrusted}

// A Level says how much a finding weighs.
type Level string

// The levels of findings.
const (
	Warning Level = "warning"
	// Notice is worth knowing and may be right as it is.
	Notice Level = "note"
)

// A Finding is something wrong with a key or a host.
type Finding struct {
	// ID is the same for as long as the same thing is wrong in the same place.
	ID    string
	Kind  FindingKind
	Level Level
	// Key is the key concerned, or empty in a finding about a host alone.
	Key trust.KeyID
	// Place says where, as far as the finding has a place; Line is its line.
	Place    trust.Place
	HostName string
	Line     int
	// Text is for people: lower case, without a full stop.
	Text string
	// Since is when it was first found.
	Since time.Time
}
