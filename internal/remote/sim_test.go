package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/dial"
	"keyturn/internal/lab"
	"keyturn/internal/lab/sim"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// This file holds the simulator of internal/lab/sim against the real thing: the
// same calls are made on a real sshd, where the ops are shell scripts, and on a
// simulated host, and whatever is answered and left behind must be the same.

// A twin is one of the two hosts that a play is played on.
type twin struct {
	t                             *testing.T
	h                             *Host
	address, user, home, keysFile string
	pins                          []trust.PublicKey
	private                       []byte // opens the account
	write                         func(path, data string, mode uint32)
	link                          func(file, name string)
	open                          func(path string) (appendTo func(text string))
	mkdir                         func(path string)
	tree                          func() []string
	transcript                    strings.Builder
}

// at returns a path in the .ssh directory.
func (w *twin) at(name string) string { return filepath.Join(w.home, ".ssh", name) }

// says writes down what a call returned.
func (w *twin) says(what string, err error, values ...any) {
	fmt.Fprintf(&w.transcript, "%s:", what)
	for _, v := range values {
		fmt.Fprintf(&w.transcript, " %s", v)
	}
	if err != nil {
		fmt.Fprintf(&w.transcript, " [%v] %v", trust.KindOf(err), err)
		var locked *LockedError
		if errors.As(err, &locked) {
			fmt.Fprintf(&w.transcript, " by %+v", locked.By)
		}
	}
	w.transcript.WriteByte('\n')
}

// raw runs one op and writes down its answer, but for what is the disk's own.
func (w *twin) raw(what string, o op, stdin string, args ...string) {
	lines, err := w.h.run(w.t.Context(), call{op: o, nonce: strings.Repeat("f", 32), args: args, stdin: []byte(stdin)})
	fmt.Fprintf(&w.transcript, "%s:\n", what)
	for _, l := range lines {
		switch l.word {
		case "up", "dev", "df", "dfi", "mount", "attr":
			continue
		case "ls":
			ls, ok := parseListing(l.rest)
			if !ok {
				w.t.Errorf("%q is no listing", l.rest)
			}
			l.rest = fmt.Sprintf("%s %d:%d", ls.mode, ls.uid, ls.gid)
			if l.word == "ls" {
				l.rest += fmt.Sprintf(" %d links %d bytes", ls.links, ls.size)
			}
		}
		fmt.Fprintf(&w.transcript, "\t%s %s %q\n", l.word, l.rest, l.block)
	}
	if err != nil {
		fmt.Fprintf(&w.transcript, "\t%v\n", err)
	}
}

func (w *twin) edit(what string, l Lock, path string, e Edit) {
	c, err := w.h.Edit(w.t.Context(), l, w.user, path, e)
	w.says(what, err, fmt.Sprintf("%q %q %s created %v merged %q", c.Before, c.After, c.SHA256, c.Created, c.Merged))
}

func (w *twin) release(what string, l Lock, path string) {
	w.says(what, w.h.Release(w.t.Context(), l, w.user, path))
}

// look writes down everything that lies in the home.
func (w *twin) look() {
	list := w.tree()
	for i, l := range list {
		list[i] = w.normal(l)
	}
	slices.Sort(list)
	fmt.Fprintf(&w.transcript, "%s\n", strings.Join(list, "\n"))
}

var (
	attempts    = regexp.MustCompile(`\.[0-9a-f]{16}([0-9a-f]{8})?\b`)
	directories = regexp.MustCompile(`\d+ (d[rwx-]{9}) \d+ (\d+ \d+) \d+ \w+ +\d+ [\d:]+`) // of ls -ldin
	groups      = regexp.MustCompile(`(?m)^(\t?)groups [ \d"]*$`)
)

// normal returns text without what cannot be the same on two hosts.
func (w *twin) normal(text string) string {
	text = strings.ReplaceAll(text, w.home, "HOME")
	text = strings.ReplaceAll(text, w.address, "ADDRESS")
	text = groups.ReplaceAllString(text, "${1}groups")
	return attempts.ReplaceAllString(directories.ReplaceAllString(text, "$1 $2"), ".TOKEN")
}

