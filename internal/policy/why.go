package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// decision returns an outcome as an answer, with its reason.
func (v *view) decision(o outcome) Decision {
	b, r, holds := v.book, &v.request, v.holds
	d := Decision{Allowed: o.stage == allowed}
	who := cmp.Or(r.Who.Name, r.Who.Email, r.Who.User, r.Who.ServiceToken, "who asks")
	if o.application < 0 {
		d.Why = uncoveredText(r)
		return d
	}
	a := &b.applications[o.application]
	d.Application = a.id
	if o.policy < 0 {
		d.Why = fmt.Sprintf("application %q has no policy that includes %s", a.name, who)
		return d
	}
	p, about := &b.policies[o.policy], &b.details[o.policy]
	section, n := b.decisive(&p.expression, holds)
	d.Policy, d.Section, d.Rule = about.id, section, b.terms[n].rule
	policy := fmt.Sprintf("policy %q of application %q", about.name, a.name)
	switch {
	case o.stage == allowed && r.AnyLogin:
		d.Why = fmt.Sprintf("%s includes %s, and applies to %s", policy, b.terms[n], who)
	case o.stage == allowed:
		d.Why = fmt.Sprintf("%s includes %s, and lets %s in as %s", policy, b.terms[n], who, r.Login)
	case o.stage == denied:
		d.Why = fmt.Sprintf("%s denies %s: it %s", policy, who, b.sentence(section, n, holds))
	case o.stage == unmanned:
		d.Why = fmt.Sprintf("%s is for %s, and %s is none of them", policy, p.meant(), who)
	case o.stage == unnamed:
		d.Why = fmt.Sprintf("%s applies to %s, and lets in as %s", policy, who, v.loginText(about))
	default:
		d.Why = fmt.Sprintf("%s does not apply to %s: it %s", policy, who, b.sentence(section, n, holds))
	}
	return d
}

func uncoveredText(r *Request) string {
	host := fmt.Sprintf("host %q at port %d", r.Host.Hostname, r.Host.Port)
	switch {
	case r.Application != "" && r.Everywhere:
		return fmt.Sprintf("application %q is not there, or is of a type that lets nobody in by SSH", r.Application)
	case r.Application != "":
		return fmt.Sprintf("application %q is not there, or does not stand for %s", r.Application, host)
	case r.Everywhere:
		host = fmt.Sprintf("every host at port %d", r.Host.Port)
	}
	return "no application stands for " + host
}

// meant says whom a policy is for.
func (p *policy) meant() string {
	if p.action == NonIdentity {
		return "those who have a service token or a client certificate"
	}
	return "people"
}

// loginText says as whom a policy lets in, which is not what was asked for.
func (v *view) loginText(d *detail) string {
	logins := d.logins[:len(d.logins):len(d.logins)]
	if v.alias != "" && v.aliases(d) {
		logins = append(logins, v.alias)
	}
	if len(logins) == 0 {
		return "no login at all"
	}
	const shown = 10
	text := strings.Join(logins[:min(shown, len(logins))], ", ")
	if more := len(logins) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s, not as %q", text, v.request.Login)
}

// decisive returns the condition that settled whether an expression holds, of
// which some condition of Include may: the first that included, or else the first
// that spoke against it, surely if one did.
func (b *Rulebook) decisive(e *expression, holds []truth) (Section, number) {
	include, require, exclude := b.numbers[e.include:e.require], b.numbers[e.require:e.exclude], b.numbers[e.exclude:e.end]
	first := func(list []number, is truth) int {
		return slices.IndexFunc(list, func(n number) bool { return holds[n] == is })
	}
	met := b.holds(e, holds)
	if i := first(include, yes); i >= 0 && met == yes {
		return Include, include[i]
	}
	if i := first(exclude, yes-met); i >= 0 {
		return Exclude, exclude[i]
	}
	if i := first(require, met); i >= 0 {
		return Require, require[i]
	}
	return Include, include[first(include, unknown)]
}

// sentence says what a policy has in a section, and what is with it.
func (b *Rulebook) sentence(s Section, n number, holds []truth) string {
	t := b.terms[n]
	said := fmt.Sprintf("%ss %s", s, t)
	switch {
	case t.never != "":
		return said + ", of which nobody can tell whether it holds: " + t.never
	case holds[n] == unknown:
		return said + ", and what that asks for is not known of who asks"
	case s == Require:
		return said + ", which does not hold"
	}
	return said
}

// String returns what people call a condition.
func (t term) String() string {
	switch {
	case t.rule.Kind == "":
		return t.name
	case t.name != "":
		return fmt.Sprintf("%s %q", t.rule.Kind, t.name)
	}
	return t.rule.String()
}
