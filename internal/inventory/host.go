package inventory

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/trust"
)

// A Mode says what may be done to a host.
type Mode string

// The modes of a host.
const (
	// Inventory hosts are only read. Every host begins as one.
	Inventory Mode = "inventory"
	// Enforced hosts may be changed.
	Enforced Mode = "enforced"
)

// A HostState says how far a host's enrolment has come.
type HostState string

// The states of a host.
const (
	// Unenrolled hosts are known as targets only: nobody has said yet by what login
	// they are opened.
	Unenrolled HostState = "unenrolled"
	Enrolling  HostState = "enrolling"
	Ready      HostState = "ready"
	// Refused hosts were not taken in; Host.Reason says why. They keep their
	// name until they are removed or enrolled again.
	Refused HostState = "refused"
)

// A Become says how a host's login acts as another account.
type Become string

// The ways to act as another account.
const (
	BecomeNone Become = "none"
	BecomeSudo Become = "sudo"
	BecomeDoas Become = "doas"
)

// An Origin says how a host key came to be pinned.
type Origin string

// The origins of a pin.
const (
	// Given pins were named by whoever added the host.
	Given Origin = "given"
	// FirstUse pins are whatever the host presented when it was first met.
	// They are a finding until they are confirmed.
	FirstUse Origin = "first-use"
	// Confirmed pins were accepted on first use and vouched for since.
	Confirmed Origin = "confirmed"
	// Proven pins were put on the host by a run, or proven by the host over a
	// connection to a key that was already pinned.
	Proven Origin = "proven"
)

// A Pin is a host key by which a host is known.
type Pin struct {
	Key     trust.PublicKey
	Origin  Origin
	AddedAt time.Time
}

// A Credential is a user key with which Keyturn itself logs in to a host.
type Credential struct {
	Key     trust.KeyID
	AddedAt time.Time
	// WorkedAt is when it was last seen to open the host, or zero where it never was, or
	// was seen not to since.
	WorkedAt time.Time
}

// A Host is a machine, or what answers like one at an address.
type Host struct {
	ID trust.HostID
	// Name is unique in the tenant, in the form of ParseName.
	Name string
	// Address is "host:port", unique in the tenant, in the form of
	// ParseAddress.
	Address string
	// User is the account that Keyturn logs in to; an Unenrolled host has none.
	User   string
	Become Become
	Mode   Mode
	State  HostState
	// Reason says of a Refused host why, else nothing.
	Reason string
	// Pins are the host keys that it may present, oldest first.
	Pins []Pin
	// Credentials are what opens it, in the order in which they are tried.
	Credentials []Credential
	// Facts and Coverage are what scans found; only RecordScan writes them.
	Facts     Facts
	Coverage  Coverage
	CreatedAt time.Time
	Revision  int64
}

// PinnedKeys returns the host keys that h may present.
func (h Host) PinnedKeys() []trust.PublicKey {
	keys := make([]trust.PublicKey, len(h.Pins))
	for i, p := range h.Pins {
		keys[i] = p.Key
	}
	return keys
}

// Unconfirmed reports whether some key of h was accepted on first use and
// nobody has vouched for it.
func (h Host) Unconfirmed() bool {
	for _, p := range h.Pins {
		if p.Origin == FirstUse {
			return true
		}
	}
	return false
}

// Facts are what a host told about itself, and about the sshd that let us in.
// Everything in it was said by that host.
type Facts struct {
	// System is uname(1)'s "sysname release machine".
	System string `json:"system,omitempty"`
	// Machine tells machines apart: a digest of what the host has as machine
	// id, or nothing. Two hosts with one Machine are one machine, or clones.
	Machine string `json:"machine,omitempty"`
	// UID is the user id of our login, and Home its home directory.
	UID  int    `json:"uid"`
	Home string `json:"home,omitempty"`
	// Banner is the version that the server announced (RFC 4253, section 4.2).
	Banner string `json:"banner,omitempty"`
	// Sshd is the program that serves our session, Options its arguments, and
	// Found how we came to know.
	Sshd    string   `json:"sshd,omitempty"`
	Options []string `json:"options,omitempty"`
	Found   string   `json:"found,omitempty"`
}

// An Outcome says how much of a host a scan could read.
type Outcome string

// The outcomes of a scan.
const (
	// Unscanned hosts have not been scanned yet.
	Unscanned Outcome = ""
	// Scanned hosts were read as far as Coverage.Notes does not say otherwise.
	Scanned Outcome = "scanned"
	// Partial hosts have accounts or files that our login may not read.
	Partial Outcome = "partial"
	// Unreachable hosts did not answer, or did not let us in.
	Unreachable Outcome = "unreachable"
)

// Coverage says what the newest attempt to scan a host could see.
type Coverage struct {
	Outcome Outcome
	// Why is the reason of an outcome other than Scanned.
	Why string
	// Notes are what the last scan that reached the host could not see.
	Notes []Note
	// TriedAt is when the newest attempt ended; ScannedAt when one last
	// reached the host. Zero is never.
	TriedAt, ScannedAt time.Time
}

// A Note is something about a host that a scan cannot see, or saw with care.
type Note struct {
	// About is one of the words below.
	About string `json:"about"`
	// User and Path say of what, where they are known.
	User string `json:"user,omitempty"`
	Path string `json:"path,omitempty"`
	// Text is for people.
	Text string `json:"text"`
}

// What notes are about.
const (
	// NoteUnread is a file or an account that could not be read.
	NoteUnread = "unread"
	// NoteUnseenTrust is trust that lies in no file that a scan reads:
	// AuthorizedKeysCommand, TrustedUserCAKeys, and the like.
	NoteUnseenTrust = "unseen-trust"
	// NoteConfig is a configuration that was evaluated by us because the host
	// would not, or not at all.
	NoteConfig = "config"
	// NoteLimit is a bound of the scan that was reached.
	NoteLimit = "limit"
)

// NewHostID returns the id of a host that is about to be added. Make it before
// the transaction, which may run twice.
func NewHostID() trust.HostID { return trust.HostID(uuid.NewString()) }

// check refuses values that no host may have, and puts the others into their
// canonical form.
func (h *Host) check() error {
	var err error
	if _, err := uuid.Parse(string(h.ID)); err != nil {
		return fmt.Errorf("inventory: host id %q: %w", h.ID, err)
	}
	if h.Name, err = ParseName(h.Name); err != nil {
		return err
	}
	if h.Address, err = ParseAddress(h.Address); err != nil {
		return err
	}
	if h.State != Unenrolled || h.User != "" {
		if h.User, err = ParseUser(h.User); err != nil {
			return err
		}
	}
	switch h.Become {
	case BecomeNone, BecomeSudo, BecomeDoas:
	default:
		return trust.Errorf(trust.Invalid, "become %q is none of none, sudo and doas", abbreviate(string(h.Become))).WithField("become")
	}
	switch h.Mode {
	case Inventory, Enforced:
	default:
		return trust.Errorf(trust.Invalid, "mode %q is neither inventory nor enforced", abbreviate(string(h.Mode))).WithField("mode")
	}
	switch h.State {
	case Unenrolled, Enrolling, Ready, Refused:
	default:
		return trust.Errorf(trust.Invalid, "state %q is none of unenrolled, enrolling, ready and refused", abbreviate(string(h.State))).WithField("state")
	}
	h.Reason = plainText(h.Reason, 1000)
	return nil
}
