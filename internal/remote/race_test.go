package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyturn/internal/dial"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// Somebody appends with ">>" all the while, sometimes through a descriptor that was
// opened before the file was replaced. No line is lost or doubled, and whoever reads
// the file at any instant finds whole lines and the first of them.
func TestAppendersLoseNothing(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir, path := home(t, "nobody", "first\n")
		ctx, stop := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		wrote := make([]int, 3)
		for w := range wrote {
			writers.Go(func() {
				for ctx.Err() == nil {
					f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
					if err != nil {
						t.Errorf("the file was gone: %v", err)
						return
					}
					for range 1 + 2*(w%2) {
						// Between the lines of one descriptor the file may be
						// replaced.
						_, _ = fmt.Fprintf(f, "writer%d-%d\n", w, wrote[w])
						wrote[w]++
						wait(ctx, time.Duration(30+70*(w%3))*time.Millisecond)
					}
					_ = f.Close()
				}
			})
		}
		writers.Go(func() {
			for ctx.Err() == nil {
				b, err := os.ReadFile(path)
				if err != nil || !bytes.HasPrefix(b, []byte("first\n")) || !bytes.HasSuffix(b, []byte("\n")) {
					t.Errorf("a reader finds %q, %v", b, err)
					return
				}
				wait(ctx, time.Millisecond)
			}
		})
		merged, busy := 0, 0
		for i := range 6 {
			change, err := h.Edit(t.Context(), mine, "nobody", path, add(fmt.Sprintf("edit%d", i)))
			if trust.KindOf(err) == trust.Unavailable {
				busy++ // it says so, and is asked again
				continue
			}
			must(t, err)
			merged += bytes.Count(change.Merged, []byte("\n"))
		}
		stop()
		writers.Wait()
		must(t, h.Release(t.Context(), mine, "nobody", path))
		lines := map[string]int{}
		for line := range strings.Lines(content(t, path)) {
			lines[line]++
		}
		for w, n := range wrote {
			for i := range n {
				if got := lines[fmt.Sprintf("writer%d-%d\n", w, i)]; got != 1 {
					t.Errorf("line %d of writer %d is there %d times", i, w, got)
				}
			}
		}
		t.Logf("%v lines by others, %d merged, %d of 6 edits came too late %d times over", wrote, merged, busy, maxRounds)
		only(t, filepath.Join(dir, ".ssh"), "authorized_keys")
	})
}

func wait(ctx context.Context, d time.Duration) { _ = pause(ctx, d) }

// A line that is appended long after the replacement, and before the lock goes.
func TestLateAppendIsMergedByRelease(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		_, path := home(t, "nobody", "one\n")
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		_, err = h.Edit(t.Context(), mine, "nobody", path, add("two"))
		must(t, err)
		_, err = h.Edit(t.Context(), mine, "nobody", path, add("three"))
		must(t, err)
		_, err = f.WriteString("late\n")
		must(t, err)
		change, err := h.Edit(t.Context(), mine, "nobody", path, add("four"))
		if err != nil || string(change.Merged) != "late\n" {
			t.Errorf("merged %q, %v", change.Merged, err)
		}
		_, err = f.WriteString("later, without an end")
		must(t, err)
		must(t, h.Release(t.Context(), mine, "nobody", path))
		if got, want := content(t, path), "one\ntwo\nthree\nlate\nfour\nlater, without an end"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// Somebody writes the whole file in place, having opened it before we replaced it.
// Whose content should stand is not ours to say, so it is said, once.
func TestRewriteInPlaceIsTold(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		_, path := home(t, "nobody", "one\n")
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		_, err = h.Edit(t.Context(), mine, "nobody", path, add("two"))
		must(t, err)
		must(t, f.Truncate(0))
		_, err = f.WriteString("eins\n")
		must(t, err)
		_, err = h.Edit(t.Context(), mine, "nobody", path, add("three"))
		kind(t, err, trust.Conflict, "in place", hexSum([]byte("eins\n")))
		if got := content(t, path); got != "one\ntwo\n" {
			t.Errorf("%q", got)
		}
		_, err = h.Edit(t.Context(), mine, "nobody", path, add("three"))
		must(t, err)
		must(t, h.Release(t.Context(), mine, "nobody", path))
	})
}

