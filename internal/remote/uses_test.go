package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
)

// Every account and address that used the key is told, however often others did, and
// also where the log was put aside meanwhile; what was put aside before is not read.
func TestUsesOfAllLogs(t *testing.T) {
	since := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	logLine := func(day int, user, from, key string) string {
		return fmt.Sprintf("2026-11-%02dT10:00:00+00:00 web1 sshd[7]: Accepted publickey for %s from %s port 4711 ssh2: ED25519 %s\n", day, user, from, key)
	}
	var squeezed bytes.Buffer
	z := gzip.NewWriter(&squeezed)
	if _, err := z.Write([]byte(logLine(21, "alice", "192.0.2.3", "SHA256:key+/"))); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	logs := t.TempDir()
	for name, l := range map[string]struct {
		text    string
		written int // day
	}{
		"auth.log": {logLine(22, "alice", "192.0.2.1", "SHA256:key+/") + logLine(22, "alice", "192.0.2.9", "SHA256:another") +
			"2026-11-22T10:00:00+00:00 web1 sshd[7]: Failed publickey for alice from 192.0.2.8 port 1 ssh2: ED25519 SHA256:key+/\n" +
			"2026-11-22T11:00:00+00:00 web1 sshd[7]: Invalid user Accepted publickey for alice from 192.0.2.1 SHA256:key+/ from 192.0.2.66 port 9\n" +
			"2026-11-22T11:00:00+00:00 web1 sshd[7]: Invalid user ]: Accepted publickey for alice from 192.0.2.66 SHA256:key+/ from 192.0.2.66 port 9\n" +
			strings.Repeat(logLine(22, "alice", "192.0.2.7", "SHA256:key+/"), 2000), 22},
		"auth.log.1":      {logLine(19, "alice", "192.0.2.1", "SHA256:key+/") + logLine(21, "alice", "192.0.2.2", "SHA256:key+/") + logLine(21, "bob", "192.0.2.5", "SHA256:key+/"), 21},
		"auth.log.2.gz":   {squeezed.String(), 20},
		"auth.log.3":      {logLine(21, "alice", "192.0.2.4", "SHA256:key+/"), 18}, // a line that must not be read, to see that the file is not
		"secure-20261121": {logLine(21, "alice", "2001:db8::6", "SHA256:key+/"), 21},
	} {
		path := filepath.Join(logs, name)
		if err := os.WriteFile(path, []byte(l.text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 11, l.written, 23, 0, 0, 0, time.UTC)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	script := strings.NewReplacer("/var/log/journal", logs+"/none", "/run/log/journal", logs+"/none", "/var/log", logs).Replace(opUses.script())
	for _, v := range variants(t) {
		command := strings.Join([]string{"sh", "-c", quote(script), "keyturn.uses", "SHA256:key+/", fmt.Sprint(since.Unix())}, " ")
		result, err := v.exec()(t.Context(), command, nil, 1<<20)
		if err != nil || result.Exit != 0 {
			t.Fatalf("%s: %v, exit %d: %s", v.name, err, result.Exit, result.Stderr)
		}
		var a answer
		for l := range strings.Lines(string(result.Stdout)) {
			word, rest, _ := strings.Cut(strings.TrimSpace(l), " ")
			a.lines = append(a.lines, line{word: word, rest: rest})
		}
		uses, err := (&Host{}).readUses(a, "alice", since)
		if err != nil {
			t.Fatal(err)
		}
		var sources []string
		for _, u := range uses {
			sources = append(sources, u.Source)
		}
		slices.Sort(sources)
		if want := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.7", "2001:db8::6"}; !slices.Equal(sources, want) {
			t.Errorf("%s: used from %v, want %v", v.name, sources, want)
		}
	}
}

// In a journal, to which every account may write, only what sshd said itself is a login:
// neither what somebody else says in its name, nor what root says of it, nor words of a
// client in other messages of sshd.
func TestUsesOfAJournal(t *testing.T) {
	need.Root(t)
	const journald = "/lib/systemd/systemd-journald"
	if _, err := os.Stat(journald); err != nil {
		need.Skip(t, "%s is not there (package systemd)", journald)
	}
	unshare, setpriv := need.Program(t, "unshare", "util-linux"), need.Program(t, "setpriv", "util-linux")
	logger := need.Program(t, "logger", "bsdutils") + " --socket /run/systemd/journal/dev-log --id --priority authpriv.info --tag "
	const login = "Accepted publickey for alice from 192.0.2.%d port 1 ssh2: ED25519 SHA256:key+/"
	said := func(who, tag, before string, from int) string {
		return who + " " + logger + tag + " " + quote(before+fmt.Sprintf(login, from)) + "\n"
	}
	nobody := setpriv + " --reuid 65534 --regid 65534 --clear-groups"
	setUp := "set -e; mount -t tmpfs tmpfs /run; mkdir -p /run/log/journal\n" +
		journald + " 2>/run/said &\n" +
		"n=0; until [ -S /run/systemd/journal/dev-log ] && journalctl --sync; do n=$((n + 1)); [ $n -lt 200 ] || { cat /run/said >&2; exit 1; }; sleep 0.1; done 2>/dev/null\n" +
		said("", "sshd", "", 1) + said("", "sshd-session", "", 2) +
		said(nobody, "sshd", "", 66) + said("", "sudo", "", 67) + said("", "sshd", "Invalid user ", 68) +
		"journalctl --sync\n"
	asked := "sh -c " + quote(strings.ReplaceAll(opUses.script(), "/var/log", "/run/none")) + " keyturn.uses SHA256:key+/ 1"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, unshare, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", setUp+asked).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var from []string
	for l := range strings.Lines(string(out)) {
		if u, ok := parseUse(strings.TrimPrefix(l, "use "), time.Time{}, time.UTC); ok {
			from = append(from, u.Source)
		}
	}
	slices.Sort(from)
	if want := []string{"192.0.2.1", "192.0.2.2"}; !slices.Equal(from, want) {
		t.Errorf("used from %v, want %v: %s", from, want, out)
	}
}

// Lines as sshd's log has them in the three places where it is read from.
func TestParseUse(t *testing.T) {
	since := time.Date(2026, 12, 30, 0, 0, 0, 0, time.UTC)
	zone := time.FixedZone("", 2*3600)
	for text, want := range map[string]Use{
		"1798761600.250000 web1 sshd[7]: Accepted publickey for alice from 192.0.2.7 port 4711 ssh2: ED25519 SHA256:abc":          {time.Date(2027, 1, 1, 0, 0, 0, 250_000_000, time.UTC), "alice", "192.0.2.7"},
		"2027-01-01T02:00:00.5+02:00 web1 sshd-session[7]: Accepted publickey for bob from 2001:db8::1 port 1 ssh2: RSA SHA256:x": {time.Date(2027, 1, 1, 0, 0, 0, 500_000_000, time.UTC), "bob", "2001:db8::1"},
		"Jan  1 02:00:00 web1 sshd[7]: Accepted publickey for eve from 192.0.2.7 port 4711 ssh2: ED25519 SHA256:abc":              {time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), "eve", "192.0.2.7"},
		"Dec 31 23:00:00 web1 sshd[7]: Accepted publickey for eve from 192.0.2.7 port 4711 ssh2: ED25519 SHA256:abc":              {time.Date(2026, 12, 31, 21, 0, 0, 0, time.UTC), "eve", "192.0.2.7"},
		"Jan  1 02:00:00 web1 sshd[7]: Accepted password for eve from 192.0.2.7 port 4711 ssh2":                                   {},
		"no time Accepted publickey for eve from 192.0.2.7 port 4711":                                                             {},
	} {
		got, ok := parseUse(text, since, zone)
		if ok != (want != Use{}) || ok && (got.User != want.User || got.Source != want.Source || !got.At.Equal(want.At)) {
			t.Errorf("%q: %+v, %v; want %+v", text, got, ok, want)
		}
	}
}
