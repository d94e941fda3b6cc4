package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyturn/internal/dial"
	"keyturn/internal/trust"
)

// asked returns a host of a variant that counts what starts there: commands, and shells
// that stay.
func asked(t *testing.T, v variant) (h *Host, commands, shells *int) {
	t.Helper()
	run, start := v.exec(), v.start(t)
	commands, shells = new(int), new(int)
	h, err := open(t.Context(), "here", "root", None, nil,
		func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error) {
			*commands++
			return run(ctx, command, stdin, limit)
		},
		func(ctx context.Context, command string) (*dial.Process, error) {
			*shells++
			return start(ctx, command)
		})
	must(t, err)
	return h, commands, shells
}

// said has the shell of the login do what a line says, and returns what it answers.
func said(t *testing.T, h *Host, line, stdin string) dial.Result {
	t.Helper()
	s := h.shells.of(t.Context(), "sh -c", true)
	if s == nil || !s.ready(t.Context(), h.shells.start, "sh -c") {
		t.Fatal("no shell stays")
	}
	var in []byte
	if stdin != "absent" {
		in = []byte(stdin)
	}
	result, err := s.run(t.Context(), line, in)
	must(t, err)
	return result
}

// All that is done on a connection is done by one shell for each account, and nothing of
// what an op does to its shell is seen by the next.
func TestOneShellStays(t *testing.T) {
	each(t, func(t *testing.T, v variant, _ *Host) {
		h, commands, shells := asked(t, v)
		_, path := home(t, "root", "one\n")
		for range 3 {
			_, _, err := h.HoldFile(t.Context(), mine, "root", path, nil)
			must(t, err)
			_, err = h.Edit(t.Context(), mine, "root", path, add("it's $HOME \\ `x` *"))
			must(t, err)
			_, err = h.Edit(t.Context(), mine, "root", path, func([]byte) ([]byte, error) { return []byte("\n\t.\n.\nno end"), nil })
			must(t, err)
			must(t, h.Release(t.Context(), mine, "root", path))
			if got := content(t, path); got != "\n\t.\n.\nno end" {
				t.Errorf("%q", got)
			}
		}
		if *commands != 0 || *shells != 1 {
			t.Errorf("%d commands and %d shells, want one shell", *commands, *shells)
		}
		state := `pwd; umask; trap; set | grep -c "^own="; case $- in *[fC]*) echo "$-";; esac; set -- *; [ $# -gt 1 ] && echo "$IFS"`
		got := strings.Replace(string(said(t, h, state, "absent").Stdout), "trap -- '' HUP\n", "", 1) // of nohup(1) around the tests
		if got != "/\n0077\n0\n \t\n\n" {
			t.Errorf("an op left behind: %q", got)
		}

		// Another account has one from the second time on that it is asked for in a row,
		// and not two of them have one.
		*shells = 0
		for _, user := range []string{"nobody", "daemon", "nobody", "nobody", "nobody", "daemon", "daemon"} {
			_, _ = h.Files(t.Context(), user, []string{path})
		}
		h.shells.mu.Lock()
		staying := len(h.shells.by)
		h.shells.mu.Unlock()
		if *commands != 4 || *shells != 2 || staying != 2 {
			t.Errorf("%d commands, %d shells started, %d shells stay; want 4, 2, 2", *commands, *shells, staying)
		}
	})
}

// What goes to an op comes there as it was, and what it says comes back as it said it,
// with its exit status, stdout and stderr told apart.
func TestShellIsExact(t *testing.T) {
	each(t, func(t *testing.T, v variant, _ *Host) {
		h, commands, _ := asked(t, v)
		for _, text := range []string{"absent", "", "\n", ".", ".\n", "x.\n.\n", "a\\b 'c' \"d\" $e `f` %s \\n\t\n\n  g", strings.Repeat("0123456789abcde\n", 500)} {
			want := text
			if text == "absent" {
				want = ""
			}
			got := said(t, h, "cat; echo oops >&2; (exit 3)", text)
			if string(got.Stdout) != want || string(got.Stderr) != "oops\n" || got.Exit != 3 {
				t.Errorf("%q: %q, %q, %d", text, got.Stdout, got.Stderr, got.Exit)
			}
		}
		looks := "keyturn shell 1\nkeyturn read 1\nok\n\n0 " + strings.Repeat("f", 32) + "\n"
		if got := said(t, h, "cat; cat >&2", looks); string(got.Stdout) != looks {
			t.Errorf("%q", got.Stdout)
		}
		_, path := home(t, "root", looks)
		for _, more := range []string{"é", "\x00", "\x81\x82\x88", "\r", strings.Repeat("x", maxLine)} {
			*commands = 0
			_, err := h.Edit(t.Context(), mine, "root", path, add(more))
			must(t, err)
			if looks += more + "\n"; content(t, path) != looks || *commands != 1 {
				t.Errorf("%.20q was written as %.200q, by %d commands", more, content(t, path), *commands)
			}
		}
		_, err := h.Edit(t.Context(), mine, "root", path+"é", add("x"))
		must(t, err)
	})
}