func realTwin(t *testing.T, id IdentityFiles) *twin {
	s, err := lab.Start(t.Context(), t.TempDir(), lab.Options{Name: "web1"})
	if trust.KindOf(err) == trust.NotFound {
		need.Skip(t, "%v", err)
	}
	must(t, err)
	t.Cleanup(s.Close)
	w := &twin{t: t, address: s.Address(), user: s.User(), home: s.Home(), keysFile: s.AuthorizedKeysFiles()[0], pins: []trust.PublicKey{s.HostKey()}}
	w.write = func(path, data string, mode uint32) {
		must(t, os.WriteFile(path, []byte(data), 0o600))
		must(t, os.Chmod(path, fs.FileMode(mode)))
	}
	w.link = func(file, name string) { must(t, os.Link(file, name)) }
	w.mkdir = func(path string) { must(t, os.Mkdir(path, 0o755)) }
	w.open = func(path string) func(string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		t.Cleanup(func() { _ = f.Close() })
		return func(text string) { _, err := f.WriteString(text); must(t, err) }
	}
	w.tree = func() (list []string) {
		must(t, filepath.WalkDir(w.at(""), func(path string, d fs.DirEntry, err error) error {
			must(t, err)
			info, err := d.Info()
			must(t, err)
			data := ""
			if !d.IsDir() {
				data = content(t, path)
			}
			stat := info.Sys().(*syscall.Stat_t)
			list = append(list, fmt.Sprintf("%s %s %d:%d %s", path, info.Mode(), stat.Uid, stat.Gid, data))
			return nil
		}))
		return list
	}
	w.connect(id)
	return w
}

// simTwin returns a simulated host that is like a real one.
func simTwin(t *testing.T, id IdentityFiles, like *twin) (*twin, *sim.Host) {
	fleet, err := sim.Listen(t.Context())
	must(t, err)
	t.Cleanup(fleet.Close)
	host, err := fleet.Add(sim.Options{
		Name: "web1", AuthorizedKeysFile: like.keysFile, NoStrictModes: true,
		Accounts: []sim.Account{{User: like.user, UID: os.Getuid(), GID: os.Getgid(), Home: like.home}},
	})
	must(t, err)
	w := &twin{t: t, address: host.Address(), user: like.user, home: like.home, keysFile: like.keysFile, pins: []trust.PublicKey{host.HostKey()}}
	w.write = func(path, data string, mode uint32) { must(t, host.Write(w.user, path, []byte(data), mode)) }
	w.link = func(file, name string) { must(t, host.Link(file, name)) }
	w.mkdir = func(path string) { must(t, host.Mkdir(w.user, path, 0o755)) }
	w.open = func(path string) func(string) {
		appendTo, err := host.Open(path)
		must(t, err)
		return func(text string) { must(t, appendTo(text)) }
	}
	w.tree = func() (list []string) {
		for path, text := range host.Files(filepath.Join(w.home, ".ssh")) {
			list = append(list, path+" "+text)
		}
		return list
	}
	w.connect(id)
	return w, host
}

func (w *twin) connect(id IdentityFiles) {
	key, _, err := id.Key()
	must(w.t, err)
	w.private = id.Private
	w.write(w.keysFile, key.String()+" mine\n", 0o600)
	signer, err := ssh.ParsePrivateKey(id.Private)
	must(w.t, err)
	conn, err := dial.Dial(w.t.Context(), dial.Target{Address: w.address, User: w.user, Pins: w.pins}, []dial.Credential{dial.KeyCredential("k", signer)})
	must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	w.h, err = Open(w.t.Context(), conn, "web1", None, nil)
	must(w.t, err)
}

// Who must not act, and who comes later.
var (
	stranger = Lock{Installation: "elsewhere", Epoch: 9, Run: "run-1"}
	another  = Lock{Installation: "home", Epoch: 9, Run: "run-2"}
	later    = Lock{Installation: "home", Epoch: 5, Run: "run-1"}
)

