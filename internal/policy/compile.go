package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// A truth is a value of Kleene's logic: "and" is min, "or" is max, and "not" is
// yes - t.
type truth uint8

const (
	no truth = iota
	unknown
	yes
)

// A number names a condition of a rulebook: its index in terms, and in what is
// known of a request.
type number int32

// A term is a condition, for telling why.
type term struct {
	rule Rule
	// name is what people call it, where a rule names something by its id, or
	// where no rule says it.
	name string
	// never is why it can never be told whether it holds, where it cannot.
	never string
}

// A Rulebook is a Model in the form in which it decides. It does not change, and
// may be used from any goroutine. Whoever decides often keeps it for as long as
// the rows do not change.
type Rulebook struct {
	terms []term
	// start is what holds of everybody.
	start []truth

	// Where the conditions that a fact settles are.
	byRule   map[Rule]number
	ofKind   map[Kind][]number
	prefixes map[netip.Prefix]number
	lengths  [2][]int // of prefixes of IPv4 and IPv6
	hosts    map[string]number
	patterns []hostPattern
	tags     map[hostTag]number

	// derived are conditions on other conditions, each after those that it is on.
	derived []derivation

	// What is read through for each request lies one after the other.
	applications []application
	criteria     []criterion
	policies     []policy
	numbers      []number
	details      []detail // of each of policies

	index
}

type hostPattern struct {
	pattern string
	number  number
}

type hostTag struct{ key, value string }

type derivation struct {
	number number
	expression
}

// An expression is three lists of conditions, each of which begins in numbers
// where the one before it ends.
type expression struct {
	include, require, exclude, end int32
}

// An application has its criteria, and its policies in the order in which they are
// asked, where those of the application before it end.
type application struct {
	criteria, policies int32 // where they end
	kind               ApplicationType
	id, name           string
}

// firstCriterion is where the criteria of the i-th application begin.
func (b *Rulebook) firstCriterion(i int) int {
	if i == 0 {
		return 0
	}
	return int(b.applications[i-1].criteria)
}

// firstPolicy is where the policies of the i-th application begin.
func (b *Rulebook) firstPolicy(i int) int {
	if i == 0 {
		return 0
	}
	return int(b.applications[i-1].policies)
}

type criterion struct {
	expression
	application int32
	port        int32
	everywhere  bool
	protocol    Protocol
}

type policy struct {
	expression
	action      Action
	application int32
}

// A detail is what one needs to know of a policy that applies.
type detail struct {
	id, name string
	logins   []string
	// addressed are, where an address of e-mail can be a login, the conditions on
	// addresses that Include and Require name, themselves or by a group.
	addressed []number
}

