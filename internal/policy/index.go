package policy

import (
	"math/bits"
	"slices"
)

// Most of what a rulebook has is not about who asks or where. An index finds the rest
// from what holds of a request, so that little else is read:
//
//   - what may include: derived conditions, criteria and policies that include a
//     condition which holds, or of which nobody can tell;
//   - what may apply: policies of which a key holds. The keys of a policy are
//     conditions one of which has to hold for it to apply: all that it includes, or
//     one that it requires, whichever fewer policies have;
//   - what lets nobody in: policies that exclude a condition which holds, or of which
//     nobody can tell.
//
// Expressions have one order for this: those of derived conditions, of criteria, and of
// policies.
type index struct {
	criterion0, policy0, end int

	includers, keyed, excluders table
	// Of each kind of which it may not be known what holds, what its conditions are
	// included and excluded by.
	ofKinds map[Kind]kindSets
	// What may include, may apply, or lets nobody in, by the conditions that hold of
	// everybody, or of which nobody can ever tell.
	include, apply, barred bitSet
	// deny are the policies that deny; people and machines those that let in people, and
	// who has a service token or a certificate; alias those that may let in by an address.
	deny, people, machines, alias bitSet
	// ofLogin are the policies that name a login.
	ofLogin map[string][]int32
}

type kindSets struct{ includers, excluders bitSet }

// indexed returns the index of what was compiled.
func (b *Rulebook) indexed() index {
	x := index{criterion0: len(b.derived), policy0: len(b.derived) + len(b.criteria), ofKinds: map[Kind]kindSets{}, ofLogin: map[string][]int32{}}
	x.end = x.policy0 + len(b.policies)
	for _, s := range []*bitSet{&x.include, &x.apply, &x.barred, &x.deny, &x.people, &x.machines, &x.alias} {
		*s = newBitSet(x.end)
	}

	includers, keyed, excluders := make([][]int32, len(b.terms)), make([][]int32, len(b.terms)), make([][]int32, len(b.terms))
	add := func(of [][]int32, list []number, expression int) {
		for _, n := range list {
			of[n] = append(of[n], int32(expression))
		}
	}
	for i, d := range b.derived {
		add(includers, b.included(&d.expression), i)
	}
	for i := range b.criteria {
		add(includers, b.included(&b.criteria[i].expression), x.criterion0+i)
	}
	users := b.users()
	for i := range b.policies {
		p := &b.policies[i]
		add(includers, b.included(&p.expression), x.policy0+i)
		add(keyed, b.keys(&p.expression, users), x.policy0+i)
		add(excluders, b.numbers[p.exclude:p.end], x.policy0+i)
		x.lets(int32(x.policy0+i), p.action, &b.details[i])
	}
	for n, at := range b.start {
		if at != no {
			x.include.add(includers[n]...)
			x.barred.add(excluders[n]...)
		}
		if at == yes {
			x.apply.add(keyed[n]...)
		}
	}
	for kind, list := range b.ofKind {
		sets := kindSets{newBitSet(x.end), newBitSet(x.end)}
		for _, n := range list {
			sets.includers.add(includers[n]...)
			sets.excluders.add(excluders[n]...)
		}
		x.ofKinds[kind] = sets
	}
	x.includers, x.keyed, x.excluders = newTable(includers), newTable(keyed), newTable(excluders)
	return x
}

// lets notes whom a policy lets in, as whom.
func (x *index) lets(policy int32, action Action, about *detail) {
	switch action {
	case Deny:
		x.deny.add(policy)
		return
	case Allow:
		x.people.add(policy)
	default:
		x.machines.add(policy)
	}
	for _, login := range about.logins {
		x.ofLogin[login] = append(x.ofLogin[login], policy)
	}
	if len(about.addressed) > 0 {
		x.alias.add(policy)
	}
}

// users returns how many policies name each condition in what they include or require;
// of one that holds of everybody, all.
func (b *Rulebook) users() []int {
	users := make([]int, len(b.terms))
	for i := range b.policies {
		for _, n := range b.numbers[b.policies[i].include:b.policies[i].exclude] {
			users[n]++
		}
	}
	for n, at := range b.start {
		if at == yes {
			users[n] = len(b.policies)
		}
	}
	return users
}

// keys returns conditions one of which has to hold if an expression does.
func (b *Rulebook) keys(e *expression, users []int) []number {
	keys, most := b.included(e), 0
	for _, n := range keys {
		most += users[n]
	}
	for i := e.require; i < e.exclude; i++ {
		if n := b.numbers[i]; users[n] < most {
			keys, most = b.numbers[i:i+1], users[n]
		}
	}
	return keys
}

