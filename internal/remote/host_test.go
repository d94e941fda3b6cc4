package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyturn/internal/dial"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// A variant is a shell with its tools, as hosts have them.
type variant struct {
	name  string
	shell string         // program that "sh" is
	sh    string         // the same, as "sh"
	tools string         // directories that come first in PATH
	spent *time.Duration // processor time of all that it ran, if not nil
}

// variants returns dash and bash with GNU's tools, and busybox with its own.
func variants(t testing.TB) []variant {
	t.Helper()
	var out []variant
	for _, name := range []string{"dash", "bash", "busybox"} {
		program := need.Program(t, name, name)
		dir := publicDir(t) // ops run as other accounts, too
		names := []string{"sh"}
		if name == "busybox" {
			list, err := exec.Command(program, "--list").Output()
			if err != nil {
				t.Fatal(err)
			}
			names = strings.Fields(string(list))
		}
		for _, n := range names {
			if err := os.Symlink(program, filepath.Join(dir, n)); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, variant{name, program, filepath.Join(dir, "sh"), dir, nil})
	}
	return out
}

// exec runs commands as sshd would have a login shell run them.
func (v variant) exec(env ...string) func(context.Context, string, []byte, int) (dial.Result, error) {
	return func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
		cmd := exec.CommandContext(ctx, v.sh, "-c", command)
		// A process group of its own, for those who crash it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		var stdout, stderr bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
		cmd.Env = v.environ(env)
		err := cmd.Run()
		if v.spent != nil {
			*v.spent += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
		result := dial.Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Exit: cmd.ProcessState.ExitCode()}
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return result, err
		}
		if len(result.Stdout) > limit {
			return result, trust.Errorf(trust.Exhausted, "too long")
		}
		return result, nil
	}
}

// start starts commands as sshd would have a login shell run them.
func (v variant) start(t testing.TB, env ...string) func(context.Context, string) (*dial.Process, error) {
	return func(_ context.Context, command string) (*dial.Process, error) {
		cmd := exec.Command(v.sh, "-c", command)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Env = v.environ(env)
		var pipes [3][2]*os.File // of stdin, stdout and stderr, each with its end for reading first
		for i := range pipes {
			r, w, err := os.Pipe()
			must(t, err)
			t.Cleanup(func() { _, _ = r.Close(), w.Close() })
			pipes[i] = [2]*os.File{r, w}
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = pipes[0][0], pipes[1][1], pipes[2][1]
		must(t, cmd.Start())
		for _, theirs := range []*os.File{pipes[0][0], pipes[1][1], pipes[2][1]} {
			must(t, theirs.Close())
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait()
		}()
		end := func() { _, _ = pipes[1][0].Close(), pipes[2][0].Close() }
		t.Cleanup(func() { _ = pipes[0][1].Close(); <-ended })
		return &dial.Process{
			Stdin: pipes[0][1], Stdout: pipes[1][0], Stderr: pipes[2][0], Ended: ended, Close: end,
			Cut: func() { _ = pipes[0][1].Close(); end() },
		}, nil
	}
}

func (v variant) environ(env []string) []string {
	return append([]string{"PATH=" + v.tools + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/nonexistent", "LANG=C"}, env...)
}

// host returns this machine, as the variant's shell sees it.
func (v variant) host(t testing.TB, hook Hook, env ...string) *Host {
	t.Helper()
	need.Within(t, 5*time.Minute)
	start := v.start(t, env...)
	if v.spent != nil {
		start = nil // it is only known of what has ended
	}
	h, err := open(t.Context(), "here", "root", None, hook, v.exec(env...), start)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// each runs a test with every variant, eachOf with some.
func each(t *testing.T, f func(t *testing.T, v variant, h *Host)) {
	eachOf(t, variants(t), f)
}

func eachOf(t *testing.T, variants []variant, f func(t *testing.T, v variant, h *Host)) {
	need.Root(t)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			f(t, v, v.host(t, nil))
		})
	}
}

var mine = Lock{Installation: "home", Epoch: 3, Run: "run-1"}

// home makes a directory of an account that is not root's, with a file in it.
func home(t testing.TB, user, content string) (dir, path string) {
	t.Helper()
	dir = publicDir(t)
	ssh := filepath.Join(dir, ".ssh")
	must(t, os.Mkdir(ssh, 0o700))
	path = filepath.Join(ssh, "authorized_keys")
	if content != "absent" {
		must(t, os.WriteFile(path, []byte(content), 0o600))
		chown(t, path, user)
	}
	chown(t, ssh, user)
	return dir, path
}

// publicDir makes a directory that everybody may enter, which those of t.TempDir are
// not.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyturn-remote")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func chown(t testing.TB, path, user string) {
	t.Helper()
	out, err := exec.Command("chown", "-h", user+":", path).CombinedOutput()
	if err != nil {
		t.Fatalf("chown: %s", out)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func kind(t testing.TB, err error, want trust.Kind, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that is %v", want)
	}
	if trust.KindOf(err) != want {
		t.Errorf("error is %v, want %v: %v", trust.KindOf(err), want, err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error does not say %q: %v", p, err)
		}
	}
}

func content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// add returns an edit that appends a line unless it is there.
func add(text string) Edit {
	return func(old []byte) ([]byte, error) {
		if bytes.Contains(old, []byte(text+"\n")) {
			return old, nil
		}
		return append(endLine(old), text+"\n"...), nil
	}
}

// only fails if the directory has other entries than these.
func only(t testing.TB, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("%s holds %v, want %v", dir, got, names)
	}
}

