package keyring

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// rewrap is the commit in the middle of a rotation.
func rewrap(s *store.Store, k *Keyring, kek KEK) error {
	return update(s, trust.Installation, func(tx *store.Tx) error { return k.Rewrap(tx, kek) })
}

func rotateKEK(t testing.TB, s *store.Store, k *Keyring) error {
	t.Helper()
	kek, changed, err := k.Next(t.Context())
	if err != nil || !changed {
		return errors.Join(err, errorUnless(changed, "there is no other key"))
	}
	if err := rewrap(s, k, kek); err != nil {
		return err
	}
	return k.Settle(kek)
}

func errorUnless(ok bool, why string) error {
	if ok {
		return nil
	}
	return errors.New(why)
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// sources is one of each kind, with nothing in common.
func sources(t testing.TB) map[string]Source {
	dir := t.TempDir()
	key := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", kekSize)))
	return map[string]Source{
		"file":            File(filepath.Join(dir, "kek"), filepath.Join(dir, "data")),
		"command":         Command("cat "+write(t, filepath.Join(dir, "key"), key+"\n"), os.Environ()),
		"passphrase file": Passphrase(write(t, filepath.Join(dir, "passphrase"), "correct horse battery\n"), filepath.Join(dir, "data")),
		"another file":    File(filepath.Join(dir, "another"), ""),
	}
}

// A node starts with each source, again and again, with no other, and changes over
// from each to each, once; afterwards the one before is refused.
func TestSources(t *testing.T) {
	need.Long(t)
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		kinds := []string{"file", "command", "passphrase file", "another file"}
		all := sources(t)
		p := generate(t, "ed25519")
		var was Source
		for i, kind := range kinds {
			source := all[kind]
			if was != nil {
				// To name the one before, still, changes nothing.
				if _, err := Start(t.Context(), s, source, nil); trust.KindOf(err) != trust.Denied && trust.KindOf(err) != trust.NotFound {
					t.Errorf("%s, without the source before: %v, want denied", source, err)
				}
			}
			k, err := Start(t.Context(), s, source, was)
			if err != nil {
				t.Fatalf("%s after %v: %v", source, was, err)
			}
			if i == 0 {
				must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, "a", p) }))
			}
			for _, was := range []Source{nil, was} {
				k, err := Start(t.Context(), s, source, was)
				if err != nil {
					t.Fatalf("%s again, after %v: %v", source, was, err)
				}
				if _, err := k.Signer(t.Context(), storetest.Tenant, "a"); err != nil {
					t.Errorf("%s: %v", source, err)
				}
			}
			if was != nil {
				_, err := Start(t.Context(), s, was, nil)
				r, rootErr := readRoot(t.Context(), s)
				must(t, rootErr)
				if trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), r.name) {
					t.Errorf("the source before, %s: %v, want denied, and %q named", was, err, r.name)
				}
			}
			was = source
		}
		if n := countEvents(t, s, "kek.rotate"); n != len(kinds)-1 {
			t.Errorf("%d events tell of %d changes", n, len(kinds)-1)
		}
	})
}

func countEvents(t testing.TB, s *store.Store, action string) (n int) {
	t.Helper()
	list, err := s.Events(t.Context(), trust.Installation, "", "", 1000)
	must(t, err)
	for _, r := range list {
		if r.Leaf.Action == action {
			n++
		}
	}
	return n
}

func TestCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := LoadKEK(filepath.Join(dir, "kek"), "", true)
	must(t, err)
	key := base64.StdEncoding.EncodeToString(make([]byte, kekSize))
	for command, want := range map[string]string{
		"cat " + dir + "/kek":                  "",
		"(echo '# ours'; cat " + dir + "/kek)": "",
		"echo; echo " + key + "; echo":         "",
		"echo $K":                              "",
		"echo no vault here >&2; exit 3":       "exit status 3: no vault here",
		"true":                                 "neither",
		"echo " + key[4:]:                      "neither",
		"head -c 2000 /dev/zero":               "more than 1024 bytes",
		"echo keyturn-kek-v1":                  "lines instead of 3",

		"head -c 9999 /dev/zero | tr '\\0' e >&2; false": strings.Repeat("e", maxComplaint),
	} {
		kek, err := Command(command, []string{"PATH=" + os.Getenv("PATH"), "K=" + key}).load(t.Context(), root{})
		if want == "" && (err != nil || kek.name == "") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60q: %.200v, want %.60q", command, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), key[4:20]) && !strings.Contains(command, key[4:20]) || len(err.Error()) > maxComplaint+500) {
			t.Errorf("%.60q: the error is %.200q of %d bytes", command, err, len(err.Error()))
		}
	}
}