// plays are what the twins are compared by, each on hosts of its own. next is a
// second identity.
func plays(id, next IdentityFiles) map[string]func(w *twin) {
	remove := func(text string) Edit {
		return func(old []byte) ([]byte, error) { return bytes.ReplaceAll(old, []byte(text), nil), nil }
	}
	return map[string]func(w *twin){
		"edit": func(w *twin) {
			w.write(w.at("keys"), "one\r\n\ntwo", 0o644)
			w.edit("append", mine, w.at("keys"), add("three"))
			w.look()
			w.edit("the same again", mine, w.at("keys"), add("three"))
			w.edit("remove", mine, w.at("keys"), remove("one\r\n"))
			w.edit("everything", mine, w.at("keys"), func([]byte) ([]byte, error) { return []byte{}, nil })
			w.look()
			w.release("release", mine, w.at("keys"))
			w.release("release again", mine, w.at("keys"))
			w.edit("create", mine, w.at("a/b/keys"), add("one"))
			w.look()
			w.release("release", mine, w.at("a/b/keys"))
			w.release("where there is no directory", mine, w.at("c/keys"))
			w.look()
		},
		"refusals": func(w *twin) {
			w.write(w.at("keys"), "one\n", 0o600)
			w.says("hold absent", w.h.Hold(w.t.Context(), mine, w.user, w.at("none")))
			w.says("hold in no directory", w.h.Hold(w.t.Context(), mine, w.user, w.at("no/keys")))
			w.says("hold", w.h.Hold(w.t.Context(), mine, w.user, w.at("keys")))
			w.edit("another installation", stranger, w.at("keys"), add("two"))
			w.edit("another run", another, w.at("keys"), add("two"))
			w.release("another run releases", another, w.at("keys"))
			w.look()
			f, others, err := w.h.HoldFile(w.t.Context(), later, w.user, w.at("keys"), []string{w.at("none"), w.at("keys")})
			w.says("a later epoch", err, fmt.Sprintf("%q %s %v %q %v %v", f.Content, f.SHA256, f.Fixed, others[1].Content, others[0].Absent, others[1].Absent))
			w.edit("the earlier epoch", mine, w.at("keys"), add("two"))
			w.release("the earlier epoch releases", mine, w.at("keys"))
			w.edit("the later epoch", later, w.at("keys"), add("two"))
			w.look()
			w.release("release", later, w.at("keys"))
			w.link(w.at("keys"), w.at("more"))
			w.edit("two names", mine, w.at("keys"), add("three"))
			w.mkdir(w.at("dir"))
			w.edit("a directory", mine, w.at("dir"), add("one"))
			w.look()
		},
		"two writers": func(w *twin) {
			w.write(w.at("keys"), "one\n", 0o600)
			appendTo := w.open(w.at("keys"))
			w.edit("edit", mine, w.at("keys"), add("two"))
			appendTo("theirs\n")
			w.look()
			w.edit("merge", mine, w.at("keys"), add("three"))
			appendTo("late\n")
			w.release("merge and release", mine, w.at("keys"))
			w.look()
			old := w.open(w.at("keys"))
			w.edit("edit", mine, w.at("keys"), func(old []byte) ([]byte, error) {
				if bytes.Contains(old, []byte("four")) {
					return old, nil
				}
				w.write(w.at("keys"), string(old)+"between\n", 0o600)
				return append(old, "four\n"...), nil
			})
			w.look()
			old("too late\n")
			w.raw("swap over a pending one", opSwap, "x", filepath.Dir(w.at("x")), "keys", "home", "3", "run-1", "t", "a.1", "b.1", "600", "0", "0", "100", strings.Repeat("f", 32), "-")
		},
		"ops": func(w *twin) {
			dir, nonce := filepath.Dir(w.at("x")), strings.Repeat("f", 32)
			w.write(w.at("keys"), "one\n", 0o640)
			hold := func(what, path, create, epoch, token, want string) {
				w.raw(what, opHold, "", path, create, "home", epoch, "run-1", token, nonce, "100", want)
			}
			swap := func(what, token, old, next, bytes string, merged ...string) {
				args := append([]string{dir, "keys", "home", "3", "run-1", token, old, next, "600", strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getgid()), "100", nonce, "-"}, merged...)
				w.raw(what, opSwap, bytes, args...)
			}
			one, two := hexSum([]byte("one\n"))+".4", hexSum([]byte("two\n"))+".4"
			swap("swap without a lock", "a", one, two, "two\n")
			hold("hold", w.at("keys"), "-", "3", "a", "content")
			hold("hold again", w.at("keys"), "-", "3", "b", "sum")
			swap("swap of an attempt that was fenced off", "a", one, two, "two\n")
			swap("short", "b", one, two, "tw")
			swap("changed", "b", two, one, "one\n")
			swap("must be absent", "b", "-", two, "two\n")
			swap("no change of what is not there", "b", two, two, "")
			swap("no change", "b", one, one, "")
			w.look()
			appendTo := w.open(w.at("keys"))
			swap("swap", "b", one, two, "two\n")
			w.look()
			appendTo("more\n")
			prev := "prev." + one + ".b"
			swap("pending", "b", two, one, "one\n")
			w.raw("release pending", opRelease, "", w.at("keys"), "home", "3", "run-1", "100", nonce)
			hold("hold pending", w.at("keys"), "-", "4", "c", "sum")
			swap("superseded", "b", two, one, "one\n", prev, "prev.x.1.b")
			w.raw("release by the earlier", opRelease, "", w.at("keys"), "home", "3", "run-1", "100", nonce)
			w.raw("release", opRelease, "", w.at("none"), "home", "3", "run-1", "100", nonce)
			w.raw("swap, merged", opSwap, "one\n", dir, "keys", "home", "4", "run-1", "c", two, one, "600", "0", "0", "100", nonce, "-", prev, "prev."+hexSum([]byte("one\nmore\n"))+".9.c")
			w.look()
			w.raw("release", opRelease, "", w.at("keys"), "home", "4", "run-1", "100", nonce)
			w.raw("read", opRead, "", nonce, "100", "", "content", w.at("keys"), "content", w.at("none"), "content", w.at("no/file"), "content", w.at(""), "content", dir)
			w.raw("read little", opRead, "", nonce, "2", "", "content", w.at("keys"), "text", w.at("keys"))
			facts := func(what, path, epoch, token string) {
				w.raw(what, opHold, "", path, "-", "home", epoch, "run-1", token, nonce, "100", "facts", w.home)
			}
			facts("hold with facts", w.at("keys"), "5", "d")
			facts("hold with facts again", w.at("keys"), "5", "e")
			facts("hold with facts by an earlier epoch", w.at("keys"), "3", "f")
			facts("facts of what is not there", w.at("none"), "5", "d")
			facts("facts of a directory", w.at(""), "5", "d")
			facts("facts in no directory", w.at("no/keys"), "5", "d")
			w.raw("release", opRelease, "", w.at("keys"), "home", "5", "run-1", "100", nonce)
			w.raw("swap in no directory", opSwap, "", filepath.Join(dir, "no"), "keys", "home", "4", "run-1", "c", two, one, "600", "0", "0", "100", nonce, "-")
			w.look()
		},
		"identity": func(w *twin) {
			path := w.at("id_ed25519")
			w.write(path, string(id.Private), 0o600)
			w.write(path+".pub", string(id.Public), 0o640)
			w.write(path+"-cert.pub", "a certificate\n", 0o600)
			now, err := w.h.IdentityFiles(w.t.Context(), w.user, path)
			w.says("read", err, string(now.Private), string(now.Public), string(now.Certificate))
			w.says("install", w.h.Install(w.t.Context(), mine, w.user, path, now, next))
			w.look()
			w.says("install again", w.h.Install(w.t.Context(), mine, w.user, path, now, next))
			w.says("install over another", w.h.Install(w.t.Context(), mine, w.user, path, id, now))
			w.says("of another installation", w.h.Install(w.t.Context(), stranger, w.user, path, next, now))
			w.says("back", w.h.Install(w.t.Context(), mine, w.user, path, next, now))
			w.release("release", mine, path)
			w.says("where there is none", w.h.Install(w.t.Context(), mine, w.user, w.at("id_new"), IdentityFiles{}, next))
			w.release("release", mine, w.at("id_new"))
			w.write(w.at("id_open"), string(id.Private), 0o644)
			w.write(w.at("notes"), "no key\n", 0o644)
			_, found, err := w.h.FilesAndIdentities(w.t.Context(), w.user, nil)
			for _, i := range found.List {
				w.says("identity", nil, fmt.Sprintf("%+v", i))
			}
			w.says("identities", err)
			w.look()
		},
		"facts": func(w *twin) {
			w.write(w.at("keys"), "one\n", 0o660)
			w.says("hold", w.h.Hold(w.t.Context(), mine, w.user, w.at("keys")))
			files, err := w.h.Files(w.t.Context(), w.user, []string{w.at("keys"), w.at("none"), w.at("no/keys"), w.keysFile})
			for _, f := range files {
				fault := ""
				if strings.HasPrefix(f.Fault, f.Real+" ") {
					fault = f.Fault // of the file itself: what is above it is not the same
				}
				w.says("file", nil, fmt.Sprintf("%q %q absent %v unreadable %v %q %s %o %d:%d links %d size %d locked %v fixed %q fault %q",
					f.Path, f.Real, f.Absent, f.Unreadable, f.Content, f.SHA256, f.Mode, f.UID, f.GID, f.Links, f.Size, f.Locked, f.Fixed, fault))
			}
			w.says("files", err)
			c, err := w.h.AccountConfig(w.t.Context(), w.user)
			w.says("config", err, fmt.Sprint(c.AuthorizedKeys, c.Unseen, c.Evaluated, c.Config.StrictModes, c.Config.MaxAuthTries, c.Config.PermitRootLogin != "no"))
			_, err = w.h.AccountConfig(w.t.Context(), "nobody-such")
			w.says("config of nobody", err)
			s, err := w.h.Sshd(w.t.Context())
			w.says("sshd", err, string(s.Family), s.Found, filepath.Base(s.Binary))
			w.says("host", nil, fmt.Sprint(w.h.ClientAddress(), w.h.Login(), w.h.UID(), w.h.Root(), w.h.here == w.home))
		},
		"login": func(w *twin) {
			w.write(w.at("good"), string(w.private), 0o600)
			w.write(w.at("bad"), string(next.Private), 0o600)
			for _, c := range []struct {
				what, identity, user, address string
				pins                          []trust.PublicKey
			}{
				{"login", "good", w.user, w.address, w.pins},
				{"refused", "bad", w.user, w.address, w.pins},
				{"nobody", "good", "nobody-such", w.address, w.pins},
				{"another host key", "good", w.user, w.address, []trust.PublicKey{mustKey(w.t, next)}},
				{"nobody listens", "good", w.user, "127.0.0.1:1", w.pins},
				{"no identity", "none", w.user, w.address, w.pins},
			} {
				ok, _, err := w.h.LoginFrom(w.t.Context(), w.user, w.at(c.identity), c.user, c.address, c.pins)
				w.says(c.what, nil, fmt.Sprint(ok, " ", err == nil, " ", trust.KindOf(err)))
			}
		},
	}
}

