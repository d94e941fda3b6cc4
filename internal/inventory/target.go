package inventory

import (
	"encoding/hex"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/trust"
)

// A Target is a host as access rules know it: by a label that need not be unique, by
// IP addresses in virtual networks, and by tags. It has the host's id. Not every
// host is one: a host whose address is a DNS name is not, until it is written as one.
type Target struct {
	ID trust.HostID
	// Hostname is a label, not a name that anybody resolves. Rules compare it without
	// regard to case.
	Hostname string
	// IPv4 and IPv6 are where it is; one of them is there.
	IPv4, IPv6 *TargetAddress
	// Tags are words of people's own. Written as nil, they stay as they are.
	Tags                  map[string]string
	CreatedAt, ModifiedAt time.Time
	// Written says that somebody wrote it as a target, and not only added the host.
	Written bool
}

// A TargetAddress is an IP address in a virtual network.
type TargetAddress struct {
	IP string // as it was written
	// Network is the id of the virtual network. Written as "", it is the one that the
	// target has, or the tenant's DefaultNetwork.
	Network string
}

// DefaultNetwork is the id of the virtual network of a tenant in which everything is
// of which nothing else is said: the one that Keyturn itself is in.
func DefaultNetwork(tenant trust.TenantID) string {
	return uuid.NewSHA1(networks, []byte(tenant)).String()
}

// networks is the name space of DefaultNetwork.
var networks = uuid.UUID{0x6f, 0x1d, 0x0a, 0x52, 0x1c, 0x8e, 0x4d, 0x0b, 0x9a, 0x3b, 0x57, 0x0c, 0x2b, 0x84, 0x63, 0xd1}

// NewTargetID returns the id of a host that is about to be added as a target. Those made
// later sort behind those made before.
func NewTargetID() trust.HostID { return trust.HostID(uuid.Must(uuid.NewV7()).String()) }

const (
	maxTags     = 64
	maxTagName  = 128
	maxTagValue = 256
)

var targetHostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?$`)

// check refuses values that no target may have.
func (t Target) check() error {
	if !targetHostname.MatchString(t.Hostname) {
		return trust.Errorf(trust.Invalid, "hostname %q is not 1 to 255 letters, digits, hyphens and dots, a letter or digit at both ends", abbreviate(t.Hostname)).WithField("hostname")
	}
	if t.IPv4 == nil && t.IPv6 == nil {
		return trust.Errorf(trust.Invalid, "a target has an IPv4 or an IPv6 address").WithField("ip")
	}
	if err := t.IPv4.check(false); err != nil {
		return err
	}
	if err := t.IPv6.check(true); err != nil {
		return err
	}
	if len(t.Tags) > maxTags {
		return trust.Errorf(trust.Exhausted, "a target has %d tags at the most", maxTags).WithField("tags")
	}
	for name, value := range t.Tags {
		if name == "" || len(name) > maxTagName || !isPlainText(name) || strings.Contains(name, ":") ||
			value == "" || len(value) > maxTagValue || !isPlainText(value) {
			return trust.Errorf(trust.Invalid, "tag %q: %q is not a name of 1 to %d bytes without colons, and a value of 1 to %d bytes, of printable text", abbreviate(name), abbreviate(value), maxTagName, maxTagValue).WithField("tags")
		}
	}
	return nil
}

func (a *TargetAddress) check(six bool) error {
	if a == nil {
		return nil
	}
	field := "ip.ipv4"
	if six {
		field = "ip.ipv6"
	}
	ip, err := netip.ParseAddr(a.IP)
	if err != nil || ip.Is6() != six || ip.Is4In6() || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
		return trust.Errorf(trust.Invalid, "%q is not the %s address of one host", abbreviate(a.IP), map[bool]string{false: "IPv4", true: "IPv6"}[six]).WithField(field + ".ip_addr")
	}
	if a.Network != "" && (len(a.Network) != 36 || uuid.Validate(a.Network) != nil) {
		return trust.Errorf(trust.Invalid, "virtual network %q is not a UUID", abbreviate(a.Network)).WithField(field + ".virtual_network_id")
	}
	return nil
}

// addresses returns those that there are.
func (t Target) addresses() (list []TargetAddress) {
	for _, a := range []*TargetAddress{t.IPv4, t.IPv6} {
		if a != nil {
			list = append(list, *a)
		}
	}
	return list
}

// key returns the address as ip_key holds it.
func (a TargetAddress) key() string {
	ip, err := netip.ParseAddr(a.IP)
	if err != nil {
		return "" // which no address has, and check refuses
	}
	return ipKey(ip)
}

func ipKey(ip netip.Addr) string {
	version := "6"
	if ip.Is4() {
		version = "4"
	}
	return version + hex.EncodeToString(ip.AsSlice())
}

// networked fills in the networks of addresses, and spells them in one way.
func (t *Target) networked(was Target, tenant trust.TenantID) {
	fill := func(a, was *TargetAddress) *TargetAddress {
		if a == nil {
			return nil
		}
		filled := TargetAddress{IP: a.IP, Network: strings.ToLower(a.Network)}
		switch {
		case filled.Network != "":
		case was != nil:
			filled.Network = was.Network
		default:
			filled.Network = DefaultNetwork(tenant)
		}
		return &filled
	}
	t.IPv4, t.IPv6 = fill(t.IPv4, was.IPv4), fill(t.IPv6, was.IPv6)
}

// address returns where Keyturn would find the host's sshd: on port 22 of the first
// address in its own network, or, where there is none, at a name that never resolves
// (RFC 6761, section 6.4).
func (t Target) address(tenant trust.TenantID) string {
	for _, a := range t.addresses() {
		if a.Network != DefaultNetwork(tenant) {
			continue
		}
		if address, err := ParseAddress(a.IP); err == nil {
			return address
		}
	}
	return string(t.ID) + ".target.invalid:22"
}
