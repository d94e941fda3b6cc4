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
//     one that it requires, whichever fewer policies have.
//
// Expressions have one order for this: those of derived conditions, of criteria, and of
// policies.
type index struct {
	criterion0, policy0, end int

	includers, keyed table
	// Of each kind of which it may not be known what holds, what its conditions are
	// included by.
	ofKinds map[Kind]bitSet
	// What may include or apply by the conditions that hold of everybody, or of which
	// nobody can ever tell.
	include, apply bitSet
	// deny are the policies that deny.
	deny bitSet
}

// indexed returns the index of what was compiled.
func (b *Rulebook) indexed() index {
	x := index{criterion0: len(b.derived), policy0: len(b.derived) + len(b.criteria), ofKinds: map[Kind]bitSet{}}
	x.end = x.policy0 + len(b.policies)
	x.include, x.apply, x.deny = newBitSet(x.end), newBitSet(x.end), newBitSet(x.end)

	includers, keyed := make([][]int32, len(b.terms)), make([][]int32, len(b.terms))
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
		if p.action == Deny {
			x.deny.add(int32(x.policy0 + i))
		}
	}
	for n, at := range b.start {
		if at != no {
			x.include.add(includers[n]...)
		}
		if at == yes {
			x.apply.add(keyed[n]...)
		}
	}
	for kind, list := range b.ofKind {
		x.ofKinds[kind] = newBitSet(x.end)
		for _, n := range list {
			x.ofKinds[kind].add(includers[n]...)
		}
	}
	x.includers, x.keyed = newTable(includers), newTable(keyed)
	return x
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
	book  *Rulebook
	holds []truth // of each condition
	// What may include, and what may apply.
	include, apply bitSet
}

func (b *Rulebook) newView() *view {
	return &view{book: b, holds: slices.Clone(b.start), include: slices.Clone(b.include), apply: slices.Clone(b.apply)}
}

// set says that a condition holds, or that nobody can tell.
func (v *view) set(n number, t truth) {
	v.holds[n] = t
	v.include.add(v.book.includers.of(n)...)
	if t == yes {
		v.apply.add(v.book.keyed.of(n)...)
	}
}

// untold says that nobody can tell of the conditions of a kind.
func (v *view) untold(kind Kind) {
	for _, n := range v.book.ofKind[kind] {
		v.holds[n] = unknown
	}
	v.include.addAll(v.book.ofKinds[kind])
}

// askDenials says that every policy may apply that denies and may include who asks:
// those deny where nobody can tell, too.
func (v *view) askDenials() {
	for i, word := range v.book.deny {
		v.apply[i] |= word & v.include[i]
	}
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