func mustKey(t *testing.T, id IdentityFiles) trust.PublicKey {
	key, _, err := id.Key()
	must(t, err)
	return key
}

// The simulated hosts answer and act as real ones do.
func TestSimulatorAgrees(t *testing.T) {
	id, next := pair(t, "-t", "ed25519"), pair(t, "-t", "ed25519")
	for name, play := range plays(id, next) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			real := realTwin(t, id)
			simulated, _ := simTwin(t, id, real)
			play(real)
			play(simulated)
			want, got := real.normal(real.transcript.String()), simulated.normal(simulated.transcript.String())
			if want != got {
				t.Errorf("%s", difference(want, got))
			}
			if strings.Count(want, "\n") < 6 {
				t.Errorf("the play is short:\n%s", want)
			}
		})
	}
}

// That the comparison tells hosts apart: one that only pretends to write.
func TestSimulatorThatDiffers(t *testing.T) {
	id, next := pair(t, "-t", "ed25519"), pair(t, "-t", "ed25519")
	all := plays(id, next)
	for _, name := range []string{"edit", "two writers", "ops", "identity"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			real := realTwin(t, id)
			simulated, host := simTwin(t, id, real)
			host.Pretend()
			all[name](real)
			all[name](simulated)
			if real.normal(real.transcript.String()) == simulated.normal(simulated.transcript.String()) {
				t.Error("a host that does nothing passes for a real one")
			}
		})
	}
}