func TestHello(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		if h.uid != 0 || !h.Root() || h.Kernel() == "" || h.drop == "" || !h.Has("su") || h.Skew().Abs().Seconds() > 2 {
			t.Errorf("hello: %+v", h)
		}
		if h := v.host(t, nil, "SSH_CONNECTION=::ffff:192.0.2.7 4000 192.0.2.1 22"); h.ClientAddress() != "192.0.2.7" {
			t.Errorf("client address %q", h.ClientAddress())
		}
		accounts, err := h.Accounts(t.Context())
		must(t, err)
		for _, a := range accounts {
			if a.User == "root" && (a.UID != 0 || a.Home != "/root" || !a.Runs || a.Password == PasswordUnknown) {
				t.Errorf("root is %+v", a)
			}
			if a.User == "nobody" && a.Runs && a.Shell != "" && strings.Contains(a.Shell, "nologin") && !fileExists(a.Shell) {
				t.Errorf("nobody is %+v", a)
			}
		}
		if _, err := h.account(t.Context(), "no-such-account"); trust.KindOf(err) != trust.NotFound {
			t.Errorf("unknown account: %v", err)
		}
	})
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestEdit(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir, path := home(t, "nobody", "one\r\n# two\n\nno end")
		must(t, os.Chmod(path, 0o640))
		before, err := os.Stat(path)
		must(t, err)
		change, err := h.Edit(t.Context(), mine, "nobody", path, add("three"))
		must(t, err)
		if got, want := content(t, path), "one\r\n# two\n\nno end\nthree\n"; got != want || string(change.After) != want || string(change.Before) != "one\r\n# two\n\nno end" || change.SHA256 != hexSum([]byte(want)) || change.Created {
			t.Errorf("file %q, change %+v", got, change)
		}
		after, err := os.Stat(path)
		must(t, err)
		if after.Mode() != before.Mode() || owner(after) != owner(before) || os.SameFile(before, after) {
			t.Errorf("mode %v owner %v, want %v and %v on another inode", after.Mode(), owner(after), before.Mode(), owner(before))
		}
		// The same again changes nothing.
		if _, err = h.Edit(t.Context(), mine, "nobody", path, add("three")); err != nil {
			t.Error(err)
		}
		if again, _ := os.Stat(path); !os.SameFile(again, after) {
			t.Error("an edit that changes nothing replaced the file")
		}
		files, err := h.Files(t.Context(), "nobody", []string{path})
		must(t, err)
		if f := files[0]; f.Locked == nil || *f.Locked != mine || f.SHA256 != change.SHA256 || f.Fixed != "" || f.Fault != "" && !strings.Contains(f.Fault, "/tmp") || f.Mode != 0o640 || f.FileSystem.Type == "" || f.FileSystem.FreeBytes < 1 {
			t.Errorf("file: %+v", f)
		}
		must(t, h.Release(t.Context(), mine, "nobody", path))
		must(t, h.Release(t.Context(), mine, "nobody", path))
		only(t, filepath.Join(dir, ".ssh"), "authorized_keys")
	})
}

func TestEditMakesWhatIsMissing(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir, _ := home(t, "nobody", "absent")
		chown(t, dir, "nobody")
		path := filepath.Join(dir, "new", "sub dir", "it's $HOME; keys")
		change, err := h.Edit(t.Context(), mine, "nobody", path, add("line"))
		must(t, err)
		if content(t, path) != "line\n" || !change.Created || change.Before != nil {
			t.Errorf("change %+v", change)
		}
		for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir, filepath.Join(dir, "new"): 0o700 | os.ModeDir} {
			if info, _ := os.Stat(p); info.Mode() != want || owner(info) != "65534:65534" {
				t.Errorf("%s: %v of %s, want %v of nobody", p, info.Mode(), owner(info), want)
			}
		}
		must(t, h.Release(t.Context(), mine, "nobody", path))
		// What root makes for another account, that account must be able to read.
		top := publicDir(t)
		path = filepath.Join(top, "keys", "nobody")
		_, err = h.Edit(t.Context(), mine, "nobody", path, add("line"))
		must(t, err)
		if info, _ := os.Stat(path); info.Mode() != 0o644 || owner(info) != "0:0" {
			t.Errorf("%v of %s", info.Mode(), owner(info))
		}
		if err := h.Hold(t.Context(), mine, "nobody", filepath.Join(top, "none")); trust.KindOf(err) != trust.NotFound {
			t.Errorf("hold of what is not there: %v", err)
		}
	})
}

