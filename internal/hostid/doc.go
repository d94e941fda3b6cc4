// Package hostid knows by which host keys a tenant's gateway is known, and
// changes them without a warning in front of anybody who could be told in time.
//
// A gateway stands in front of hosts and shows a host key of its own for each of
// them. None of these keys is stored: they are derived from a seed (see keyring)
// and the host's id. So what changes in a rotation is one thing, the seed, and
// this package owns the table of seeds, the rules by which one takes the place of
// another, and the procedure that follows them. It does not know hosts, and it
// does not speak SSH: who does, asks it which seed to present and which to
// announce besides.
//
// # Phases
//
// A client learns another key of a host that it knows only from that host, by
// hostkeys-00@openssh.com, in a connection in which the host presents a key that
// the client knows already. So a rotation has three phases:
//
//	present-old   the old keys are presented, both are announced   seed.overlap
//	present-new   the new keys are presented, both are announced   seed.overlap
//	settled       the new keys are presented and announced
//
// Whoever knew the host and connects in the first phase knows both keys from then
// on. The second is for nodes: a gateway node takes the phase with its lease, and
// one that has not heard yet of the second phase still presents the old keys,
// which clients of the other nodes therefore must not forget. That is why
// seed.overlap has to be longer than gateway.lease.
//
// From this follow the rules. Nothing is presented that was not announced without
// a break for seed.overlap before. Nothing that was presented ceases to be
// announced earlier than seed.overlap after that. There are at most two seeds in
// play, so a rotation that is asked for meanwhile waits for the end of the one
// before, except while the new keys have not been presented to anybody: then
// another new seed takes the place of the new one, and the first phase begins
// anew. Going back is a rotation to the old seed, by the same rules.
//
// The one exception is a seed that somebody else may have: all that was ever
// shown is revoked and a new seed presented, at once. Every client is warned
// then, and should be.
//
// A client that trusts a certificate authority needs none of this: [Certify] gives each
// key, when somebody asks, a certificate that is good for its one name.
//
// [Seeds] holds these rules as functions of rows and the time, without a database
// or a clock. [Procedures] are the runs that apply them: each phase begins with a
// commit, so that a run which is paused stays in its phase, and one that is late
// makes its phase longer, which does no harm.
package hostid