func (b *Rulebook) included(e *expression) []number { return b.numbers[e.include:e.require] }

// A view is what is known of a request.
type view struct {
	book    *Rulebook
	request Request
	holds   []truth // of each condition
	// What may include, may apply, or lets nobody in.
	include, apply, barred bitSet
	// nearer has every policy that may come nearer to letting in than one did.
	nearer bitSet
	// alias is the login that policies may give who asks by an address, or "".
	alias string
}

func (b *Rulebook) newView(r Request) *view {
	return &view{
		book: b, request: r, holds: slices.Clone(b.start),
		include: slices.Clone(b.include), apply: slices.Clone(b.apply), barred: slices.Clone(b.barred),
		alias: alias(r.Who.Email),
	}
}

// set says that a condition holds, or that nobody can tell.
func (v *view) set(n number, t truth) {
	v.holds[n] = t
	v.include.add(v.book.includers.of(n)...)
	v.barred.add(v.book.excluders.of(n)...)
	if t == yes {
		v.apply.add(v.book.keyed.of(n)...)
	}
}

// untold says that nobody can tell of the conditions of a kind.
func (v *view) untold(kind Kind) {
	for _, n := range v.book.ofKind[kind] {
		v.holds[n] = unknown
	}
	sets := v.book.ofKinds[kind]
	v.include.addAll(sets.includers)
	v.barred.addAll(sets.excluders)
}

// settle leaves in apply what may let in or deny, once it is known which conditions hold.
// Every policy may that denies and may include who asks: those deny where nobody can
// tell, too.
func (v *view) settle() {
	v.apply.removeAll(v.barred)
	for i, word := range v.book.deny {
		v.apply[i] |= word & v.include[i]
	}
}

// passOver leaves no policy in nearer that comes to a stage at best.
func (v *view) passOver(at stage) {
	v.nearer = slices.Clone(v.apply)
	if at < unfit {
		v.nearer.addAll(v.include)
	}
	if at >= unmanned {
		v.nearer.keep(v.meant())
	}
	if at >= unnamed && !v.request.AnyLogin {
		v.nearer.keep(v.named())
	}
	if at >= denied {
		v.nearer.removeAll(v.book.deny)
	}
}

// meant returns the policies that deny, or are for such as ask.
func (v *view) meant() bitSet {
	s := slices.Clone(v.book.deny)
	if v.request.Who.IsPerson() {
		s.addAll(v.book.people)
	}
	if v.request.Who.isMachine() {
		s.addAll(v.book.machines)
	}
	return s
}

// named returns the policies that deny, or may be for the login that is asked for.
func (v *view) named() bitSet {
	s := slices.Clone(v.book.deny)
	s.add(v.book.ofLogin[v.request.Login]...)
	if v.request.Login == v.alias {
		s.addAll(v.book.alias)
	}
	return s
}

// A table has a list of expressions for each condition, one after the other.
type table struct {
	lists []int32
	ends  []int32
}

func newTable(lists [][]int32) (t table) {
	for _, list := range lists {
		t.lists = append(t.lists, list...)
		t.ends = append(t.ends, int32(len(t.lists)))
	}
	return t
}

func (t *table) of(n number) []int32 {
	if n == 0 {
		return t.lists[:t.ends[0]]
	}
	return t.lists[t.ends[n-1]:t.ends[n]]
}

// A bitSet is a set of numbers below a bound.
type bitSet []uint64

func newBitSet(end int) bitSet { return make(bitSet, (end+63)/64) }

func (s bitSet) add(list ...int32) {
	for _, i := range list {
		s[i>>6] |= 1 << (i & 63)
	}
}

func (s bitSet) addAll(other bitSet) {
	for i, word := range other {
		s[i] |= word
	}
}

func (s bitSet) removeAll(other bitSet) {
	for i, word := range other {
		s[i] &^= word
	}
}

func (s bitSet) keep(other bitSet) {
	for i, word := range other {
		s[i] &= word
	}
}

// next returns the least element of s that is not below from, or end where none is
// below that.
func (s bitSet) next(from, end int) int {
	for i := from; i < end; i = (i | 63) + 1 {
		if rest := s[i>>6] >> (i & 63); rest != 0 {
			return min(i+bits.TrailingZeros64(rest), end)
		}
	}
	return end
}