// A writer that renames, as Ansible does, between our read and our write: its
// content is what we edit.
func TestRenamingWriter(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		_, path := home(t, "nobody", "one\n")
		calls := 0
		change, err := h.Edit(t.Context(), mine, "nobody", path, func(old []byte) ([]byte, error) {
			if calls++; calls == 1 {
				must(t, os.WriteFile(path+".tmp", []byte("uno\n"), 0o600))
				chown(t, path+".tmp", "nobody")
				must(t, os.Rename(path+".tmp", path))
			}
			return add("two")(old)
		})
		must(t, err)
		if content(t, path) != "uno\ntwo\n" || string(change.Before) != "uno\n" || calls != 2 {
			t.Errorf("%q after %d calls", content(t, path), calls)
		}
	})
}

func TestLock(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir, path := home(t, "nobody", "one\n")
		must(t, h.Hold(t.Context(), mine, "nobody", path))
		must(t, h.Hold(t.Context(), mine, "nobody", path))
		for name, c := range map[string]struct {
			lock Lock
			kind trust.Kind
		}{
			"another installation": {Lock{"elsewhere", 9, "run-1"}, trust.Conflict},
			"another run":          {Lock{"home", 9, "run-2"}, trust.Unavailable},
			"an earlier claim":     {Lock{"home", 2, "run-1"}, trust.Conflict},
		} {
			for op, do := range map[string]func() error{
				"hold":    func() error { return h.Hold(t.Context(), c.lock, "nobody", path) },
				"edit":    func() error { _, err := h.Edit(t.Context(), c.lock, "nobody", path, add("two")); return err },
				"release": func() error { return h.Release(t.Context(), c.lock, "nobody", path) },
			} {
				err := do()
				kind(t, err, c.kind, "run-1", "epoch 3", "home")
				var locked *LockedError
				if !errors.As(err, &locked) || locked.By != mine {
					t.Errorf("%s %s: cause %+v", name, op, locked)
				}
			}
		}
		if content(t, path) != "one\n" {
			t.Errorf("%q", content(t, path))
		}
		later := Lock{"home", 4, "run-1"}
		_, err := h.Edit(t.Context(), later, "nobody", path, add("two"))
		must(t, err)
		kind(t, h.Hold(t.Context(), mine, "nobody", path), trust.Conflict, "epoch 4")
		must(t, h.Release(t.Context(), later, "nobody", path))
		only(t, filepath.Join(dir, ".ssh"), "authorized_keys")
		kind(t, h.Hold(t.Context(), Lock{"a b", 1, "r"}, "nobody", path), trust.Invalid)
	})
}

// Two claims at once: never do both get it.
func TestLockHasOneHolder(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		_, path := home(t, "nobody", "one\n")
		locks := []Lock{{"a", 1, "r1"}, {"a", 1, "r2"}, {"b", 7, "r3"}}
		for round := range 5 {
			var group sync.WaitGroup
			errs := make([]error, len(locks))
			for i, l := range locks {
				group.Go(func() { errs[i] = h.Hold(t.Context(), l, "nobody", path) })
			}
			group.Wait()
			holders := 0
			for i, l := range locks {
				if errs[i] == nil {
					holders++
					must(t, h.Release(t.Context(), l, "nobody", path))
				} else if k := trust.KindOf(errs[i]); k != trust.Conflict && k != trust.Unavailable {
					t.Errorf("%v", errs[i])
				}
			}
			if holders > 1 {
				t.Errorf("round %d: %d holders", round, holders)
			}
		}
		// Whoever lost left nothing that would keep others out.
		must(t, h.Hold(t.Context(), Lock{"c", 1, "r"}, "nobody", path))
	})
}

