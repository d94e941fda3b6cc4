// Package dial makes one SSH connection to one pinned host, and answers the two
// questions that rotation lives on: does this key log in there, and is that one
// refused.
//
//	conn, err := dial.Dial(ctx, target, credentials)  // for work: see Conn.Run
//	outcome, err := dial.Prove(ctx, target, signer)   // a login, no channel
//	still, err := dial.Disprove(ctx, target, old, good)
//
// # What is promised
//
// A host is believed only if it proves a host key that the caller has pinned;
// before that, no user name, key or password is sent. Only algorithms that are
// sound today are spoken: RSA signs with SHA-2 or not at all. Every phase (TCP,
// identification string, key exchange, authentication) has a time of its own, and
// the end of the context closes the socket at once.
//
// An error has the kind Unavailable for what may work later (no answer, reset,
// a server that is full or that penalises this address), Denied where the server
// answered every credential with no, Conflict where the host has another key than
// the pinned ones, Invalid for what never works. Two carry data for errors.As:
// [*RefusedError] and [*HostKeyError].
//
// # Gentleness
//
// A server counts its connections and failures: MaxAuthTries (6 by default) within
// a connection, and from OpenSSH 9.8 on PerSourcePenalties across connections, so
// that four failed logins shut the prober's address out, valid keys included. So
// all credentials are offered on one connection as long as the server lets us, and
// a probe that is meant to fail is followed on the same connection by one that
// succeeds, which leaves no trace. A key of which only the public half is at hand
// is offered as a query (RFC 4252, section 7).
package dial