// A file of an account in a directory of root's keeps its owner.
func TestEditInRootsDirectory(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir := publicDir(t)
		path := filepath.Join(dir, "nobody")
		must(t, os.WriteFile(path, []byte("one\n"), 0o400))
		chown(t, path, "nobody")
		_, err := h.Edit(t.Context(), mine, "nobody", path, add("two"))
		must(t, err)
		if info, _ := os.Stat(path); info.Mode() != 0o400 || owner(info) != "65534:65534" || content(t, path) != "one\ntwo\n" {
			t.Errorf("%v of %s: %q", info.Mode(), owner(info), content(t, path))
		}
		must(t, os.Chmod(dir, 0o777))
		_, err = h.Edit(t.Context(), mine, "nobody", path, add("three"))
		kind(t, err, trust.Conflict, "others can write")
		// Nor does root act where an account could lead it astray.
		_, theirs := home(t, "nobody", "one\n")
		_, err = h.Edit(t.Context(), mine, "root", theirs, add("two"))
		kind(t, err, trust.Conflict, "uid 65534")
		if content(t, theirs) != "one\n" {
			t.Errorf("%q", content(t, theirs))
		}
	})
}

func owner(info os.FileInfo) string {
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func TestEditThroughLinks(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir, real := home(t, "nobody", "one\n")
		link := filepath.Join(dir, "link")
		must(t, os.Symlink(".ssh/authorized_keys", link))
		dirLink := filepath.Join(dir, "d")
		must(t, os.Symlink(filepath.Join(dir, ".ssh"), dirLink))
		for i, path := range []string{link, filepath.Join(dirLink, "authorized_keys")} {
			_, err := h.Edit(t.Context(), mine, "nobody", path, add(fmt.Sprint("line", i)))
			must(t, err)
		}
		if content(t, real) != "one\nline0\nline1\n" {
			t.Errorf("%q", content(t, real))
		}
		if info, _ := os.Lstat(link); info.Mode()&os.ModeSymlink == 0 {
			t.Error("the link was replaced by a file")
		}
		must(t, h.Release(t.Context(), mine, "nobody", link))
		only(t, filepath.Join(dir, ".ssh"), "authorized_keys")
	})
}

// What must not be edited is refused, named, and left as it was.
func TestEditRefuses(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		for name, c := range map[string]struct {
			prepare func(t *testing.T, dir, path string)
			fixed   string // part of File.Fixed
			says    string // part of the error of Edit
		}{
			"fifo": {func(t *testing.T, dir, path string) {
				must(t, os.Remove(path))
				must(t, exec.Command("mkfifo", path).Run())
			}, "regular", "not a regular file"},
			"directory": {func(t *testing.T, dir, path string) {
				must(t, os.Remove(path))
				must(t, os.Mkdir(path, 0o700))
			}, "regular", "not a regular file"},
			"device": {func(t *testing.T, dir, path string) {
				must(t, os.Remove(path))
				must(t, os.Symlink("/dev/null", path))
			}, "regular", ""},
			"links in a ring": {func(t *testing.T, dir, path string) {
				must(t, os.Remove(path))
				must(t, os.Symlink("authorized_keys", path))
			}, "symbolic links", "symbolic links"},
			"hard link": {func(t *testing.T, dir, path string) {
				must(t, os.Link(path, filepath.Join(dir, "other")))
			}, "2 names", "2 names"},
			"foreign owner": {func(t *testing.T, dir, path string) {
				must(t, os.Chmod(path, 0o644))
				chown(t, path, "root")
			}, "belongs to uid 0", ""},
			"foreign group": {func(t *testing.T, dir, path string) {
				must(t, os.Chown(path, -1, 0)) // as after chown without ":group"
			}, "its group is gid 0", "cannot be kept"},
			"immutable": {func(t *testing.T, dir, path string) {
				chattr(t, "+i", path)
				t.Cleanup(func() { chattr(t, "-i", path) })
			}, "immutable", "ermitted"},
			"immutable directory": {func(t *testing.T, dir, path string) {
				immutably(t, filepath.Dir(path))
			}, ".ssh is immutable (as root: chattr -i ", "(as root: chattr -i "},
			"directory that cannot be written": {func(t *testing.T, dir, path string) {
				must(t, os.Chmod(filepath.Dir(path), 0o500))
			}, "nobody may not write its own directory", "cannot be written by its own account (dr-x------"},
			"directory of a third": {func(t *testing.T, dir, path string) {
				must(t, os.Chmod(filepath.Dir(path), 0o755))
				chown(t, filepath.Dir(path), "daemon")
			}, "uid 1", "uid 1"},
			"lock is a link": {func(t *testing.T, dir, path string) {
				must(t, os.Symlink("/tmp", filepath.Join(filepath.Dir(path), ".authorized_keys.keyturn")))
			}, "", "not a regular file"},
		} {
			t.Run(name, func(t *testing.T) {
				dir, path := home(t, "nobody", "one\n")
				c.prepare(t, dir, path)
				files, err := h.Files(t.Context(), "nobody", []string{path})
				must(t, err)
				if !strings.Contains(files[0].Fixed, c.fixed) || c.fixed == "" != (files[0].Fixed == "") {
					t.Errorf("Fixed is %q, want it to say %q", files[0].Fixed, c.fixed)
				}
				before := tree(t, dir)
				_, err = h.Edit(t.Context(), mine, "nobody", path, add("two"))
				says := c.says
				if v.name == "busybox" && name == "immutable directory" {
					says = "ermitted" // its test(1) goes by the mode alone: mkdir finds out
				}
				kind(t, err, trust.Conflict, says)
				_ = h.Release(t.Context(), mine, "nobody", path)
				if after := tree(t, dir); after != before {
					t.Errorf("the refused edit left\n%s\nwhere there was\n%s", after, before)
				}
			})
		}
	})
}