// shims puts programs before those of the variant that run script first.
func shims(t testing.TB, v variant, script string, names ...string) variant {
	t.Helper()
	dir := publicDir(t)
	path := v.tools + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
	for _, name := range append(names, "sh") {
		real := ""
		for _, d := range strings.Split(path, ":") {
			if p := filepath.Join(d, name); real == "" && fileExists(p) {
				real = p
			}
		}
		if name == "sh" {
			must(t, os.Symlink(v.shell, filepath.Join(dir, name)))
			v.sh = filepath.Join(dir, name)
			continue
		}
		text := fmt.Sprintf("#!/bin/dash\ntool=%s; real=%s\n%s\n", name, real, script)
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	v.tools = dir + ":" + v.tools
	return v
}

// A node's rename hangs while another node, with a later claim, takes over and
// changes the file. When it goes on it finds nothing to rename.
func TestSleeperCannotAct(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		_, path := home(t, "nobody", "one\n")
		if v.name == "busybox" {
			return // its shell runs its own mv, whatever PATH says
		}
		gate := filepath.Join(publicDir(t), "gate")
		must(t, os.Chmod(filepath.Dir(gate), 0o777))
		slow := shims(t, v, fmt.Sprintf(`case $* in *new.*) echo >%[1]s.reached; n=0; while [ ! -e %[1]s ] && [ $n -lt 600 ]; do n=$((n+1)); sleep 0.1; done;; esac; exec "$real" "$@"`, gate), "mv", "perl")
		sleeper := slow.host(t, nil)
		done := make(chan error, 1)
		go func() {
			// The file changes once more, for the sleeper's own loop: it must not
			// come to act by trying again either.
			_, err := sleeper.Edit(t.Context(), mine, "nobody", path, add("sleeper"))
			done <- err
		}()
		for n := 0; !fileExists(gate + ".reached"); n++ { // it is about to rename
			if wait(t.Context(), 10*time.Millisecond); n > 3000 {
				t.Fatal("the sleeper does not get to its rename")
			}
		}
		later := Lock{"home", 4, "run-1"}
		_, err := h.Edit(t.Context(), later, "nobody", path, add("two"))
		must(t, err)
		must(t, os.WriteFile(gate, []byte("go\n"), 0))
		kind(t, <-done, trust.Conflict, "epoch 4")
		if got := content(t, path); got != "one\ntwo\n" {
			t.Errorf("the sleeper acted: %q", got)
		}
		must(t, h.Release(t.Context(), later, "nobody", path))
	})
}

// A writer that renames at the last moment, when we have compared the content and
// are about to rename ourselves.
func TestRenamingWriterAtTheLastMoment(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		if v.name == "busybox" {
			return // its shell runs its own tools, whatever PATH says
		}
		_, path := home(t, "nobody", "one\n")
		other := path + ".other"
		must(t, os.WriteFile(other, []byte("uno\n"), 0o600))
		chown(t, other, "nobody")
		// The new file gets its attributes after the old one was linked.
		late := shims(t, v, fmt.Sprintf(`case $* in *new.*) mv -f %s %s 2>/dev/null;; esac; exec "$real" "$@"`, other, path), "cp")
		_, err := late.host(t, nil).Edit(t.Context(), mine, "nobody", path, add("two"))
		must(t, err)
		if got := content(t, path); got != "uno\ntwo\n" {
			t.Errorf("%q", got)
		}
	})
}

// A writer that renames between our last look and our own rename, where the host can
// exchange names: what it renamed is there in the end. So is what comes while its file is
// given its place back: a line that is appended to ours, or a file that is renamed over it.
func TestRenamingWriterAfterTheLastLook(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		if h.renameat2() == "-" {
			need.Program(t, "perl", "perl-base")
			return // not a kernel of which the number is known
		}
		for then, want := range map[string]string{
			"echo ours >>":  "uno\nours\ntwo\n",
			"mv -f %[1]s.2": "eins\ntwo\n",
			"true":          "uno\ntwo\n",
		} {
			_, path := home(t, "nobody", "one\n")
			for name, text := range map[string]string{path + ".1": "uno\n", path + ".2": "eins\n"} {
				must(t, os.WriteFile(name, []byte(text), 0o600))
				chown(t, name, "nobody")
			}
			late := shims(t, v, fmt.Sprintf(`if [ -e %[1]s.1 ]; then mv -f %[1]s.1 %[1]s; elif [ -e %[1]s.2 ]; then `+then+` %[1]s; rm -f %[1]s.2; fi; exec "$real" "$@"`, path), "perl")
			_, err := late.host(t, nil).Edit(t.Context(), mine, "nobody", path, add("two"))
			must(t, err)
			if got := content(t, path); got != want {
				t.Errorf("%s: %q", then, got)
			}
			must(t, h.Release(t.Context(), mine, "nobody", path))
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
				t.Errorf("%s: left behind: %v", then, left)
			}
		}
	})
}

