// Package remote is one host's hands: everything that Keyturn reads or changes on
// somebody else's server goes through a [Host], which speaks to it over a
// connection that package dial has made.
//
// What can be asked of a host is a short table of ops, each one fixed shell script;
// ops.go is their page. What is promised:
//
//   - A file is changed under a lock that every controller sees, only if it still
//     is what was read, all at once and durably, with everything about it kept that
//     is not its content ([Host.Edit]).
//   - A line that another program appends meanwhile is not lost.
//   - The private key and the public half of an identity change in an order in which
//     each state alone logs in ([Host.Install]).
//   - Which sshd serves us, and what it is configured to do, is asked of that sshd
//     ([Host.Sshd], [Host.Config]), never assumed.
//   - Nothing acts as root where somebody else could lead it astray, and nothing
//     stays behind once the lock is given back.
//
// A Hook is called before and after every effect.
package remote