func chattr(t testing.TB, flag, path string) {
	t.Helper()
	if out, err := exec.Command("chattr", flag, path).CombinedOutput(); err != nil {
		need.Skip(t, "chattr %s: %s", flag, out)
	}
}

// tree lists what lies below a directory: names, modes, owners, content.
func tree(t testing.TB, dir string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$1" && find . -printf '%p %M %U:%G %l\n' | sort && find . -type f -exec sha256sum {} + | sort`, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%s", out)
	}
	return string(out)
}

// A full disk and a read-only one.
func TestEditWhereThereIsNoRoom(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir := t.TempDir()
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", dir).CombinedOutput(); err != nil {
			need.Skip(t, "mount: %s", out)
		}
		t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
		path := filepath.Join(dir, "keys")
		must(t, os.WriteFile(path, []byte("one\n"), 0o600))
		_, err := h.Edit(t.Context(), mine, "root", path, func(old []byte) ([]byte, error) {
			return append(old, bytes.Repeat([]byte("x"), 100<<10)...), nil
		})
		kind(t, err, trust.Conflict, "space")
		if content(t, path) != "one\n" {
			t.Errorf("%q", content(t, path))
		}
		only(t, filepath.Join(dir, ".keys.keyturn"), "own.home.3.run-1."+lockToken(t, dir))
		must(t, h.Release(t.Context(), mine, "root", path))
		files, err := h.Files(t.Context(), "root", []string{path})
		must(t, err)
		if !strings.Contains(files[0].Fixed, "KiB left") {
			t.Errorf("Fixed is %q", files[0].Fixed)
		}
		must(t, exec.Command("mount", "-o", "remount,ro", dir).Run())
		_, err = h.Edit(t.Context(), mine, "root", path, add("two"))
		kind(t, err, trust.Conflict, "ead-only")
		files, err = h.Files(t.Context(), "root", []string{path})
		must(t, err)
		if !strings.Contains(files[0].Fixed, "read-only") {
			t.Errorf("Fixed is %q", files[0].Fixed)
		}
	})
}

func lockToken(t testing.TB, dir string) string {
	entries, err := os.ReadDir(filepath.Join(dir, ".keys.keyturn"))
	must(t, err)
	for _, e := range entries {
		if f := strings.Split(e.Name(), "."); f[0] == "own" {
			return f[4]
		}
	}
	return "?"
}

// The reason of a refusal is what sudo says last, not what it warns of before.
func TestSudoSaysWhy(t *testing.T) {
	h := &Host{name: "web1", login: "ops", become: Sudo}
	err := h.explain(call{op: opHello, as: root}, false, dial.Result{Exit: 1, Stderr: []byte("sudo: unable to resolve host web1: Name or service not known\nsudo: a password is required\n")})
	kind(t, err, trust.Denied, `sudo does not let "ops" act as root without a password: sudo: a password is required`)
	if strings.Contains(err.Error(), "resolve") {
		t.Error(err)
	}
}