// GNU's mv exchanges names since 9.5, and does nothing else: what is left to do is done.
func TestExchangeByMv(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		if v.name == "busybox" || h.renameat2() == "-" {
			return // its shell runs its own mv, whatever PATH says; or nothing exchanges here
		}
		dir, path := home(t, "nobody", "one\n")
		old, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		defer old.Close()
		said := filepath.Join(publicDir(t), "said")
		must(t, os.Chmod(filepath.Dir(said), 0o777))
		newer := shims(t, v, fmt.Sprintf(`case $tool.$1 in mv.--exchange) echo >%s; exec perl -e 'exit(syscall(shift() + 0, -100, shift(), -100, shift(), 2) ? 1 : 0)' %s "$4" "$5";; esac; exec "$real" "$@"`, said, h.renameat2()), "mv").host(t, nil)
		newer.kernel = "Another"
		_, err = newer.Edit(t.Context(), mine, "nobody", path, add("two"))
		must(t, err)
		if !fileExists(said) {
			t.Error("mv was not asked to exchange")
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".ssh", ".*.keyturn", "new.*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		_, err = old.WriteString("late\n")
		must(t, err)
		must(t, newer.Release(t.Context(), mine, "nobody", path))
		if got := content(t, path); got != "one\ntwo\nlate\n" {
			t.Errorf("%q", got)
		}
		only(t, filepath.Join(dir, ".ssh"), "authorized_keys")
	})
}

// Bytes that get lost on the way are not written.
func TestShortUpload(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		run := v.exec()
		cut, err := open(t.Context(), "here", "root", None, nil, func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
			return run(ctx, command, stdin[:len(stdin)/2], limit)
		}, nil)
		must(t, err)
		_, path := home(t, "nobody", "one\n")
		_, err = cut.Edit(t.Context(), mine, "nobody", path, add("two"))
		kind(t, err, trust.Unavailable, "short")
		old := pair(t, "-t", "ed25519")
		_, id := place(t, "nobody", old)
		kind(t, cut.Install(t.Context(), mine, "nobody", id, old, pair(t, "-t", "ed25519")), trust.Unavailable, "short")
		if content(t, path) != "one\n" || content(t, id) != string(old.Private) || content(t, id+".pub") != string(old.Public) {
			t.Errorf("%q", content(t, path))
		}
	})
}

// The new content is on the disk before it has the name, and the name is before the
// edit is called done.
func TestEditIsDurable(t *testing.T) {
	need.Root(t)
	strace := need.Program(t, "strace", "strace")
	v := variants(t)[0]
	dir := publicDir(t)
	trace := filepath.Join(dir, "trace")
	run := v.exec()
	h, err := open(t.Context(), "here", "root", None, nil, func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
		return run(ctx, strace+" -f -qq -y -e trace=fsync,rename,renameat,renameat2 -o "+trace+" sh -c "+quote(command), stdin, limit)
	}, nil)
	must(t, err)
	_, path := home(t, "nobody", "one\n")
	_, err = h.Edit(t.Context(), mine, "nobody", path, add("two"))
	must(t, err)
	var order []string
	for line := range strings.Lines(content(t, trace)) { // of the last op: the swap
		switch {
		case strings.Contains(line, "fsync(") && strings.Contains(line, "/new."):
			order = append(order, "content")
		case strings.Contains(line, "rename") && strings.Contains(line, "new.") && strings.HasSuffix(line, "= 0\n"):
			order = append(order, "rename")
		case strings.Contains(line, "fsync(") && strings.Contains(line, filepath.Dir(path)+">"):
			order = append(order, "directory")
		}
	}
	if got := strings.Join(order, " "); got != "content rename directory" {
		t.Errorf("order on the disk: %q\n%s", got, content(t, trace))
	}
}
