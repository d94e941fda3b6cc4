package remote

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/dial"
	"keyturn/internal/trust"
)

// counting returns a host that counts the requests that are made of it.
func counting(t testing.TB, v variant) (h *Host, requests *int) {
	t.Helper()
	run, n := v.exec(), 0
	h, err := open(t.Context(), "here", "root", None, nil, func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
		n++
		if len(command) > 9000 {
			t.Errorf("a command of %d bytes is more than Dropbear takes", len(command))
		}
		return run(ctx, command, stdin, limit)
	}, nil)
	must(t, err)
	_, err = h.account(t.Context(), "nobody")
	must(t, err)
	n = 0
	return h, &n
}

// A file is looked at and locked by one request, and the edit that follows takes one
// more.
func TestHoldFile(t *testing.T) {
	each(t, func(t *testing.T, v variant, _ *Host) {
		h, requests := counting(t, v)
		dir, path := home(t, "nobody", "one\n")
		must(t, os.WriteFile(path+"2", []byte("two\n"), 0o644))
		f, others, err := h.HoldFile(t.Context(), mine, "nobody", path, []string{path + "2", path + "3"})
		must(t, err)
		if string(f.Content) != "one\n" || f.SHA256 != hexSum(f.Content) || f.Fixed != "" || f.Mode != 0o600 || len(f.Directories) == 0 {
			t.Errorf("the file is %+v", f)
		}
		if string(others[0].Content) != "two\n" || !others[1].Absent {
			t.Errorf("beside it lie %+v", others)
		}
		change, err := h.Edit(t.Context(), mine, "nobody", path, add("more"))
		if err != nil || string(change.After) != "one\nmore\n" || *requests != 2 {
			t.Errorf("%q, %v after %d requests, want 2", change.After, err, *requests)
		}
		_, _, err = h.HoldFile(t.Context(), another, "nobody", path, nil)
		var locked *LockedError
		if !errors.As(err, &locked) || locked.By != mine {
			t.Errorf("the lock of another run: %v", err)
		}
		must(t, h.Release(t.Context(), mine, "nobody", path))
		only(t, filepath.Join(dir, ".ssh"), "authorized_keys", "authorized_keys2")
	})
}

// What an edit would not do is told, and not locked.
func TestHoldFileThatIsFixed(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir, path := home(t, "nobody", "one\n")
		f, _, err := h.HoldFile(t.Context(), mine, "nobody", path+".none", nil)
		if err != nil || !f.Absent {
			t.Errorf("a file that is not there: %+v, %v", f, err)
		}
		must(t, os.Link(path, path+".other"))
		f, _, err = h.HoldFile(t.Context(), mine, "nobody", path, nil)
		if err != nil || !strings.Contains(f.Fixed, "2 names") {
			t.Errorf("a file with two names: %+v, %v", f, err)
		}
		only(t, filepath.Join(dir, ".ssh"), "authorized_keys", "authorized_keys.other")
	})
}

// What does not fit into one command is asked by several.
func TestRequestsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, v variant, _ *Host) {
		h, requests := counting(t, v)
		_, path := home(t, "nobody", "one\n")
		paths := slices.Repeat([]string{path, path + "." + strings.Repeat("x", 150)}, 60)
		files, err := h.Files(t.Context(), "nobody", paths)
		must(t, err)
		for i, f := range files {
			if f.Path != paths[i] || f.Absent != (i%2 == 1) {
				t.Fatalf("file %d is %+v", i, f)
			}
		}
		if len(files) != len(paths) || *requests < 3 || *requests > 12 {
			t.Errorf("%d files by %d requests", len(files), *requests)
		}
	})
}

// Several ops of one account are run by one shell, each with its own arguments and
// whatever came of the one before.
func TestOneShellForSeveralOps(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		_, path := home(t, "nobody", "one\n")
		h.shells.end(t.Context()) // by a request of its own
		run, shells := h.exec, 0
		h.exec = func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
			shells += strings.Count(command, "sh -c ")
			return run(ctx, command, stdin, limit)
		}
		read := func(paths ...string) call {
			c := call{op: opRead, as: root, nonce: newNonce()}
			c.args = []string{c.nonce, "100", ""}
			for _, p := range paths {
				c.args = append(c.args, "text", p)
			}
			return c
		}
		none := call{op: opConfig, as: root, args: []string{path + ".none", "user=nobody"}}
		answers, err := h.runAll(t.Context(), read(path, path+"2"), h.listing("nobody"), none, read(), call{op: opLookup, as: root, args: []string{"nobody"}}, read(path))
		must(t, err)
		if got := string(answers[0].lines[3].block); got != "one\n" || len(answers[0].lines) != 7 {
			t.Errorf("the first answers %+v", answers[0])
		}
		if a, err := h.readAccount(answers[1], "nobody"); err != nil || a.User != "nobody" {
			t.Errorf("the second answers %+v, %v", a, err)
		}
		if answers[2].no == nil || answers[2].no.word != "absent" || len(answers[3].lines) != 0 || len(answers[4].lines) == 0 {
			t.Errorf("a refusal %+v, and after it %+v and %+v", answers[2], answers[3], answers[4])
		}
		if got := string(answers[5].lines[3].block); got != "one\n" {
			t.Errorf("the last answers %+v", answers[5])
		}
		if shells != 1 {
			t.Errorf("%d shells were started for them, want 1", shells)
		}
	})
}

// Of ops whose answers did not all arrive it is not known what they did.
func TestSecondAnswerCutOff(t *testing.T) {
	each(t, func(t *testing.T, v variant, whole *Host) {
		run := v.exec()
		h, err := open(t.Context(), "here", "root", None, nil, func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
			result, err := run(ctx, command, stdin, limit)
			if at := strings.Index(string(result.Stdout), "keyturn hold 1\n"); at >= 0 {
				result.Stdout, result.Exit = result.Stdout[:at], 1
			}
			return result, err
		}, nil)
		must(t, err)
		_, path := home(t, "nobody", "one\n")
		_, _, err = h.HoldFile(t.Context(), mine, "nobody", path, []string{path + "2"})
		kind(t, err, trust.Unavailable, "hold")
		_, _, err = whole.HoldFile(t.Context(), mine, "nobody", path, nil)
		must(t, err)
	})
}