// difference returns the first lines in which two texts differ.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		line := func(l []string) string {
			if i < len(l) {
				return l[i]
			}
			return "(nothing)"
		}
		if line(w) != line(g) {
			return fmt.Sprintf("after\n%s\nthe real host says\n%s\nand the simulated one\n%s", strings.Join(w[max(0, i-6):min(i, len(w))], "\n"), line(w), line(g))
		}
	}
	return ""
}

// Root acts as the owner of a file, as it does on a host that has several accounts,
// and a login becomes root by sudo.
func TestSimulatedAccounts(t *testing.T) {
	fleet, err := sim.Listen(t.Context())
	must(t, err)
	t.Cleanup(fleet.Close)
	host, err := fleet.Add(sim.Options{Accounts: []sim.Account{
		{User: "ops", UID: 1000, GID: 1000, Home: "/home/ops", Sudo: true}, {User: "deploy", UID: 1001, GID: 1001, Home: "/home/deploy"},
	}})
	must(t, err)
	id := pair(t, "-t", "ed25519")
	must(t, host.Authorize("ops", mustKey(t, id), ""))
	must(t, host.Authorize("deploy", mustKey(t, id), ""))
	must(t, host.Authorize("root", mustKey(t, id), ""))
	signer, err := ssh.ParsePrivateKey(id.Private)
	must(t, err)
	for user, become := range map[string]Become{"ops": Sudo, "root": None} {
		conn, err := dial.Dial(t.Context(), dial.Target{Address: host.Address(), User: user, Pins: []trust.PublicKey{host.HostKey()}}, []dial.Credential{dial.KeyCredential("k", signer)})
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		h, err := Open(t.Context(), conn, "web1", become, nil)
		must(t, err)
		_, err = h.Edit(t.Context(), mine, "deploy", "/home/deploy/.ssh/authorized_keys", add("# by "+user))
		must(t, err)
		must(t, h.Release(t.Context(), mine, "deploy", "/home/deploy/.ssh/authorized_keys"))
		since := time.Now().Add(-time.Minute)
		_, uses, err := h.TextsAndUses(t.Context(), user, nil, mustKey(t, id).Fingerprint(), since)
		if err != nil || len(uses) == 0 || uses[0].Source != "127.0.0.1" {
			t.Errorf("uses of the key: %+v, %v", uses, err)
		}
	}
	files := host.Files("/home/deploy/.ssh")
	if text := files["/home/deploy/.ssh/authorized_keys"]; !strings.HasPrefix(text, "-rw------- 1001:1001") || !strings.HasSuffix(text, "# by ops\n") && !strings.HasSuffix(text, "# by root\n") {
		t.Errorf("the file is %q", text)
	}
	if len(files) != 2 {
		t.Errorf("left behind: %v", files)
	}
	conn, err := dial.Dial(t.Context(), dial.Target{Address: host.Address(), User: "deploy", Pins: []trust.PublicKey{host.HostKey()}}, []dial.Credential{dial.KeyCredential("k", signer)})
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = Open(t.Context(), conn, "web1", Sudo, nil)
	kind(t, err, trust.Denied, "password")
	h, err := Open(t.Context(), conn, "web1", None, nil)
	must(t, err)
	_, err = h.Edit(t.Context(), mine, "deploy", "/root/.ssh/authorized_keys", add("x"))
	kind(t, err, trust.Denied)
	result, err := conn.Run(t.Context(), "sh -c 'x' keyturn.dance", nil, 100)
	if err != nil || result.Exit == 0 {
		t.Errorf("an op that is not there: %+v, %v", result, err)
	}
}