// However much a program says, what is kept of it is bounded, and the next op hears
// nothing of it.
func TestShellThatSaysTooMuch(t *testing.T) {
	t.Parallel()
	_, h, _ := sshHost(t, nil)
	got := said(t, h, "head -c 1000000 /dev/zero >&2; echo fine", "absent")
	if string(got.Stdout) != "fine\n" || len(got.Stderr) != maxStderr {
		t.Errorf("%q, and %d bytes of stderr", got.Stdout, len(got.Stderr))
	}
	_, err := h.shells.by["sh -c"].run(t.Context(), fmt.Sprintf("head -c %d /dev/zero", maxReply+100_000), nil)
	kind(t, err, trust.Exhausted)
	if got := said(t, h, "echo fine", "absent"); string(got.Stdout) != "fine\n" {
		t.Errorf("%q", got.Stdout)
	}
}

// A shell that somebody kills between two ops is started again; while it does something,
// it is not known what it did, and it is not done again.
func TestShellKilled(t *testing.T) {
	t.Parallel()
	s, h, _ := sshHostNamed(t, "web1", nil)
	one := h.shells.by["sh -c"]
	before := one.process
	if got := said(t, h, "kill -9 $$", "absent"); got.Exit != -1 {
		t.Errorf("%+v", got)
	}
	if one.process != nil {
		t.Error("a shell that has ended is spoken with")
	}
	<-before.Ended
	_, err := h.Files(t.Context(), s.User(), s.AuthorizedKeysFiles())
	must(t, err)
	after := one.process
	pid, err := os.FindProcess(number(t, said(t, h, "echo $$", "absent").Stdout))
	must(t, err)
	must(t, pid.Kill())
	<-after.Ended
	_, err = h.Files(t.Context(), s.User(), s.AuthorizedKeysFiles())
	must(t, err)

	path := filepath.Join(s.Home(), "times")
	_, err = h.answers(t.Context(), []call{{op: opSwap}}, func(ctx context.Context) (dial.Result, error) {
		return h.shells.by["sh -c"].run(ctx, "echo once >>"+path+"; kill -9 $$", nil)
	})
	kind(t, err, trust.Unavailable, "here", "swap")
	if got := content(t, path); got != "once\n" {
		t.Errorf("%q", got)
	}
}

// With the context of who asks, the connection ends, so that nobody reads an answer that
// another waited for. With the connection, however it ends, the shell does.
func TestShellEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	s, h, _ := sshHostNamed(t, "web1", nil)
	shell := fmt.Sprintf("/proc/%d", number(t, said(t, h, "echo $$", "absent").Stdout))
	mark := filepath.Join(s.Home(), "running")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for ctx.Err() == nil {
			if fileExists(mark) {
				cancel(errors.New("enough"))
			}
		}
	}()
	_, err := h.shells.by["sh -c"].run(ctx, "echo >"+mark+"; while [ -e "+mark+" ]; do :; done; echo late", nil)
	kind(t, err, trust.Unavailable, "enough")
	must(t, os.Remove(mark))
	_, err = h.Files(t.Context(), s.User(), s.AuthorizedKeysFiles())
	kind(t, err, trust.Unavailable)
	for deadline := time.Now().Add(time.Minute); fileExists(shell); {
		if time.Now().After(deadline) {
			t.Fatal("the shell is still there")
		}
	}
}

