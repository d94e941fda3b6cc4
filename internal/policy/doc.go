// Package policy decides who may log in where, as what. It is pure: rules and
// facts go in, a Decision that names the deciding rule comes out. It does no
// I/O, reads no clock, and knows neither rows nor wires.
//
// The model is that of Cloudflare Access. An Application stands for hosts, by
// criteria on their names, tags and ports, and has policies in an order. A
// Policy says whom it includes (any rule is enough), what it requires (every
// rule) and whom it excludes (no rule may match), and as which logins it lets
// them in. A Group is such an expression with a name. Who is let in by no
// policy is not let in.
//
//	book := policy.Compile(model)  // once for each state of the rows
//	d := book.Decide(policy.Request{Who: who, Host: host, Login: "deploy"})
//	if !d.Allowed {
//		return trust.Errorf(trust.Denied, "%s", d.Why)
//	}
//
// # What cannot be told never helps
//
// A rule may be of a kind that Keyturn stores for others and cannot decide, such
// as a device's posture; it may name a group that is not there; or what it asks
// for may not be known of who asks, such as the address that they come from.
// Then it neither holds nor fails: it is unknown, in the three-valued logic of
// Kleene. A policy that lets somebody in does so only where it surely applies;
// one that denies does so wherever it may apply. So a rule that cannot be told
// includes nobody; where it is required, nobody has it; and where it is
// excluded, everybody might be, so that the policy lets nobody in.
//
// # How it is fast
//
// Compile gives each different condition a number, whatever many policies name
// it, and notes which policies each can matter to. Decide looks up which conditions
// hold of one request, which costs as much as there are facts in it, and reads only
// the applications and policies that these lead to, as lists of numbers.
package policy