// Each fault does what its name says, and an edit that met it is made again.
func TestSimulatedFaults(t *testing.T) {
	id := pair(t, "-t", "ed25519")
	const path = "/home/deploy/.ssh/keys"
	for name, c := range map[string]struct {
		fault func(h *sim.Host)
		want  trust.Kind // of the error that an edit meets; Internal if none
		after string     // what the file holds then
		final string     // after another attempt
	}{
		"refuse":           {func(h *sim.Host) { h.Refuse() }, trust.Unavailable, "one\n", "one\ntwo\n"},
		"drop before":      {func(h *sim.Host) { h.Drop("swap", sim.BeforeEffect) }, trust.Unavailable, "one\n", "one\ntwo\n"},
		"drop after":       {func(h *sim.Host) { h.Drop("swap", sim.AfterEffect) }, trust.Unavailable, "one\ntwo\n", "one\ntwo\n"},
		"full disk":        {func(h *sim.Host) { h.Fill() }, trust.Conflict, "one\n", "one\ntwo\n"},
		"pretend":          {func(h *sim.Host) { h.Pretend() }, trust.Internal, "one\n", "one\ntwo\n"},
		"second writer":    {func(h *sim.Host) { h.Meanwhile("swap", func() { _ = h.Append("deploy", path, "theirs\n") }) }, trust.Internal, "one\ntheirs\ntwo\n", "one\ntheirs\ntwo\n"},
		"power cut":        {func(h *sim.Host) { h.CutPower(0) }, trust.Unavailable, "one\n", "one\ntwo\n"},
		"power cut within": {func(h *sim.Host) { h.CutPower(5) }, trust.Unavailable, "one\n", "one\ntwo\n"},
	} {
		t.Run(name, func(t *testing.T) {
			fleet, err := sim.Listen(t.Context())
			must(t, err)
			t.Cleanup(fleet.Close)
			host, err := fleet.Add(sim.Options{})
			must(t, err)
			must(t, host.Authorize("deploy", mustKey(t, id), ""))
			must(t, host.Write("deploy", path, []byte("one\n"), 0o600))
			edit := func(h *Host) error { _, err := h.Edit(t.Context(), mine, "deploy", path, add("two")); return err }
			h := openSim(t, host, id)
			c.fault(host)
			err = edit(h)
			if c.want == trust.Internal {
				must(t, err)
			} else {
				kind(t, err, c.want)
			}
			holds := func(want string) {
				t.Helper()
				if data, _, err := host.Read(path); err != nil || string(data) != want {
					t.Errorf("the file holds %q, want %q: %v", data, want, err)
				}
			}
			holds(c.after)
			host.Mend()
			must(t, edit(openSim(t, host, id)))
			holds(c.final)
		})
	}
}