// Where no shell stays, everything is asked for by commands, and the server is asked for a
// shell once.
func TestNoShellStays(t *testing.T) {
	v := variants(t)[0]
	for name, start := range map[string]func(start func(context.Context, string) (*dial.Process, error), ctx context.Context, command string) (*dial.Process, error){
		"the command is too long": func(func(context.Context, string) (*dial.Process, error), context.Context, string) (*dial.Process, error) {
			return nil, trust.Errorf(trust.Denied, "too long")
		},
		"another greeting": func(start func(context.Context, string) (*dial.Process, error), ctx context.Context, command string) (*dial.Process, error) {
			return start(ctx, "echo Welcome; echo keyturn shell 2")
		},
		"printf is a program": func(start func(context.Context, string) (*dial.Process, error), ctx context.Context, command string) (*dial.Process, error) {
			return start(ctx, strings.Replace(command, "umask 077;", `umask 077; command() { echo "/bin/$2"; };`, 1))
		},
		"much is said before": func(start func(context.Context, string) (*dial.Process, error), ctx context.Context, command string) (*dial.Process, error) {
			return start(ctx, "head -c 200000 /dev/zero; "+command)
		},
		"it waits for its input": func(start func(context.Context, string) (*dial.Process, error), ctx context.Context, command string) (*dial.Process, error) {
			return start(ctx, "cat")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tries := 0
			real := v.start(t)
			h, err := open(t.Context(), "here", "root", None, nil, v.exec(), func(ctx context.Context, command string) (*dial.Process, error) {
				tries++
				return start(real, ctx, command)
			})
			must(t, err)
			_, path := home(t, "root", "one\n")
			_, err = h.Edit(t.Context(), mine, "root", path, add("two"))
			must(t, err)
			must(t, h.Release(t.Context(), mine, "root", path))
			if got := content(t, path); got != "one\ntwo\n" || tries != 1 {
				t.Errorf("%q after %d tries", got, tries)
			}
		})
	}
}

// What start-up files say first does no harm.
func TestShellAfterNoise(t *testing.T) {
	v := variants(t)[0]
	start := v.start(t)
	h, err := open(t.Context(), "here", "root", None, nil, nil, func(ctx context.Context, command string) (*dial.Process, error) {
		return start(ctx, "echo Welcome; printf 'no newline '; echo oops >&2; "+command)
	})
	must(t, err)
	if h.Hostname() == "" {
		t.Error("the host has no name")
	}
}

// A server that allows one session (MaxSessions) has it given back when a command needs it.
func TestShellGivesWay(t *testing.T) {
	t.Parallel()
	s, h, _ := sshHost(t, nil, "MaxSessions 1")
	path := s.AuthorizedKeysFiles()[0]
	for _, line := range []string{"# plain", "# é", "# plain again"} {
		_, err := h.Edit(t.Context(), mine, s.User(), path, add(line))
		must(t, err)
		if got := content(t, path); !strings.HasSuffix(got, line+"\n") {
			t.Errorf("%q", got)
		}
	}
	must(t, h.Release(t.Context(), mine, s.User(), path))
}

// While a shell does something for one, another has a command of its own.
func TestShellThatIsBusy(t *testing.T) {
	v := variants(t)[0]
	h, commands, _ := asked(t, v)
	s := h.shells.of(t.Context(), "sh -c", true)
	s.mu.Lock()
	_, err := h.Files(t.Context(), "root", []string{"/etc/passwd"})
	s.mu.Unlock()
	must(t, err)
	if *commands == 0 {
		t.Error("two speak with one shell at a time")
	}
}

// What an op that was killed left in its scratch directory goes with the next one, though
// the shell is the same.
func TestScratchOfAKilledOp(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		first := strings.TrimSpace(string(said(t, h, `(scratch; echo secret >"$d/id"; trap - 0; echo "$d")`, "absent").Stdout))
		if content(t, filepath.Join(first, "id")) != "secret\n" {
			t.Fatalf("no scratch file in %q", first)
		}
		got := strings.Fields(string(said(t, h, `(scratch; echo "$d"; ls "$d")`, "absent").Stdout))
		if len(got) != 1 || got[0] != first || fileExists(first) {
			t.Errorf("the next has %q, and it is there afterwards: %v", got, fileExists(first))
		}
	})
}

// number reads the number that a program printed.
func number(t *testing.T, out []byte) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	must(t, err)
	return n
}