// A command that hangs is killed, with what it has started.
func TestCommandThatHangs(t *testing.T) {
	t.Parallel()
	need.Within(t, time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := Command("sleep 1000 | sleep 1000", os.Environ()).load(ctx, root{})
	if trust.KindOf(err) != trust.Unavailable || time.Since(begun) > 20*time.Second {
		t.Errorf("after %s: %v, want unavailable at once", time.Since(begun), err)
	}
}

func TestPassphrase(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, schemas...)
	path := filepath.Join(t.TempDir(), "passphrase")
	source := Passphrase(write(t, path, "short\n"), "")
	if _, err := Start(t.Context(), s, source, nil); trust.KindOf(err) != trust.Invalid {
		t.Errorf("a short one: %v, want invalid", err)
	}
	write(t, path, "correct horse battery")
	k, err := Start(t.Context(), s, source, nil)
	must(t, err)
	before, err := readRoot(t.Context(), s)
	must(t, err)
	if err := rotateKEK(t, s, k); err == nil {
		t.Error("rotated to the same passphrase")
	}
	write(t, path, "battery staple horse\r\n")
	if _, err := Start(t.Context(), s, source, nil); trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), before.name) {
		t.Errorf("another passphrase: %v, want denied, and %q named", err, before.name)
	}
	must(t, rotateKEK(t, s, k))
	after, err := readRoot(t.Context(), s)
	must(t, err)
	if after.name == before.name || string(after.seed) == string(before.seed) {
		t.Errorf("after the rotation it is %q with the seed %q, before %q with %q", after.name, after.seed, before.name, before.seed)
	}
	typed := Typed(func(_ context.Context, fresh bool) ([]byte, error) {
		return []byte("battery staple horse"), errorUnless(!fresh, "asked twice")
	})
	k, err = Start(t.Context(), s, typed, nil)
	must(t, err)
	if err := rotateKEK(t, s, k); trust.KindOf(err) != trust.Conflict {
		t.Errorf("a rotation of what was typed: %v, want a conflict", err)
	}
	must(t, os.Chmod(path, 0o644))
	if _, err := Start(t.Context(), s, source, nil); trust.KindOf(err) != trust.Denied {
		t.Errorf("a file that others may read: %v, want denied", err)
	}
}

// Wherever a rotation of the key file is cut off, the next start finds its key, and
// leaves one file with it, and the next rotation goes on.
func TestRotationOfTheFileIsCutOff(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		dir := t.TempDir()
		source := File(filepath.Join(dir, "kek"), "")
		k, err := Start(t.Context(), s, source, nil)
		must(t, err)
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, "a", generate(t, "ed25519")) }))
		for cut, rotate := range map[string]func() (committed bool){
			"before the next key is whole": func() bool {
				write(t, unfinished(filepath.Join(dir, "kek.next")), "keyturn-kek-v1\nname ")
				return false
			},
			"when the next key has two names": func() bool {
				kek, _, err := k.Next(t.Context())
				must(t, err)
				must(t, os.Link(filepath.Join(dir, "kek.next"), unfinished(filepath.Join(dir, "kek.next"))))
				must(t, rewrap(s, k, kek))
				return true
			},
			"when the first key had two names": func() bool {
				must(t, os.Link(filepath.Join(dir, "kek"), unfinished(filepath.Join(dir, "kek"))))
				return false
			},
			"before the commit": func() bool {
				_, _, err := k.Next(t.Context())
				must(t, err)
				return false
			},
			"in the commit": func() bool {
				kek, _, err := k.Next(t.Context())
				must(t, err)
				_ = update(s, trust.Installation, func(tx *store.Tx) error { return errors.Join(k.Rewrap(tx, kek), errors.New("cut off")) })
				return false
			},
			"before the rename": func() bool {
				kek, _, err := k.Next(t.Context())
				must(t, err)
				must(t, rewrap(s, k, kek))
				return true
			},
			"nowhere": func() bool { must(t, rotateKEK(t, s, k)); return true },
		} {
			before, err := readRoot(t.Context(), s)
			must(t, err)
			was, err := os.ReadFile(filepath.Join(dir, "kek"))
			must(t, err)
			committed := rotate()
			if k, err = Start(t.Context(), s, source, nil); err != nil {
				t.Fatalf("cut off %s: %v", cut, err)
			}
			if _, err := k.Signer(t.Context(), storetest.Tenant, "a"); err != nil {
				t.Errorf("cut off %s: %v", cut, err)
			}
			after, err := readRoot(t.Context(), s)
			must(t, err)
			if kek, err := LoadKEK(filepath.Join(dir, "kek"), "", false); err != nil || kek.name != after.name || (kek.name != before.name) != committed {
				t.Errorf("cut off %s: the file holds %q, %v; the database wants %q, before %q", cut, kek.name, err, after.name, before.name)
			}
			if _, err := os.Lstat(filepath.Join(dir, "kek.next")); committed && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("cut off %s: the next key is still beside it", cut)
			}
			if hidden, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(hidden) > 0 {
				t.Errorf("cut off %s: left are %q, %v", cut, hidden, err)
			}
			if kept, err := os.ReadFile(filepath.Join(dir, "kek."+before.name)); committed && (err != nil || !bytes.Equal(kept, was)) {
				t.Errorf("cut off %s: the key from before is not kept: %v", cut, err)
			}
			old := File(write(t, filepath.Join(dir, "old"), string(was)), "")
			if _, err := Start(t.Context(), s, old, nil); committed && (trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), before.name) || !strings.Contains(err.Error(), after.name)) {
				t.Errorf("cut off %s: with the old file: %v, want denied, naming both", cut, err)
			}
		}
		// One that was cut off after its commit goes on in the same process, too.
		kek, _, err := k.Next(t.Context())
		must(t, err)
		must(t, rewrap(s, k, kek))
		must(t, rotateKEK(t, s, k))
		_, err = Start(t.Context(), s, source, nil)
		must(t, err)
	})
}