// A host whose power is cut between any two changes to its disk holds the old file
// or the new one, and an attempt after that ends well: what the ops sync is enough.
func TestSimulatedPowerCutsEverywhere(t *testing.T) {
	id, next := pair(t, "-t", "ed25519"), pair(t, "-t", "ed25519")
	fleet, err := sim.Listen(t.Context())
	must(t, err)
	t.Cleanup(fleet.Close)
	host, err := fleet.Add(sim.Options{})
	must(t, err)
	must(t, host.Authorize("deploy", mustKey(t, id), ""))
	const keys, identity = "/home/deploy/.ssh/keys", "/home/deploy/.ssh/id"
	for n := 0; ; n++ {
		must(t, host.Write("deploy", keys, []byte("one\n"), 0o600))
		must(t, host.Write("deploy", identity, id.Private, 0o600))
		must(t, host.Write("deploy", identity+".pub", id.Public, 0o644))
		act := func(l Lock) error {
			h := openSim(t, host, id)
			if l == mine {
				host.CutPower(n)
			}
			if _, err := h.Edit(t.Context(), l, "deploy", keys, add("two")); err != nil {
				return err
			}
			now, err := h.IdentityFiles(t.Context(), "deploy", identity)
			if err != nil {
				return err
			}
			if err := h.Install(t.Context(), l, "deploy", identity, now, next); err != nil {
				return err
			}
			return errors.Join(h.Release(t.Context(), l, "deploy", keys), h.Release(t.Context(), l, "deploy", identity))
		}
		if n == 0 {
			continue // the power is off before the connection
		}
		err := act(mine)
		host.Mend()
		if data, _, _ := host.Read(keys); string(data) != "one\n" && string(data) != "one\ntwo\n" {
			t.Fatalf("power cut after %d changes: %q", n, data)
		}
		private, _, err2 := host.Read(identity)
		public, _, _ := host.Read(identity + ".pub")
		if err2 != nil || !bytes.Equal(private, id.Private) && !bytes.Equal(private, next.Private) {
			t.Fatalf("power cut after %d changes: the identity is %q, %v", n, private, err2)
		}
		if public != nil && bytes.Equal(public, id.Public) != bytes.Equal(private, id.Private) {
			t.Fatalf("power cut after %d changes: the .pub is of another key", n)
		}
		must(t, act(later))
		if files := host.Files("/home/deploy/.ssh"); len(files) != 5 {
			t.Fatalf("power cut after %d changes: left behind %v", n, files)
		}
		if err == nil {
			if n < 20 {
				t.Errorf("there were only %d instants", n)
			}
			return
		}
	}
}

