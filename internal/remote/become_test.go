package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keyturn/internal/dial"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// asNobody opens a host that runs commands as an ordinary account, in a mount namespace
// in which etc lies over /etc.
func (v variant) asNobody(t testing.TB, become Become, etc map[string]string) (*Host, error) {
	t.Helper()
	dir := publicDir(t)
	for _, d := range []string{"up", "work"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	// An overlay's upper directory may not lie on an overlay.
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", dir).CombinedOutput(); err != nil {
		need.Skip(t, "mount: %s", out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	for _, d := range []string{"up", "work"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	for name, text := range etc {
		path := filepath.Join(dir, "up", name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o440))
	}
	within := func(command string) string {
		inner := fmt.Sprintf("mount -t overlay overlay -o lowerdir=/etc,upperdir=%s/up,workdir=%s/work /etc && exec /usr/bin/setpriv --reuid=nobody --regid=nogroup --init-groups %s -c %s", dir, dir, v.sh, quote(command))
		return "exec /usr/bin/unshare --mount --propagation private sh -c " + quote(inner)
	}
	run, start := v.exec(), v.start(t)
	return open(t.Context(), "here", "nobody", become, nil,
		func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
			return run(ctx, within(command), stdin, limit)
		},
		func(ctx context.Context, command string) (*dial.Process, error) { return start(ctx, within(command)) })
}

func TestBecome(t *testing.T) {
	each(t, func(t *testing.T, v variant, _ *Host) {
		must(t, exec.Command("sh", "-c", "command -v doas sudo setpriv unshare").Run())
		for name, c := range map[string]struct {
			become Become
			etc    map[string]string
			err    string
		}{
			"sudo":                 {Sudo, map[string]string{"sudoers": "nobody ALL=(ALL) NOPASSWD: ALL\n"}, ""},
			"sudo as root only":    {Sudo, map[string]string{"sudoers": "nobody ALL=(root) NOPASSWD: ALL\n"}, ""},
			"sudo with a password": {Sudo, map[string]string{"sudoers": "nobody ALL=(ALL) ALL\n"}, "password"},
			"sudo not at all":      {Sudo, map[string]string{"sudoers": "daemon ALL=(ALL) ALL\n"}, "sudo"},
			"sudo at a terminal":   {Sudo, map[string]string{"sudoers": "Defaults requiretty\nnobody ALL=(ALL) NOPASSWD: ALL\n"}, "wants a terminal"},
			"doas":                 {Doas, map[string]string{"doas.conf": "permit nopass nobody\n"}, ""},
			"doas not at all":      {Doas, map[string]string{"doas.conf": "permit nopass daemon\n"}, "doas"},
		} {
			t.Run(name, func(t *testing.T) {
				h, err := v.asNobody(t, c.become, c.etc)
				if c.err != "" {
					kind(t, err, trust.Denied, c.err, `"nobody"`)
					return
				}
				must(t, err)
				if !h.Root() || h.uid != 65534 {
					t.Errorf("root %v, uid %d", h.Root(), h.uid)
				}
				// A file of its own, one of another account, one in root's directory.
				_, own := home(t, "nobody", "one\n")
				_, other := home(t, "daemon", "one\n")
				system := filepath.Join(publicDir(t), "daemon")
				must(t, os.WriteFile(system, []byte("one\n"), 0o644))
				for path, user := range map[string]string{own: "nobody", other: "daemon", system: "daemon"} {
					_, err := h.Edit(t.Context(), mine, user, path, add("two"))
					must(t, err)
					if got := content(t, path); got != "one\ntwo\n" {
						t.Errorf("%s: %q", path, got)
					}
					must(t, h.Release(t.Context(), mine, user, path))
				}
			})
		}
		// Without root, only one's own files.
		h, err := v.asNobody(t, None, nil)
		must(t, err)
		_, other := home(t, "daemon", "one\n")
		must(t, os.Chmod(filepath.Dir(other), 0o755))
		must(t, os.Chmod(other, 0o644))
		_, err = h.Edit(t.Context(), mine, "daemon", other, add("two"))
		kind(t, err, trust.Conflict, "uid 1")
	})
}

// What acts for an account is never root in that account's own directory, whichever
// program drops root's rights.
func TestEveryWayToActAsAnAccount(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		for _, drop := range []string{"setpriv", "runuser", "su"} {
			need.Program(t, drop, "util-linux")
			if v.name == "busybox" && drop == "setpriv" {
				continue // busybox's does other things
			}
			h.drop = drop
			dir, path := home(t, "nobody", "one\n")
			_, err := h.Edit(t.Context(), mine, "nobody", path, add("it's 2"))
			if err != nil {
				t.Errorf("%s: %v", drop, err)
				continue
			}
			out := tree(t, dir)
			if strings.Contains(out, " 0:0 ") && strings.Count(out, " 0:0 ") > 1 { // the top directory
				t.Errorf("%s: something belongs to root:\n%s", drop, out)
			}
			must(t, h.Release(t.Context(), mine, "nobody", path))
		}
	})
}

// The ACL and extended attributes of a file stay.
func TestAttributesStay(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		if v.name == "busybox" {
			return // see the BUG note in edit.go
		}
		_, path := home(t, "nobody", "one\n")
		// user::rw- user:daemon:r-- group::--- mask::r-- other::---, see acl(5) and
		// linux/posix_acl_xattr.h.
		acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\x01\x00\x00\x00" + "\x04\x00\x00\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
		if err := unix.Setxattr(path, "system.posix_acl_access", []byte(acl), 0); err != nil {
			need.Skip(t, "no ACLs on this file system: %v", err)
		}
		must(t, unix.Setxattr(path, "user.note", []byte("kept"), 0))
		files, err := h.Files(t.Context(), "nobody", []string{path})
		if err != nil || !files[0].ACL {
			t.Errorf("%+v, %v", files, err)
		}
		_, err = h.Edit(t.Context(), mine, "nobody", path, add("two"))
		must(t, err)
		for name, want := range map[string]string{"system.posix_acl_access": acl, "user.note": "kept"} {
			b := make([]byte, 200)
			n, err := unix.Getxattr(path, name, b)
			if err != nil || string(b[:n]) != want {
				t.Errorf("%s is %q, %v", name, b[:max(n, 0)], err)
			}
		}
	})
}

// A start-up file that prints does no harm, and an account without a shell is named.
func TestNoisyAndMissingShells(t *testing.T) {
	need.Root(t)
	v := variants(t)[0]
	run := v.exec()
	noisy := func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
		return run(ctx, "echo Welcome; printf 'no newline '; "+command+"; echo bye", stdin, limit)
	}
	if _, err := open(t.Context(), "here", "root", None, nil, noisy, nil); err != nil {
		t.Error(err)
	}
	nologin := func(ctx context.Context, _ string, stdin []byte, limit int) (dial.Result, error) {
		return run(ctx, "echo This account is currently not available.; exit 1", stdin, limit)
	}
	_, err := open(t.Context(), "here", "svc", None, nil, nologin, nil)
	kind(t, err, trust.Denied, `"svc"`, "not available")
	if e := new(trust.Error); !errors.As(err, &e) || !strings.Contains(e.Hint, "ForceCommand") {
		t.Errorf("%v has no hint at what else may run instead of commands", err)
	}
	cut := func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
		r, err := run(ctx, command, stdin, limit)
		r.Stdout = r.Stdout[:len(r.Stdout)-4]
		return r, err
	}
	_, err = open(t.Context(), "here", "root", None, nil, cut, nil)
	kind(t, err, trust.Unavailable, "cut off")
}
