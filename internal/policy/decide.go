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
	v := b.look(r)
	nearest := outcome{application: -1, policy: -1}
	for i := v.standing(0, r); i < len(b.applications); i = v.standing(i+1, r) {
		o := v.ask(i, r, nearest.stage)
		if o.stage > nearest.stage {
			nearest = o
		}
		if o.stage == allowed {
			break
		}
	}
	return b.decision(r, v.holds, nearest)
}

// look finds out which conditions hold of a request.
func (b *Rulebook) look(r Request) *view {
	v := b.newView()
	v.lookAtIdentity(r.Who)
	v.lookAtHost(r.Host)
	if n, ok := b.hosts["*"]; ok && r.Everywhere {
		v.set(n, yes)
	}
	for i := v.include.next(0, b.criterion0); i < b.criterion0; i = v.include.next(i+1, b.criterion0) {
		if t := b.holds(&b.derived[i].expression, v.holds); t != no {
			v.set(b.derived[i].number, t)
		}
	}
	v.askDenials()
	return v
}

func (v *view) lookAtIdentity(who Identity) {
	set := func(rule Rule) {
		if n, ok := v.book.byRule[rule]; ok {
			v.set(n, yes)
		}
	}
	missing := func(kinds ...Kind) {
		for _, kind := range kinds {
			v.untold(kind)
		}
	}

	v.lookAtSource(who, missing)
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

func (v *view) lookAtSource(who Identity, missing func(...Kind)) {
	source := who.Source.Unmap().WithZone("")
	if !source.IsValid() {
		missing(IP)
		return
	}
	for _, bits := range v.book.lengths[familyOf(source)] {
		prefix, _ := source.Prefix(bits) // a length of its family
		if n, ok := v.book.prefixes[prefix]; ok {
			v.set(n, yes)
		}
	}
}

func (v *view) lookAtHost(h Host) {
	for _, name := range []string{fold(h.Hostname), fold(h.Label)} {
		if name == "" {
			continue
		}
		if n, ok := v.book.hosts[name]; ok {
			v.set(n, yes)
		}
		for _, p := range v.book.patterns {
			if trust.MatchPattern(name, p.pattern) {
				v.set(p.number, yes)
			}
		}
	}
	for key, value := range h.Tags {
		if n, ok := v.book.tags[hostTag{key, value}]; ok {
			v.set(n, yes)
		}
	}
}

// holds says whether an expression does.
func (b *Rulebook) holds(e *expression, of []truth) truth {
	all := no
	for _, n := range b.numbers[e.include:e.require] {
		all = max(all, of[n])
	}
	for _, n := range b.numbers[e.require:e.exclude] {
		all = min(all, of[n])
	}
	for _, n := range b.numbers[e.exclude:e.end] {
		all = min(all, yes-of[n])
	}
	return all
}

// standing returns the first application from the i-th on that is asked for a request,
// or, where none is, how many there are.
func (v *view) standing(i int, r Request) int {
	if r.Application == "" {
		return v.matching(i, r)
	}
	for ; i < len(v.book.applications); i++ {
		a := &v.book.applications[i]
		if a.id == r.Application && (a.kind == SSH || a.kind == SelfHosted || a.kind == Infrastructure && (r.Everywhere || v.matching(i, r) == i)) {
			break
		}
	}
	return i
}

// matching returns the first application of hosts from the i-th on of which a criterion
// matches, or, where none does, how many there are.
func (v *view) matching(i int, r Request) int {
	b := v.book
	c := b.criterion0 + b.firstCriterion(i)
	for c = v.include.next(c, b.policy0); c < b.policy0; c = v.include.next(c+1, b.policy0) {
		one := &b.criteria[c-b.criterion0]
		if int(one.port) != r.Host.Port || one.protocol != r.Host.Protocol || b.applications[one.application].kind != Infrastructure {
			continue
		}
		if r.Everywhere && one.everywhere || !r.Everywhere && b.holds(&one.expression, v.holds) == yes {
			return int(one.application)
		}
	}
	return len(b.applications)
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

// ask asks an application. Where it does not come nearer than another one did, it need
// not say by which policy.
func (v *view) ask(application int, r Request, other stage) outcome {
	b := v.book
	nearest := outcome{stage: unincluded, application: application, policy: -1}
	begin, end := b.policy0+b.firstPolicy(application), b.policy0+int(b.applications[application].policies)
	for i := v.apply.next(begin, end); i < end; i = v.apply.next(i+1, end) {
		s := v.applies(i-b.policy0, r)
		if s > nearest.stage && s != unfit {
			nearest = outcome{s, application, i - b.policy0}
		}
		if s == allowed || s == denied {
			break
		}
	}
	if nearest.stage < unfit && other < unfit {
		if i := v.nextUnfit(begin, end); i < end {
			nearest = outcome{unfit, application, i - b.policy0}
		}
	}
	return nearest
}

// nextUnfit returns the first policy from i on that may include who asks, and does not
// deny, where none applies.
func (v *view) nextUnfit(i, end int) int {
	i = v.include.next(i, end)
	for i < end && v.book.policies[i-v.book.policy0].action == Deny {
		i = v.include.next(i+1, end)
	}
	return i
}

// applies says what a policy does with a request that it may include.
func (v *view) applies(policy int, r Request) stage {
	p := &v.book.policies[policy]
	met := v.book.holds(&p.expression, v.holds)
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
	case !r.AnyLogin && !v.book.details[policy].opens(r, v.holds):
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
