package policy

import (
	"net/netip"
	"slices"
)

// A Model is all rules of a tenant.
type Model struct {
	// Applications are asked in this order. Each decides for itself: who is let
	// in by one is in.
	Applications []Application
	Groups       []Group
	IPLists      []IPList
}

// An ApplicationType says how hosts are reached.
type ApplicationType string

// The types of application that SSH has to do with. Others can be stored and let
// nobody in by SSH.
const (
	// Infrastructure applications stand for the hosts that their criteria match.
	Infrastructure ApplicationType = "infrastructure"
	// SSH and SelfHosted applications stand for one domain name, and are asked
	// for by id. Their policies let people in as the local part of their address
	// of e-mail, unless they say otherwise.
	SSH        ApplicationType = "ssh"
	SelfHosted ApplicationType = "self_hosted"
)

// An Application is what policies are about.
type Application struct {
	ID   string
	Name string
	Type ApplicationType
	// Criteria are which hosts it stands for, where Type is Infrastructure: a
	// host that any of them matches.
	Criteria []Criterion
	// Providers are ids of the only identity providers by which people log in to
	// it; none are all.
	Providers []string
	// Policies are in the order of their precedence.
	Policies []Policy
}

// A Criterion matches hosts at a port: those that any of Include matches, all of
// Require, and none of Exclude.
type Criterion struct {
	Protocol Protocol   `json:"protocol"`
	Port     int        `json:"port"`
	Include  Attributes `json:"include,omitzero"`
	Require  Attributes `json:"require,omitzero"`
	Exclude  Attributes `json:"exclude,omitzero"`
}

// everywhere reports whether c matches every host at its port.
func (c Criterion) everywhere() bool {
	return slices.Contains(c.Include.Hostnames, "*") && c.Require.IsZero() && c.Exclude.IsZero()
}

// A Protocol is what is spoken at a port.
type Protocol string

// ProtocolSSH is the one protocol that is decided here.
const ProtocolSSH Protocol = "SSH"

// Attributes are what a host is told by.
type Attributes struct {
	// Hostnames are compared without regard to case. In one, "*" stands for any
	// characters and "?" for one.
	Hostnames []string `json:"hostnames,omitempty"`
	// Tags are values of tags, of which a host has to have one.
	Tags map[string][]string `json:"tags,omitempty"`
}

// IsZero reports whether a says nothing.
func (a Attributes) IsZero() bool { return len(a.Hostnames) == 0 && len(a.Tags) == 0 }

// An Action is what a policy does with those whom it applies to.
type Action string

// The actions of policies.
const (
	// Allow lets people in. It is for people only, whomever it includes.
	Allow Action = "allow"
	// Deny ends the application's decision.
	Deny Action = "deny"
	// NonIdentity lets in who has a service token or a client certificate, and
	// need not be a person. Policies with it are asked before all others.
	NonIdentity Action = "non_identity"
	// Bypass asks nobody who they are. Nobody logs in by SSH that way.
	Bypass Action = "bypass"
)

// A Policy says whom an application lets in.
type Policy struct {
	ID     string
	Name   string
	Action Action
	Expression
	// SSH is as which logins it lets in, or nil where it does not say.
	SSH *SSHRules
	// Demands are what else the policy asks of people, that Keyturn cannot see
	// to, in words. A policy that has some lets nobody in.
	Demands []string
}

// SSHRules are the connection rules of a policy.
type SSHRules struct {
	Usernames []string
	// EmailAlias lets people in as the local part of their address, in lower
	// case. See Rulebook.Decide for which addresses.
	EmailAlias bool
}

// An Expression is met by who matches any rule of Include, all of Require, and
// none of Exclude.
type Expression struct {
	Include []Rule `json:"include,omitempty"`
	Require []Rule `json:"require,omitempty"`
	Exclude []Rule `json:"exclude,omitempty"`
}

// A Group is an expression that rules can name.
type Group struct {
	ID   string
	Name string
	Expression
}

// An IPList is a list of networks that rules can name.
type IPList struct {
	ID       string
	Name     string
	Prefixes []netip.Prefix
}

// An Identity is what is known of who asks, vouched for by whoever fills it in.
// A fact that is left out is not known, which never helps who asks.
type Identity struct {
	// Name is for people to read, and decides nothing.
	Name string
	// User is the id of a user of Keyturn.
	User string
	// Email is an address that was verified.
	Email string
	// Provider is the id of the identity provider by which they logged in, or
	// LocalLogin.
	Provider string
	// Methods are how they proved who they are (RFC 8176); not nil and empty
	// where it is known that the provider said nothing of it.
	Methods []string
	// Claims are what the provider said of them; not nil where it is known.
	Claims []Claim
	// ServiceToken is the id of the token of who is a machine and no person.
	ServiceToken string
	// Certificate is whether they have shown a client certificate that is
	// valid, and CommonName the name in it.
	Certificate bool
	CommonName  string
	// Source is the address that they come from.
	Source netip.Addr
}

// LocalLogin stands for an identity provider where somebody logged in with a
// password that Keyturn itself keeps.
const LocalLogin = "local"

// A Claim is one value of one claim that an identity provider made.
type Claim struct {
	Provider, Name, Value string
}

// IsPerson reports whether who asks is a person. A person's service tokens are
// not: they ask in their own name.
func (i Identity) IsPerson() bool {
	return i.ServiceToken == "" && (i.User != "" || i.Email != "")
}

// isMachine reports whether who asks has what policies with NonIdentity ask for.
func (i Identity) isMachine() bool { return i.ServiceToken != "" || i.Certificate }

// A Host is what somebody wants to log in to.
type Host struct {
	Hostname string
	// Label is another name that the host goes by, or empty. What matches either
	// matches the host.
	Label    string
	Tags     map[string]string
	Protocol Protocol
	Port     int
}

// A Request asks whether somebody may log in somewhere.
type Request struct {
	Who  Identity
	Host Host
	// Login is the name of the account on the host.
	Login string
	// Application is the id of the only application that is asked, or empty for
	// all that stand for the host. An application that is not of type
	// Infrastructure is asked only by its id, and then whatever the host.
	Application string
	// AnyLogin asks whether a policy applies that lets people in, as whatever login.
	AnyLogin bool
	// Everywhere asks about every host there may be at Host.Port: only applications
	// from which none is excepted are asked. With Application, it asks about every
	// host of that one, whichever those are.
	Everywhere bool
}

// A Decision is the answer to a Request.
type Decision struct {
	Allowed bool
	// Application and Policy are the ids of what decided, as far as one did.
	Application string
	Policy      string
	// Section and Rule are the rule that decided, as far as one did.
	Section Section
	Rule    Rule
	// Why says it in a sentence.
	Why string
}

// A Section is a part of an expression.
type Section string

// The sections of an expression.
const (
	Include Section = "include"
	Require Section = "require"
	Exclude Section = "exclude"
)
