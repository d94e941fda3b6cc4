package policy

import (
	"slices"
	"strings"

	"keyturn/internal/trust"
)

// Decide says whether somebody may log in somewhere, and why.
//
// The applications that stand for the host are asked in turn. In each, policies
// are asked in their order, those with NonIdentity first; the first that applies
// and whose logins hold the one that is asked for lets in, and one that denies
// ends the application. Where nothing lets in, the answer names the policy that
// came nearest to it.
//
// A login by the local part of an address of e-mail is given only where the
// policy names that address or its domain in what it includes or requires, itself
// or by a group, so that no other domain of an identity provider is let in by it;
// and never as an account that systems come with, such as root.
func (b *Rulebook) Decide(r Request) Decision {
	holds := b.look(r)
	nearest := outcome{application: -1, policy: -1}
	var criterion, policy int32
	for i := range b.applications {
		a := &b.applications[i]
		o := outcome{application: i, policy: -1}
		if b.stands(a, b.criteria[criterion:a.criteria], r, holds) {
			o = b.ask(i, int(policy), r, holds)
		}
		criterion, policy = a.criteria, a.policies
		if o.stage > nearest.stage {
			nearest = o
		}
		if o.stage == allowed {
			break
		}
	}
	return b.decision(r, holds, nearest)
}

// look finds out which conditions hold of a request.
func (b *Rulebook) look(r Request) []truth {
	holds := slices.Clone(b.start)
	b.lookAtIdentity(r.Who, holds)
	b.lookAtHost(r.Host, holds)
	for _, d := range b.derived {
		holds[d.number] = b.holds(&d.expression, holds)
	}
	return holds
}

func (b *Rulebook) lookAtIdentity(who Identity, holds []truth) {
	set := func(rule Rule) {
		if n, ok := b.byRule[rule]; ok {
			holds[n] = yes
		}
	}
	missing := func(kinds ...Kind) {
		for _, kind := range kinds {
			for _, n := range b.ofKind[kind] {
				holds[n] = unknown
			}
		}
	}

	b.lookAtSource(who, holds, missing)
	if who.Certificate {
		set(Rule{Kind: Certificate})
		set(Rule{Kind: CommonName, Value: who.CommonName})
	}
	if who.ServiceToken != "" {
		set(Rule{Kind: AnyValidServiceToken})
		set(Rule{Kind: ServiceToken, Value: who.ServiceToken})
		return // who is no person has nothing of what follows
	}

	if who.User == "" {
		missing(User)
	}
	set(Rule{Kind: User, Value: who.User})
	if who.Email == "" {
		missing(Email, EmailDomain)
	} else {
		_, domain := splitEmail(who.Email)
		set(Rule{Kind: Email, Value: fold(who.Email)})
		set(Rule{Kind: EmailDomain, Value: domain})
	}
	if who.Provider == "" {
		missing(LoginMethod)
	}
	set(Rule{Kind: LoginMethod, Value: who.Provider})
	if who.Methods == nil {
		missing(AuthMethod)
	}
	for _, method := range who.Methods {
		set(Rule{Kind: AuthMethod, Value: method})
	}
	if who.Claims == nil {
		missing(OIDC)
	}
	for _, claim := range who.Claims {
		set(Rule{Kind: OIDC, Provider: claim.Provider, Claim: claim.Name, Value: claim.Value})
	}
}

func (b *Rulebook) lookAtSource(who Identity, holds []truth, missing func(...Kind)) {
	source := who.Source.Unmap().WithZone("")
	if !source.IsValid() {
		missing(IP)
		return
	}
	for _, bits := range b.lengths[familyOf(source)] {
		prefix, _ := source.Prefix(bits) // a length of its family
		if n, ok := b.prefixes[prefix]; ok {
			holds[n] = yes
		}
	}
}

func (b *Rulebook) lookAtHost(h Host, holds []truth) {
	for _, name := range []string{fold(h.Hostname), fold(h.Label)} {
		if name == "" {
			continue
		}
		if n, ok := b.hosts[name]; ok {
			holds[n] = yes
		}
		for _, p := range b.patterns {
			if trust.MatchPattern(name, p.pattern) {
				holds[p.number] = yes
			}
		}
	}
	for key, value := range h.Tags {
		if n, ok := b.tags[hostTag{key, value}]; ok {
			holds[n] = yes
		}
	}
}

