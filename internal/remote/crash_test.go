package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// effects are the programs by which ops change a host.
var effects = []string{"mkdir", "rmdir", "mv", "ln", "cp", "rm", "dd", "sync", "chmod", "chown", "perl", "ssh-keygen"}

// crashing returns a variant whose n-th effect kills the whole op: before it is
// done, or after. The file count says how many there were.
func crashing(t testing.TB, v variant, n int, when string) (_ variant, count string) {
	t.Helper()
	count = filepath.Join(publicDir(t), "count")
	must(t, os.Chmod(filepath.Dir(count), 0o777))
	must(t, os.WriteFile(count, []byte("0\n"), 0o666))
	must(t, os.Chmod(count, 0o666))
	script := fmt.Sprintf(`read n <%[1]s; n=$((n+1)); echo $n >%[1]s
if [ $n.%[2]s = %[3]d.before ]; then kill -9 0; fi
"$real" "$@"; rc=$?
if [ $n.%[2]s = %[3]d.after ]; then kill -9 0; fi
exit $rc`, count, when, n)
	return shims(t, v, script, effects...), count
}

// crashEverywhere runs do again and again, each time on a new place, and kills the op
// before and after each of its effects; then check looks at what is there, and at what
// another attempt, with a later claim, makes of it. It does so in the shells named, of
// dash and bash: busybox's runs its own tools, whatever PATH says.
func crashEverywhere(t *testing.T, shells []string, setUp func(t *testing.T) (path string), do func(h *Host, l Lock, path string) error, check func(t *testing.T, path string, done bool)) {
	each(t, func(t *testing.T, v variant, h *Host) {
		if !slices.Contains(shells, v.name) {
			return
		}
		for _, when := range []string{"before", "after"} {
			for n := 1; ; n++ {
				path := setUp(t)
				crasher, count := crashing(t, v, n, when)
				c, err := open(t.Context(), "here", "root", None, nil, crasher.exec(), crasher.start(t))
				must(t, err)
				err = do(c, mine, path)
				if err == nil {
					if n < 5 {
						t.Fatalf("crash %s effect %d did not happen: %s", when, n, content(t, count))
					}
					check(t, path, true)
					t.Logf("%d instants %s an effect", n-1, when)
					break
				}
				if trust.KindOf(err) != trust.Unavailable {
					t.Errorf("killed %s effect %d: %v", when, n, err)
				}
				check(t, path, false)
				later := mine
				later.Epoch++
				if err := do(h, later, path); err != nil {
					t.Fatalf("after a crash %s effect %d: %v\n%s", when, n, err, tree(t, filepath.Dir(path)))
				}
				check(t, path, true)
				must(t, h.Release(t.Context(), later, "nobody", path))
				if entries, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*.keyturn")); len(entries) > 0 {
					t.Errorf("left behind: %v", entries)
				}
			}
		}
	})
}

func TestEditCrashesEverywhere(t *testing.T) {
	need.Long(t)
	crashEverywhere(t, need.Share(t, 1, "dash", "bash"),
		func(t *testing.T) string { _, path := home(t, "nobody", "one\n"); return path },
		func(h *Host, l Lock, path string) error {
			_, err := h.Edit(t.Context(), l, "nobody", path, add("two"))
			return err
		},
		func(t *testing.T, path string, done bool) {
			if got := content(t, path); got != "one\ntwo\n" && (done || got != "one\n") {
				t.Errorf("file %q", got)
			}
			if info, _ := os.Stat(path); info.Mode() != 0o600 || owner(info) != "65534:65534" {
				t.Errorf("%v of %s", info.Mode(), owner(info))
			}
		})
}

func TestCreationCrashesEverywhere(t *testing.T) {
	need.Long(t)
	crashEverywhere(t, []string{"bash"},
		func(t *testing.T) string {
			dir, _ := home(t, "nobody", "absent")
			return filepath.Join(dir, ".ssh", "sub", "keys")
		},
		func(h *Host, l Lock, path string) error {
			_, err := h.Edit(t.Context(), l, "nobody", path, add("two"))
			return err
		},
		func(t *testing.T, path string, done bool) {
			if !done && !fileExists(path) {
				return
			}
			if got := content(t, path); got != "two\n" {
				t.Errorf("file %q", got)
			}
		})
}