// A host whose clock is hours off, ahead or behind, tells of the logins since a time of
// ours, of all of these and of none before, and they are told by our clock. A login that
// its own clock, and not ours, has past an expiry-time= is refused.
func TestUsesWhereTheClockIsOff(t *testing.T) {
	fleet, err := sim.Listen(t.Context())
	must(t, err)
	t.Cleanup(fleet.Close)
	id := pair(t, "-t", "ed25519")
	const slow = 15 * time.Second // as a busy machine may be in answering, which the measured skew holds
	for _, ahead := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		host, err := fleet.Add(sim.Options{})
		must(t, err)
		must(t, host.Authorize("deploy", mustKey(t, id), fmt.Sprintf(`expiry-time="%s"`, time.Now().UTC().Add(time.Hour).Format("200601021504Z"))))
		must(t, host.Authorize("root", mustKey(t, id), ""))
		host.SetClock(ahead)
		before := time.Now()
		h := openSimAs(t, host, id, "root")
		after := time.Now()
		if d := h.Skew() - ahead; d < -slow || d > slow {
			t.Errorf("a clock that is off by %s is measured as off by %s", ahead, h.Skew())
		}
		for since, want := range map[time.Time]int{before.Add(-slow): 1, after.Add(time.Minute): 0} {
			uses, logged, err := h.Uses(t.Context(), "root", mustKey(t, id).Fingerprint(), since)
			_, same, err2 := h.TextsAndUses(t.Context(), "root", nil, mustKey(t, id).Fingerprint(), since)
			if err != nil || err2 != nil || !logged || len(uses) != want || !slices.Equal(uses, same) {
				t.Fatalf("off by %s, since %s: %+v, %+v, %v, %v; want %d", ahead, since.Sub(before), uses, same, err, err2, want)
			}
			for _, u := range uses {
				if u.At.Before(before.Add(-slow)) || u.At.After(after.Add(slow)) {
					t.Errorf("off by %s: the login of %s is told as of %s", ahead, before, u.At)
				}
			}
		}
		signer, err := ssh.ParsePrivateKey(id.Private)
		must(t, err)
		conn, err := dial.Dial(t.Context(), dial.Target{Address: host.Address(), User: "deploy", Pins: []trust.PublicKey{host.HostKey()}}, []dial.Credential{dial.KeyCredential("k", signer)})
		if err == nil {
			_ = conn.Close()
		}
		if (err == nil) != (ahead < 0) {
			t.Errorf("off by %s: a login within an hour of the expiry: %v", ahead, err)
		}
	}
}

// A host that is slow to answer is not taken for one whose clock is off.
func TestSkew(t *testing.T) {
	at := func(seconds float64) time.Time { return time.Unix(1_700_000_000, int64(seconds*1e9)) }
	for _, c := range []struct {
		shown, before, after float64
		want                 time.Duration
	}{
		{10, 10.5, 10.6, 0},
		{11, 10.9, 11.1, 0},
		{14, 10.5, 15, 0}, // asked at 10.5, shown at 14 and something, told at 15
		{10, 10.99, 15, 0},
		{3610, 10.5, 10.9, time.Hour - time.Second},
		{3611, 10.5, 10.9, time.Hour},
		{9, 10.5, 15, 0},
		{8, 10.5, 15, -time.Second},
		{10 - 3600, 10.5, 10.9, -time.Hour + time.Second},
	} {
		if got := skew(at(c.shown), at(c.before), at(c.after)); got != c.want {
			t.Errorf("%v shown between %v and %v: off by %s, want %s", c.shown, c.before, c.after, got, c.want)
		}
	}
}

func openSim(t *testing.T, host *sim.Host, id IdentityFiles) *Host {
	t.Helper()
	return openSimAs(t, host, id, "deploy")
}

func openSimAs(t *testing.T, host *sim.Host, id IdentityFiles, user string) *Host {
	t.Helper()
	signer, err := ssh.ParsePrivateKey(id.Private)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := dial.Dial(ctx, dial.Target{Address: host.Address(), User: user, Pins: []trust.PublicKey{host.HostKey()}, Source: netip.Addr{}}, []dial.Credential{dial.KeyCredential("k", signer)})
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	h, err := Open(t.Context(), conn, "web1", None, nil)
	must(t, err)
	return h
}