// What lies where the next key is to be, and is none, is in the way of a rotation and not of a
// start.
func TestNextKeyThatIsNone(t *testing.T) {
	t.Parallel()
	for _, damaged := range []bool{true, false} {
		s, dir := storetest.Open(t, schemas...), t.TempDir()
		source := File(filepath.Join(dir, "kek"), "")
		k, err := Start(t.Context(), s, source, nil)
		must(t, err)
		if k.Left() != "" {
			t.Errorf("there is left %s", k.Left())
		}
		_, _, err = k.Next(t.Context())
		must(t, err)
		next, says := filepath.Join(dir, "kek.next"), "others than its owner may read"
		if damaged {
			write(t, next, "keyturn-kek-v1\n")
			says = "1 lines instead of 3"
		} else {
			must(t, os.Chmod(next, 0o644))
		}
		k, err = Start(t.Context(), s, source, nil)
		if err != nil {
			t.Fatalf("damaged %t: %v", damaged, err)
		}
		if left := k.Left(); !strings.Contains(left, "ignored") || !strings.Contains(left, says) || !strings.Contains(left, next) {
			t.Errorf("damaged %t: there is left %q", damaged, left)
		}
		err = rotateKEK(t, s, k)
		if e := (*trust.Error)(nil); !errors.As(err, &e) || !strings.Contains(e.Hint, "rm "+next) {
			t.Errorf("damaged %t: rotated: %v", damaged, err)
		}
		must(t, os.Remove(next))
		must(t, rotateKEK(t, s, k))

		// It is in the way where it is the one that the database wants.
		kek, _, err := k.Next(t.Context())
		must(t, err)
		must(t, rewrap(s, k, kek))
		must(t, os.Chmod(next, 0o644))
		if _, err := Start(t.Context(), s, source, nil); err == nil {
			t.Error("started with a key that others may read")
		}
	}
}

// Of whoever types, the passphrase from before is asked for while it is needed, and none by a
// database that has not one.
func TestPassphraseIsAskedForWhileNeeded(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, schemas...)
	var asked []string
	typed := func(name, text string) Source {
		return Typed(func(_ context.Context, fresh bool) ([]byte, error) {
			if fresh {
				name = "fresh " + name
			}
			asked = append(asked, name)
			return []byte(text), nil
		})
	}
	start := func(want string, source, was Source) {
		t.Helper()
		asked = nil
		_, err := Start(t.Context(), s, source, was)
		must(t, err)
		if got := strings.Join(asked, ", "); got != want {
			t.Errorf("asked for %s; want %s", got, want)
		}
	}
	dir := t.TempDir()
	first, second := "correct horse battery", "battery staple horse"
	file := File(filepath.Join(dir, "kek"), "")
	start("", file, nil)
	start("fresh new", typed("new", first), file)
	start("new", typed("new", first), file)
	start("new, old, fresh new", typed("new", second), typed("old", first))
	start("new", typed("new", second), typed("old", first))
	start("old", File(filepath.Join(dir, "another"), ""), typed("old", second))
	start("", File(filepath.Join(dir, "another"), ""), typed("old", second))
}

