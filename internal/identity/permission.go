package identity

import (
	"slices"
	"strings"

	"keyturn/internal/trust"
)

// A Permission is one thing that an actor may do, by the name that users see. A
// "Write" includes the "Read" of the same noun.
type Permission string

// Keyturn's own permissions.
const (
	// All is every permission that there is, and those that later versions add.
	All Permission = "All"

	AccountRead   Permission = "Account Read"
	UsersRead     Permission = "Users Read"
	UsersWrite    Permission = "Users Write"
	TokensRead    Permission = "Tokens Read"
	TokensWrite   Permission = "Tokens Write"
	HostsRead     Permission = "Hosts Read"
	HostsWrite    Permission = "Hosts Write"
	KeysRead      Permission = "Keys Read"
	KeysWrite     Permission = "Keys Write"
	KeysSupply    Permission = "Keys Supply"
	KeysUse       Permission = "Keys Use"
	KeysReveal    Permission = "Keys Reveal"
	RunsRead      Permission = "Runs Read"
	RunsWrite     Permission = "Runs Write"
	SettingsRead  Permission = "Settings Read"
	SettingsWrite Permission = "Settings Write"
	AuditRead     Permission = "Audit Read"

	CertificatesRead  Permission = "Certificates Read"
	CertificatesWrite Permission = "Certificates Write"
	CertificatesIssue Permission = "Certificates Issue"

	MetricsRead Permission = "Metrics Read"
)

// Permissions of Cloudflare, by the names of its permission groups: what its API
// has, the same names let in here.
const (
	ZeroTrustRead      Permission = "Zero Trust Read"
	ZeroTrustWrite     Permission = "Zero Trust Write"
	AppsRead           Permission = "Access: Apps and Policies Read"
	AppsWrite          Permission = "Access: Apps and Policies Write"
	SSHAuditingRead    Permission = "Access: SSH Auditing Read"
	SSHAuditingWrite   Permission = "Access: SSH Auditing Write"
	OrganizationsRead  Permission = "Access: Organizations, Identity Providers, and Groups Read"
	OrganizationsWrite Permission = "Access: Organizations, Identity Providers, and Groups Write"
	AuditLogsRead      Permission = "Access: Audit Logs Read"
	PolicyTestRead     Permission = "Access: Policy Test Read"
	PolicyTestWrite    Permission = "Access: Policy Test Write"
)

// A Grant describes a permission to those who hand it out.
type Grant struct {
	Permission Permission
	Meaning    string
}

// Permissions is every permission with what it lets its holder do, in the order
// in which they are listed to users.
var Permissions = []Grant{
	{All, "everything, and what later versions add"},
	{AccountRead, "see the account: its id and name"},
	{UsersRead, "list users and what they may do"},
	{UsersWrite, "add and remove users who may do no more than oneself, and set their passwords"},
	{TokensRead, "list API tokens and when they were last used"},
	{TokensWrite, "make API tokens that may do no more than oneself, and revoke any"},
	{HostsRead, "see hosts, what was found on them, and findings"},
	{HostsWrite, "add, import, confirm, enforce, scan and remove hosts"},
	{KeysRead, "see keys, where they are, and what replaced them"},
	{KeysWrite, "generate, import, rotate, roll back, retire, restore and delete keys"},
	{KeysSupply, "say which public key takes the place of one that is its owner's alone, and so who is let in where that was"},
	{KeysUse, "have the server sign with held keys, as keyturn agent does; the private keys stay where they are"},
	{KeysReveal, "read private keys; every use is recorded"},
	{RunsRead, "see runs and watch them"},
	{RunsWrite, "pause, resume, approve, take back and leave places of runs"},
	{SettingsRead, "see settings"},
	{SettingsWrite, "change settings"},
	{CertificatesRead, "see certificate authorities, certificates, and what is revoked"},
	{CertificatesWrite, "make, exchange and remove certificate authorities, and revoke certificates"},
	{CertificatesIssue, "have certificates signed for oneself, for what policies let one in as"},
	{AuditRead, "read, export and verify the audit log"},
	{MetricsRead, "read /metrics: how many hosts and runs there are, and how the server does"},
	{ZeroTrustRead, "see targets, and the settings of SSH"},
	{ZeroTrustWrite, "add, change and remove targets, and change the settings of SSH"},
	{AppsRead, "see applications, their policies, and the authorities of their certificates"},
	{AppsWrite, "say who gets in where: change applications, their policies, and the authorities of their certificates"},
	{SSHAuditingRead, "see the authority that opens hosts for the gateway"},
	{SSHAuditingWrite, "make and remove the authority that opens hosts for the gateway"},
	{OrganizationsRead, "see groups, and how often the keys that sign logins are exchanged"},
	{OrganizationsWrite, "say who gets in wherever a policy names a group or a list of networks: change those, and exchange the keys that sign logins"},
	{AuditLogsRead, "see who asked for access, from which address, and whether it was given"},
	{PolicyTestRead, "see tests of policies, with the names and addresses of the users whom they let in"},
	{PolicyTestWrite, "test policies on all users"},
}

// ParsePermissions reads permissions by their names, without regard to case, and
// drops repetitions. An unknown one, or none at all, is an Invalid error that
// lists the valid ones.
func ParsePermissions(names []string) ([]Permission, error) {
	var list []Permission
	for _, name := range names {
		i := slices.IndexFunc(Permissions, func(g Grant) bool {
			return strings.EqualFold(string(g.Permission), strings.TrimSpace(name))
		})
		if i < 0 {
			return nil, trust.Errorf(trust.Invalid, "permission %.64q is none of %s", name, permissionNames()).WithField("permissions")
		}
		if p := Permissions[i].Permission; !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil, trust.Errorf(trust.Invalid, "no permission was given; there are %s", permissionNames()).WithField("permissions")
	}
	return list, nil
}

func permissionNames() string {
	var names []string
	for _, g := range Permissions {
		names = append(names, `"`+string(g.Permission)+`"`)
	}
	return strings.Join(names, ", ")
}

// may reports whether a holder of list may do p.
func may(list []Permission, p Permission) bool {
	if slices.Contains(list, All) || slices.Contains(list, p) {
		return true
	}
	noun, isRead := strings.CutSuffix(string(p), " Read")
	return isRead && slices.Contains(list, Permission(noun+" Write"))
}

// beyond returns the first of list that a holder of limit may not do, or "".
func beyond(limit, list []Permission) Permission {
	for _, p := range list {
		if !may(limit, p) {
			return p
		}
	}
	return ""
}

// within returns what a holder of both lists may do: of a token and its owner.
func within(limit, list []Permission) []Permission {
	var both []Permission
	for _, g := range Permissions {
		if may(limit, g.Permission) && may(list, g.Permission) {
			both = append(both, g.Permission)
		}
	}
	return both
}

// Columns hold permissions by name, one a line. A name that this version does
// not know, left there by a newer one, grants nothing.

func encodePermissions(list []Permission) string {
	var names []string
	for _, p := range list {
		names = append(names, string(p))
	}
	return strings.Join(names, "\n")
}

func decodePermissions(text string) []Permission {
	var list []Permission
	for name := range strings.SplitSeq(text, "\n") {
		if slices.ContainsFunc(Permissions, func(g Grant) bool { return string(g.Permission) == name }) {
			list = append(list, Permission(name))
		}
	}
	return list
}