// At every instant the files of the identity are a pair that logs in: .pub is absent
// or belongs to the private key.
func TestInstallCrashesEverywhere(t *testing.T) {
	need.Long(t)
	old, next := pair(t, "-t", "ed25519"), pair(t, "-t", "ed25519")
	old.Certificate = []byte("a certificate for the old key\n")
	read := func(path string) IdentityFiles {
		return IdentityFiles{Private: mustRead(path), Public: mustRead(path + ".pub"), Certificate: mustRead(path + "-cert.pub")}
	}
	crashEverywhere(t, []string{"dash"},
		func(t *testing.T) string { _, path := place(t, "nobody", old); return path },
		func(h *Host, l Lock, path string) error {
			return h.Install(t.Context(), l, "nobody", path, old, next)
		},
		func(t *testing.T, path string, done bool) {
			got := read(path)
			key, _, err := got.Key()
			if err != nil {
				t.Errorf("no private key: %v", err)
				return
			}
			if got.Public != nil && !strings.HasPrefix(string(got.Public), key.String()) {
				t.Error("the .pub file is of another key than the private key")
			}
			if got.Certificate != nil && !got.Equal(old) {
				t.Error("the old key's certificate is beside a changed identity")
			}
			if done && !got.Equal(next) || !done && !strings.Contains(string(old.Private)+string(next.Private), string(got.Private)) {
				t.Errorf("identity is %v", got)
			}
		})
}

// Before and after every effect a hook can end the operation; the op that follows a
// crash there is the same op again.
func TestEveryEffectHasAPoint(t *testing.T) {
	eachOf(t, need.Share(t, 1, variants(t)...), func(t *testing.T, v variant, _ *Host) {
		stop, points := "", map[string]bool{}
		crash := errors.New("crash")
		h := v.host(t, func(_ context.Context, point string) error {
			points[point] = true
			if point == stop {
				return crash
			}
			return nil
		})
		_, path := home(t, "nobody", "one\n")
		_, id := place(t, "nobody", pair(t, "-t", "ed25519"))
		all := func() error {
			_, err := h.Edit(t.Context(), mine, "nobody", path, add("two"))
			if err == nil {
				err = h.Release(t.Context(), mine, "nobody", path)
			}
			var now IdentityFiles
			if err == nil {
				now, err = h.IdentityFiles(t.Context(), "nobody", id)
			}
			if err == nil {
				var key trust.PublicKey
				if key, err = h.Generate(t.Context(), mine, "nobody", id, Spec{Type: "ed25519"}); err == nil {
					err = h.InstallGenerated(t.Context(), mine, "nobody", id, now, key)
				}
			}
			return err
		}
		must(t, all())
		for _, o := range ops() {
			for _, when := range []string{"before ", "after "} {
				if points[when+o.name] != o.changes {
					t.Errorf("op %s changes a host: %v; point %q was met: %v", o.name, o.changes, when+o.name, points[when+o.name])
				}
			}
		}
		for point := range points {
			must(t, os.WriteFile(path, []byte("one\n"), 0o600))
			stop = point
			if err := all(); !errors.Is(err, crash) {
				t.Errorf("a hook that fails at %q: %v", point, err)
			}
			stop = ""
			must(t, all())
			if got := content(t, path); got != "one\ntwo\n" {
				t.Errorf("after a crash at %q: %q", point, got)
			}
		}
	})
}

// An op that is said to change nothing changes nothing.
func TestReadingChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir, path := home(t, "nobody", "one\n")
		keygen(t, filepath.Join(dir, ".ssh", "id"), "-t", "ed25519")
		chown(t, filepath.Join(dir, ".ssh", "id"), "nobody")
		before := tree(t, dir)
		if _, err := h.Files(t.Context(), "nobody", []string{path, path + "2", dir + "/none/keys"}); err != nil {
			t.Error(err)
		}
		if _, err := identitiesIn(t, h, "nobody", filepath.Join(dir, ".ssh"), dir+"/none"); err != nil {
			t.Error(err)
		}
		if _, err := h.Accounts(t.Context()); err != nil {
			t.Error(err)
		}
		if after := tree(t, dir); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
	})
}