// Of nodes that start at the same time with the same sources, those that are second find
// what the first one made or changed over to.
func TestStartsAtTheSameTime(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		// The other node starts, from its beginning to its end, while this one derives.
		source := func(other func()) Source {
			return Typed(func(context.Context, bool) ([]byte, error) {
				if start := other; start != nil {
					other = nil
					start()
				}
				return []byte("correct horse battery"), nil
			})
		}
		file := File(filepath.Join(t.TempDir(), "kek"), "")
		for _, was := range []Source{nil, file} {
			if was != nil {
				_, err := Start(t.Context(), s, was, source(nil)) // back to it
				must(t, err)
			}
			var first *Keyring
			second, err := Start(t.Context(), s, source(func() {
				var err error
				first, err = Start(t.Context(), s, source(nil), was)
				must(t, err)
			}), was)
			if err != nil {
				t.Fatalf("second, after %v: %v", was, err)
			}
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return first.Seal(tx, "snapshot", fmt.Sprint(was), []byte("text")) }))
			must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
				_, err := second.Unseal(tx, "snapshot", fmt.Sprint(was))
				return err
			}))
		}
	})
}

// Each of several nodes has a copy of the key file. When one has rotated it, the
// others go on, and neither start nor rotate before they have a copy of the new one.
func TestRotationOnOneOfTwoNodes(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		here, there := filepath.Join(t.TempDir(), "kek"), filepath.Join(t.TempDir(), "kek")
		first, err := Start(t.Context(), s, File(here, ""), nil)
		must(t, err)
		copyFile := func() {
			text, err := os.ReadFile(here)
			must(t, err)
			write(t, there, string(text))
		}
		copyFile()
		second, err := Start(t.Context(), s, File(there, ""), nil)
		must(t, err)
		must(t, rotateKEK(t, s, first))
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return second.Put(tx, "a", generate(t, "ed25519")) }))
		if _, err := first.Signer(t.Context(), storetest.Tenant, "a"); err != nil {
			t.Errorf("what the other node sealed: %v", err)
		}
		if _, err := Start(t.Context(), s, File(there, ""), nil); trust.KindOf(err) != trust.Denied || !strings.Contains(hint(err), "copy of that node's file") {
			t.Errorf("a start with the old file: %v, want denied, and what to do", err)
		}
		if err := rotateKEK(t, s, second); trust.KindOf(err) != trust.Conflict {
			t.Errorf("a rotation with the old file: %v, want a conflict", err)
		}
		copyFile()
		must(t, rotateKEK(t, s, second))
		_, err = Start(t.Context(), s, File(there, ""), nil)
		must(t, err)
	})
}

func hint(err error) string {
	var e *trust.Error
	errors.As(err, &e)
	return e.Hint
}

// Several processes that have the same file rotate at the same time: some do, others
// are told that somebody else did, and the file holds what the database wants.
func TestRotationsAtTheSameTime(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		path := filepath.Join(t.TempDir(), "kek")
		var wg sync.WaitGroup
		for range 4 {
			k, err := Start(t.Context(), s, File(path, ""), nil)
			if err != nil {
				t.Error(err)
				break
			}
			wg.Go(func() {
				for range 5 {
					if err := rotateKEK(t, s, k); err != nil && trust.KindOf(err) != trust.Conflict {
						t.Error(err)
					}
					if _, err := Start(context.Background(), s, File(path, ""), nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		_, err := Start(t.Context(), s, File(path, ""), nil)
		must(t, err)
		if n := countEvents(t, s, storetest.Event().Action); n < 5 {
			t.Errorf("%d rotations of 20", n)
		}
	})
}

func TestKMSThatIsNotBuiltIn(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{"": "URL", "file": "URL", "ftp://x": "no key management service"} {
		if _, err := KMS(address); trust.KindOf(err) != trust.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
	for scheme, tag := range kmsTags {
		if _, err := KMS(scheme + "://x"); !builtWith(scheme) && (trust.KindOf(err) != trust.Invalid || !strings.Contains(hint(err), "TAGS="+tag)) {
			t.Errorf("%s: %v, want the tag that is missing", scheme, err)
		}
	}
}
