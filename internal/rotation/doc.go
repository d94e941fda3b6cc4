// Package rotation holds the order in which trust changes hands: the tables of
// steps by which a user key is rotated, taken back and retired on real hosts.
//
// # What is promised
//
// Let R be the pairs (identity place, authorized place) of a plan for which the
// old key logs in when the run starts; row Baseline proves it, or records why
// not and leaves that place untouched. At every instant of the run, forward,
// backward or crashed, and for every pair in R whose two hosts are up, a login
// with one read of the bytes that the identity file holds at that instant
// succeeds. Copies of the old key that nobody told us of stay accepted until
// row Withdraw, which waits for Soak and for no unexplained use of the old key.
//
// # The table
//
//	Baseline   places       old works, or why not; what the host can do; its locks are ours
//	Generate   once         the new key is durable before its public half goes anywhere
//	Authorize  authorized   new line after each old line, options byte for byte    group "add": per wave
//	Prove      authorized   a login with the new key                               group "add"
//	Recheck    once         the plan still names every place that holds the old key
//	Install    identities   the new private half, by an order in which each state logs in
//	Confirm    identities   the file holds the new key; a login from there
//	Soak       once         time passed, and the plan still holds
//	Reconfirm  identities   the file still holds the new key
//	Reprove    authorized   new still works; no unexplained use of old             group "drop": per wave
//	Withdraw   authorized   removes old, if new stands in the bytes it replaces    group "drop"
//	                        and no identity file holds old again
//	Disprove   authorized   old is refused, in a connection that ends in success   group "drop"
//	Archive    once         old's halves go to the rotated inventory
//	Release    places       locks and what else we left on the host
//
// Of a key that is its owner's alone, the owner makes the successor, supplies its
// public half, and puts the private half where he needs it. The rows are the same;
// Soak ends when he has been seen to use the new key, and not the old one: see supply.go.
//
// # Going back
//
// Until row Install begins, going back is undoing: it takes away exactly what
// the journal says that this run added. From then on, and for a finished run,
// going back is this same table with old and new exchanged, planned from the
// journal: it proves before it touches, and soaks. There is no third way.
package rotation