// holds says whether an expression does.
func (b *Rulebook) holds(e *expression, of []truth) truth {
	all := b.included(e, of)
	for _, n := range b.numbers[e.require:e.exclude] {
		all = min(all, of[n])
	}
	for _, n := range b.numbers[e.exclude:e.end] {
		all = min(all, yes-of[n])
	}
	return all
}

// included says whether an expression includes who asks.
func (b *Rulebook) included(e *expression, of []truth) truth {
	some := no
	for _, n := range b.numbers[e.include:e.require] {
		some = max(some, of[n])
	}
	return some
}

// stands reports whether a is asked for a request.
func (b *Rulebook) stands(a *application, criteria []criterion, r Request, holds []truth) bool {
	if r.Application != "" && r.Application != a.id {
		return false
	}
	if a.kind != Infrastructure {
		return r.Application == a.id && (a.kind == SSH || a.kind == SelfHosted)
	}
	for i := range criteria {
		c := &criteria[i]
		if int(c.port) != r.Host.Port || c.protocol != r.Host.Protocol {
			continue
		}
		if r.Everywhere && c.everywhere || !r.Everywhere && b.holds(&c.expression, holds) == yes {
			return true
		}
	}
	return false
}

// A stage is how near somebody came to being let in.
type stage uint8

const (
	uncovered  stage = iota // no application stands for the host
	unincluded              // no policy includes who asks
	unfit                   // one does, but what it requires or excludes speaks against it
	unmanned                // one applies, but not to people, or to machines
	unnamed                 // one applies, but not to the login
	denied                  // one denies
	allowed
)

// An outcome is what one application decided, and by which policy: indices, or -1.
type outcome struct {
	stage       stage
	application int
	policy      int
}

// ask asks an application, whose policies begin at first.
func (b *Rulebook) ask(application, first int, r Request, holds []truth) outcome {
	nearest := outcome{stage: unincluded, application: application, policy: -1}
	for i := first; i < int(b.applications[application].policies); i++ {
		if b.included(&b.policies[i].expression, holds) == no {
			continue // which most are: nothing else is asked for them
		}
		s := b.applies(i, r, holds)
		if s > nearest.stage {
			nearest = outcome{s, application, i}
		}
		if s == allowed || s == denied {
			break
		}
	}
	return nearest
}

// applies says what a policy does with a request that it may include.
func (b *Rulebook) applies(policy int, r Request, holds []truth) stage {
	p := &b.policies[policy]
	met := b.holds(&p.expression, holds)
	switch {
	case p.action == Deny && met != no:
		return denied
	case p.action == Deny:
		return unincluded
	case met != yes:
		return unfit
	case p.action == Allow && !r.Who.IsPerson():
		return unmanned
	case p.action == NonIdentity && r.Who.ServiceToken == "" && !r.Who.Certificate:
		return unmanned
	case !b.details[policy].opens(r, holds):
		return unnamed
	}
	return allowed
}

// opens reports whether a policy lets in as the login that is asked for.
func (d *detail) opens(r Request, holds []truth) bool {
	if r.Login == "" {
		return false
	}
	return slices.Contains(d.logins, r.Login) || d.aliasOf(r.Who, holds) == r.Login
}

// aliasOf returns the login that somebody has by an address of e-mail that the
// policy names, or "".
func (d *detail) aliasOf(who Identity, holds []truth) string {
	local, _ := splitEmail(who.Email)
	named := slices.ContainsFunc(d.addressed, func(n number) bool { return holds[n] == yes })
	if !named || slices.Contains(systemLogins, local) || strings.HasPrefix(local, "_") {
		return ""
	}
	return local
}

// systemLogins are accounts that systems come with (Debian, Fedora, Alpine,
// FreeBSD and OpenBSD, whose others begin with "_"), or that mean as much.
var systemLogins = []string{
	"root", "toor", "admin", "administrator", "adm", "bin", "daemon", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy",
	"www-data", "www", "backup", "list", "irc", "gnats", "nobody", "sshd", "messagebus", "systemd-network", "systemd-resolve",
	"systemd-timesync", "systemd-coredump", "polkitd", "dbus", "shutdown", "halt", "operator", "ftp", "tty", "kmem", "smmsp", "mailnull",
	"bind", "unbound", "postfix", "postgres", "mysql", "redis", "nginx", "apache", "http", "docker", "git", "ubuntu", "debian", "ec2-user",
	"centos", "fedora", "cloud-user", "vagrant", "pi", "core", "rocky", "almalinux", "alpine", "opc",
}