// Compile returns m as a Rulebook. It takes every model: what a rule names that is
// not there is a condition of which nobody can tell whether it holds.
func Compile(m Model) *Rulebook {
	c := compiler{
		book: &Rulebook{
			byRule: map[Rule]number{}, ofKind: map[Kind][]number{}, prefixes: map[netip.Prefix]number{},
			hosts: map[string]number{}, tags: map[hostTag]number{},
		},
		groups: map[string]*Group{}, lists: map[string]*IPList{}, open: map[string]bool{}, anyOf: map[string]number{},
	}
	for i := range m.Groups {
		c.groups[m.Groups[i].ID] = &m.Groups[i]
	}
	for i := range m.IPLists {
		c.lists[m.IPLists[i].ID] = &m.IPLists[i]
	}
	for _, a := range m.Applications {
		c.application(a)
	}
	c.book.index = c.book.indexed()
	for prefix := range c.book.prefixes {
		family := familyOf(prefix.Addr())
		if !slices.Contains(c.book.lengths[family], prefix.Bits()) {
			c.book.lengths[family] = append(c.book.lengths[family], prefix.Bits())
		}
	}
	return c.book
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// A compiler is a rulebook in the making.
type compiler struct {
	book   *Rulebook
	groups map[string]*Group
	lists  map[string]*IPList
	open   map[string]bool   // groups of which the rules are being read
	anyOf  map[string]number // derived conditions of alternatives, by their numbers
}

func (c *compiler) add(t term, at truth) number {
	c.book.terms = append(c.book.terms, t)
	c.book.start = append(c.book.start, at)
	return number(len(c.book.terms) - 1)
}

func (c *compiler) application(a Application) {
	for _, criterion := range a.Criteria {
		c.criterion(criterion)
	}
	policies := slices.DeleteFunc(slices.Clone(a.Policies), func(p Policy) bool {
		return !slices.Contains([]Action{Allow, Deny, NonIdentity}, p.Action)
	})
	slices.SortStableFunc(policies, func(p, q Policy) int { return order(p.Action) - order(q.Action) })
	for _, p := range policies {
		c.policy(a, p)
	}
	c.book.applications = append(c.book.applications, application{
		criteria: int32(len(c.book.criteria)), policies: int32(len(c.book.policies)), kind: a.Type, id: a.ID, name: a.Name,
	})
}

// order is when policies of an action are asked.
func order(a Action) int {
	if a == NonIdentity {
		return 0
	}
	return 1
}

func (c *compiler) policy(a Application, p Policy) {
	include, require, exclude := c.rules(p.Include), c.rules(p.Require), c.rules(p.Exclude)
	for _, demand := range p.Demands {
		require = append(require, c.add(term{name: demand, never: "Keyturn cannot see to it"}, unknown))
	}
	if p.Action == Allow && len(a.Providers) > 0 {
		require = append(require, c.providers(a.Providers))
	}
	about := detail{id: p.ID, name: p.Name}
	alias := a.Type == SSH || a.Type == SelfHosted
	if p.SSH != nil {
		about.logins, alias = p.SSH.Usernames, p.SSH.EmailAlias
	}
	if alias {
		c.addresses(&about.addressed, p.Expression, map[string]bool{})
	}
	c.book.policies = append(c.book.policies, policy{
		expression: c.expression(include, require, exclude), action: p.Action, application: int32(len(c.book.applications)),
	})
	c.book.details = append(c.book.details, about)
}

// providers is the condition that somebody logged in by one of some identity
// providers.
func (c *compiler) providers(ids []string) number {
	var list []number
	for _, id := range ids {
		list = append(list, c.rule(Rule{Kind: LoginMethod, Value: id}))
	}
	return c.alternatives(list, "a login by one of the application's identity providers")
}

// addresses adds the conditions on addresses that an expression names to list.
func (c *compiler) addresses(list *[]number, e Expression, seen map[string]bool) {
	for _, r := range slices.Concat(e.Include, e.Require) {
		switch r.Kind {
		case Email, EmailDomain:
			*list = append(*list, c.rule(r))
		case InGroup:
			if g := c.groups[r.Value]; g != nil && !seen[r.Value] {
				seen[r.Value] = true
				c.addresses(list, g.Expression, seen)
			}
		}
	}
}

// expression writes three lists down.
func (c *compiler) expression(include, require, exclude []number) (e expression) {
	at := func(list []number) int32 {
		begin := len(c.book.numbers)
		c.book.numbers = append(c.book.numbers, list...)
		return int32(begin)
	}
	return expression{include: at(include), require: at(require), exclude: at(exclude), end: at(nil)}
}

func (c *compiler) rules(list []Rule) []number {
	numbers := make([]number, len(list))
	for i, r := range list {
		numbers[i] = c.rule(r)
	}
	return numbers
}

// rule returns the number of a rule's condition.
func (c *compiler) rule(r Rule) number {
	r = normal(r)
	if n, ok := c.book.byRule[r]; ok {
		return n
	}
	if r.Kind == InGroup && c.open[r.Value] {
		return c.add(term{rule: r, name: c.groups[r.Value].Name, never: "the group is a part of itself"}, unknown)
	}
	n := c.newRule(r)
	c.book.byRule[r] = n
	return n
}

// normal returns the rule that every rule which says the same has in common.
func normal(r Rule) Rule {
	switch r.Kind {
	case Email:
		r.Value = fold(r.Value)
	case EmailDomain:
		r.Value = fold(strings.TrimPrefix(r.Value, "@"))
	case IP:
		if prefix, err := ParsePrefix(r.Value); err == nil {
			r.Value = prefix.String()
		}
	}
	return r
}

func (c *compiler) newRule(r Rule) number {
	if err := r.Check(); err != nil {
		return c.add(term{rule: r, never: err.Error()}, unknown)
	}
	switch {
	case !r.Decided():
		return c.add(term{rule: r, never: "rules of this kind are kept for others, and not decided"}, unknown)
	case r.Kind == Everyone:
		return c.add(term{rule: r}, yes)
	case r.Kind == IP:
		prefix, _ := ParsePrefix(r.Value) // was checked
		return c.prefix(prefix)
	case r.Kind == InGroup:
		return c.group(r)
	case r.Kind == InIPList:
		return c.list(r)
	}
	n := c.add(term{rule: r}, no)
	c.book.ofKind[r.Kind] = append(c.book.ofKind[r.Kind], n)
	return n
}

func (c *compiler) prefix(p netip.Prefix) number {
	if n, ok := c.book.prefixes[p]; ok {
		return n
	}
	n := c.add(term{rule: Rule{Kind: IP, Value: p.String()}}, no)
	c.book.prefixes[p] = n
	c.book.ofKind[IP] = append(c.book.ofKind[IP], n)
	return n
}

func (c *compiler) group(r Rule) number {
	g := c.groups[r.Value]
	if g == nil {
		return c.add(term{rule: r, never: "there is no such group"}, unknown)
	}
	c.open[r.Value] = true
	include, require, exclude := c.rules(g.Include), c.rules(g.Require), c.rules(g.Exclude)
	delete(c.open, r.Value)
	return c.derive(term{rule: r, name: g.Name}, c.expression(include, require, exclude))
}

func (c *compiler) list(r Rule) number {
	l := c.lists[r.Value]
	if l == nil {
		return c.add(term{rule: r, never: "there is no such list of addresses"}, unknown)
	}
	var list []number
	for _, prefix := range l.Prefixes {
		list = append(list, c.prefix(prefix))
	}
	return c.derive(term{rule: r, name: l.Name}, c.expression(list, nil, nil))
}

func (c *compiler) derive(t term, e expression) number {
	n := c.add(t, no)
	c.book.derived = append(c.book.derived, derivation{n, e})
	return n
}

// alternatives returns the condition that one of several holds.
func (c *compiler) alternatives(list []number, name string) number {
	if len(list) == 1 {
		return list[0]
	}
	key := fmt.Sprint(list)
	n, ok := c.anyOf[key]
	if !ok {
		n = c.derive(term{name: name}, c.expression(list, nil, nil))
		c.anyOf[key] = n
	}
	return n
}

func (c *compiler) criterion(in Criterion) {
	var require []number
	for _, one := range c.attributes(in.Require) {
		require = append(require, c.alternatives(one, ""))
	}
	include, exclude := slices.Concat(c.attributes(in.Include)...), slices.Concat(c.attributes(in.Exclude)...)
	c.book.criteria = append(c.book.criteria, criterion{
		expression: c.expression(include, require, exclude), application: int32(len(c.book.applications)),
		port: int32(in.Port), everywhere: in.everywhere(), protocol: in.Protocol,
	})
}

// attributes returns the conditions of each attribute: alternatives.
func (c *compiler) attributes(a Attributes) (all [][]number) {
	if len(a.Hostnames) > 0 {
		var list []number
		for _, name := range a.Hostnames {
			list = append(list, c.hostname(fold(name)))
		}
		all = append(all, list)
	}
	for _, key := range slices.Sorted(maps.Keys(a.Tags)) {
		list := []number{}
		for _, value := range a.Tags[key] {
			list = append(list, c.tag(hostTag{key, value}))
		}
		all = append(all, list)
	}
	return all
}

func (c *compiler) hostname(name string) number {
	if n, ok := c.book.hosts[name]; ok {
		return n
	}
	n := c.add(term{}, no)
	c.book.hosts[name] = n
	if strings.ContainsAny(name, "*?") {
		c.book.patterns = append(c.book.patterns, hostPattern{name, n})
	}
	return n
}

func (c *compiler) tag(t hostTag) number {
	n, ok := c.book.tags[t]
	if !ok {
		n = c.add(term{}, no)
		c.book.tags[t] = n
	}
	return n
}
