// Package sim simulates hosts by the thousand, within one process, for tests and
// benchmarks: each is a real SSH server on loopback that answers what
// internal/remote asks of a host, from an account database and a file system in
// memory. No shell is run.
//
//	fleet, err := sim.Listen(ctx)
//	web1, err := fleet.Add(sim.Options{Name: "web1"})
//	err = web1.Authorize("deploy", key, `from="127.0.0.1"`)
//	...                                     // log in to web1.Address() as deploy
//	web1.Drop("swap", sim.AfterEffect)      // one fault
//
// All hosts of a fleet share one listening socket: the n-th has the n-th address
// of 127.0.0.0/8 from 127.1.0.1 on, and a connection is for the host that it was
// made to. That whole network is the machine's own on Linux only.
//
// # What is modelled
//
// A host has a host key of its own; root and other accounts with homes, and sudo
// without a password where an account has it; files and directories with inodes,
// hard links, owners, permission bits and times; the check of rights of every
// system call; and the ops of internal/remote, each as one function that bears the
// op's name and makes the same changes in the same order. It lets a key in as the
// sshd does that it says it is: by internal/trust's reading of authorized_keys,
// which the tests here hold against a real sshd, and by the owners and modes that
// StrictModes looks at. That the ops agree with the shell scripts is a test of
// internal/remote, which plays the same calls on both and compares.
//
// A disk keeps what was synced. What was not is all lost when the power goes, the
// worst that a file system may do; CutPower takes the power away between any two
// changes.
//
// # What is not
//
// There are no symbolic links, ACLs, mounts, attributes and special files, no
// passwords, no PAM, no Match blocks. An op is one step of its host: races within
// one are the business of the tests of internal/remote, which run the scripts.
// The op generate is missing, and answers as a shell does that fails. A login from
// one host to another (op login) is made by this process, from the host's own
// address, over the network: it reaches simulated and real servers alike.
package sim
