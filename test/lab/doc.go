// Package lab boots hosts: machines with accounts, an SSH server and a network,
// each in Linux namespaces of its own, in a tenth of a second. Tests use them where
// one user's processes on loopback, which internal/lab runs, are not enough:
// several accounts, root and sudo, other releases of OpenSSH, a power cut, a full
// disk, a second source address, systemd.
//
// A package whose tests boot hosts has
//
//	func TestMain(m *testing.M) { lab.Main(m) }
//
// and a test is
//
//	w := lab.NewWorld(t)
//	h := w.Boot(t, lab.Spec{Name: "web1", Users: []lab.User{
//		{Name: "alice", Shell: "bash", Become: "sudo", AuthorizedKeys: []string{line}},
//	}})
//	... log in to h.Address() as alice; h.HostKeys() are its host keys ...
//	h.Sh(t, "sshd -T | grep -i authorizedkeysfile") // as root on the host
//	e, err := h.Log().Await(ctx, before, ...)       // which key, which line
//	h.PowerCut()
//
// The tests run in the same network, at 10.99.0.1, so that they talk to hosts by
// the code under test and by the machine's ssh alike.
//
// # Nothing outlives a test
//
// [Main] runs the whole test binary again inside namespaces of its own: network,
// mounts, processes, names. All that a test makes is in there, and the kernel takes
// it away when the binary ends, in whatever way. There is no code that cleans up
// after a test that was killed, and none is needed. Files that a test sees are the
// machine's, but for /srv, which holds the hosts; /proc shows the world only. There
// is no way to other networks; Unix sockets, such as a database's, stay within
// reach.
//
// The one exception is a host with systemd, whose control groups, empty
// directories, stay where the machine keeps its own until the next run.
//
// # What a host is
//
// Its files are an overlay: below, a [Root], shared and never written; above, a
// memory disk of its own, which a power cut does not lose. /home is a small disk of
// its own. Processes, mounts, host name, network card and system log are the
// host's; the kernel, its clock and its modules are the machine's. The configuration
// of the server is Debian's, with LogLevel VERBOSE, without the one key exchange that
// takes an eighth of a second of ssh's, and with what a [Spec] says.
//
// An account is usable at once: its password field is "*", not the "!" of useradd,
// which locks it. Every host has host keys and a machine-id of its own.
//
// # What it needs
//
// Linux, root, and the packages that scripts/deps installs. Without root, or where
// the machine does not allow namespaces, tests are skipped and say so; with
// KEYTURN_CI=1 they fail. Root file systems other than the machine's own are made
// once, by scripts/lab-roots or by the first test that needs one, see [CacheDir].
package lab
