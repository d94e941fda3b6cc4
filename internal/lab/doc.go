// Package lab runs throw-away SSH servers: real sshd processes of the current
// user on loopback, for the demo, for tests and for benchmarks. Nothing on the
// machine is configured for it and nothing of it stays; root is not needed.
//
//	s, err := lab.Start(ctx, t.TempDir(), lab.Options{Name: "web1"})
//	err = s.Authorize(publicKey)             // one more line of authorized_keys
//	...                                      // log in to s.Address() as s.User()
//	e, err := s.Log().Await(ctx, 0, lab.AcceptedBy(publicKey.Fingerprint()))
//
// Every Server is a "host" of its own as far as one user's processes can make
// one: it has its own host key, its own sshd_config, its own authorized_keys
// files and its own home directory, all below one directory that the caller
// names and removes. All of them are logins of the same user of one machine;
// what needs several accounts, root's view, several addresses or a full disk
// needs the hosts in namespaces of test/lab.
//
// # What a session sees
//
// A session's HOME is [Server.Home], not the user's own home directory, so that
// "~/.ssh" is a different one on every Server and the real one is never read or
// written. The working directory that sshd starts a session in, and what the
// account database says, still are the real home: scripts must say "$HOME" or
// "~".
//
// # Hosts that fail
//
// [Server.Kill] takes the server and every session on it away at once, as a
// power cut would, and [Server.Restart] brings it back at the same address with
// the same files. [Server.Freeze] makes it accept connections and say nothing.
// [Server.Lie] makes it go on honoring the authorized keys of that moment
// whatever is written to the files later.
//
// # Host keys that change
//
// A [Gateway] is no sshd: it presents host keys and announces others, as it is told, for
// clients to learn.
//
// # What is left behind
//
// Servers end with their context, and on Linux also when the process that
// started them dies of whatever cause, kill -9 included: each is started from an
// operating system thread of its own that lives exactly as long as it, and the
// kernel ends it with that thread (PR_SET_PDEATHSIG, prctl(2)). Sessions end as
// their connections do. On other systems a killed parent leaves its servers.
package lab
