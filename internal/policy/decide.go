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
	for i := v.standing(0); i < len(b.applications) && nearest.stage != allowed; i = v.standing(v.next(i + 1)) {
		if o := v.ask(i, nearest.stage); o.stage > nearest.stage {
			nearest = o
			v.passOver(o.stage)
		}
	}
	return v.decision(nearest)
}

// look finds out which conditions hold of a request.
func (b *Rulebook) look(r Request) *view {
	v := b.newView(r)
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
	v.settle()
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
func (v *view) standing(i int) int {
	r := &v.request
	if r.Application == "" {
		return v.matching(i)
	}
	for ; i < len(v.book.applications); i++ {
		a := &v.book.applications[i]
		if a.id == r.Application && (a.kind == SSH || a.kind == SelfHosted || a.kind == Infrastructure && (r.Everywhere || v.matching(i) == i)) {
			break
		}
	}
	return i
}

// matching returns the first application of hosts from the i-th on of which a criterion
// matches, or, where none does, how many there are.
func (v *view) matching(i int) int {
	b, r := v.book, &v.request
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

// next returns the first application from the i-th on that has a policy which may come
// nearer than one did, or, where none has, how many there are.
func (v *view) next(i int) int {
	b := v.book
	if i == len(b.applications) {
		return i
	}
	p := v.nearer.next(b.policy0+b.firstPolicy(i), b.end)
	if p == b.end {
		return len(b.applications)
	}
	return int(b.policies[p-b.policy0].application)
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
func (v *view) ask(application int, other stage) outcome {
	b := v.book
	nearest := outcome{stage: unincluded, application: application, policy: -1}
	begin, end := b.policy0+b.firstPolicy(application), b.policy0+int(b.applications[application].policies)
	for i := v.apply.next(begin, end); i < end; i = v.apply.next(i+1, end) {
		s := v.applies(i - b.policy0)
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
func (v *view) applies(policy int) stage {
	p, r := &v.book.policies[policy], &v.request
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
	case p.action == NonIdentity && !r.Who.isMachine():
		return unmanned
	case !r.AnyLogin && !v.opens(&v.book.details[policy]):
		return unnamed
	}
	return allowed
}

// opens reports whether a policy lets in as the login that is asked for.
func (v *view) opens(d *detail) bool {
	login := v.request.Login
	return login != "" && (slices.Contains(d.logins, login) || login == v.alias && v.aliases(d))
}

// aliases reports whether a policy names the address of who asks.
func (v *view) aliases(d *detail) bool {
	return slices.ContainsFunc(d.addressed, func(n number) bool { return v.holds[n] == yes })
}

// alias returns the login that a policy which names an address of e-mail may give by it,
// or "".
func alias(email string) string {
	local, _ := splitEmail(email)
	if slices.Contains(systemLogins, local) || strings.HasPrefix(local, "_") {
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
