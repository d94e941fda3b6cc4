package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// awaitSeed waits until the seed is in a phase.
func (w *world) awaitSeed(phase string) (s seedJSON) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if w.json(&s, "seed", "show"); s.Phase == phase {
			return s
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the seed is %+v, and not %s", s, phase)
		}
	}
}

// of returns the keys of a host that are in a state, by their text.
func (s seedJSON) of(host, state string) (keys []string) {
	for _, k := range s.Keys {
		if k.Host == host && k.state() == state {
			keys = append(keys, k.PublicKey)
		}
	}
	return keys
}

// A rotation goes through its phases, with the keys of each in what is printed for
// known_hosts, and comes back to the very keys of before; a compromised seed's keys are
// revoked at once.
func TestSeedRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.ok("settings", "set", "gateway.lease", "0s")
	w.ok("settings", "set", "seed.overlap", "1s")

	first := w.awaitSeed("settled")
	old := first.of("web1", "presented")
	if len(old) != 2 || len(first.of("", "presented")) != 2 || first.Until != nil {
		t.Fatalf("at first %+v", first)
	}
	var rotated struct {
		Run  string `json:"run"`
		Seed string `json:"seed_id"`
	}
	w.json(&rotated, "seed", "rotate")
	s := w.awaitSeed("present-old")
	next := s.of("web1", "announced")
	if s.ID != rotated.Seed || s.Run != rotated.Run || s.Until == nil || !slices.Equal(s.of("web1", "presented"), old) || len(next) != 2 || slices.Contains(old, next[0]) {
		t.Errorf("after seed rotate %+v, %+v", rotated, s)
	}
	if s = w.awaitSeed("present-new"); !slices.Equal(s.of("web1", "presented"), next) || !slices.Equal(s.of("web1", "announced"), old) {
		t.Errorf("in the second phase %+v", s)
	}
	w.await(rotated.Run, ended)
	if s = w.awaitSeed("settled"); s.ID != rotated.Seed || !slices.Equal(s.of("web1", "presented"), next) || len(s.of("web1", "announced")) != 0 {
		t.Errorf("at the end %+v", s)
	}

	w.ok("run", "back", rotated.Run)
	w.await(rotated.Run, ended)
	if s = w.awaitSeed("settled"); s.ID != first.ID || !slices.Equal(s.of("web1", "presented"), old) {
		t.Errorf("taken back %+v, and it was %+v", s, first)
	}

	w.json(&rotated, "seed", "rotate")
	var replaced struct {
		Seed string `json:"seed_id"`
	}
	w.json(&replaced, "seed", "rotate", "--compromised")
	if r := w.await(rotated.Run, ended); r.State != "done" {
		t.Errorf("the run that was overtaken is %s", r.State)
	}
	s = w.awaitSeed("settled")
	if s.ID != replaced.Seed || s.Presented != replaced.Seed || slices.Contains(s.of("web1", "presented"), old[0]) || !slices.Contains(s.of("web1", "revoked"), old[0]) || !slices.Contains(s.of("web1", "revoked"), next[0]) {
		t.Errorf("compromised: %+v", s)
	}
	w.sameKnownHosts(s)
}

func ended(r runJSON) bool { return r.State == "done" || r.State == "back" || r.State == "held" }

// sameKnownHosts compares the lines for known_hosts, plain and hashed, with the keys, and
// has ssh-keygen read them.
func (w *world) sameKnownHosts(s seedJSON) {
	w.t.Helper()
	var hosts []hostJSON
	w.json(&hosts, "host", "list")
	var account accountJSON
	w.json(&account, "account", "show")
	alias := hosts[0].ID + ".gw." + account.ID
	for _, args := range [][]string{{}, {"--hashed"}, {"--for", "web1"}} {
		text := w.ok(append([]string{"known-hosts"}, args...)...)
		if strings.Contains(text, alias) == slices.Contains(args, "--hashed") {
			w.t.Errorf("known-hosts %v: %s", args, text)
		}
		file := filepath.Join(w.t.TempDir(), "known_hosts")
		w.write(file, text)
		known := trust.ParseKnownHosts([]byte(text)).Lookup(alias)
		for _, k := range s.Keys {
			key := w.parse(k.PublicKey)
			if list := known.Keys; k.Host == "web1" && (k.Revoked && !slices.Contains(known.Revoked, key) || !k.Revoked && !slices.Contains(list, key)) {
				w.t.Errorf("known-hosts %v lacks %+v:\n%s", args, k, text)
			}
		}
		out, err := exec.CommandContext(w.t.Context(), need.Program(w.t, "ssh-keygen", "openssh-client"), "-F", alias, "-f", file).Output()
		if err != nil || !strings.Contains(string(out), s.of("web1", "presented")[0]) {
			w.t.Errorf("ssh-keygen -F finds in the lines of known-hosts %v: %s %v", args, out, err)
		}
	}
}

// The settings of SSH hold the seed that was asked for last, and a key that is usable.
func TestSSHSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	type settings struct {
		AuditKey  string    `json:"audit_key"`
		Seed      string    `json:"seed_id"`
		CreatedAt time.Time `json:"created_at"`
		UpdatedAt time.Time `json:"updated_at"`
	}
	get := func() (s settings) {
		t.Helper()
		w.api(&s, "GET", "/ssh-settings", nil)
		return s
	}
	s := get()
	if s.AuditKey != "" || s.Seed == "" || s.CreatedAt.IsZero() || s.UpdatedAt.Before(s.CreatedAt) {
		t.Errorf("at first %+v", s)
	}
	const key = "1pyl6I1tL7xfJuFYVzXlUW8uXXlpxegHXBzGCBKaSFA="
	var set settings
	w.api(&set, "PUT", "/ssh-settings", map[string]any{"audit_key": key})
	if set != get() || set.AuditKey != key || set.Seed != s.Seed || !set.UpdatedAt.After(s.UpdatedAt) || !set.CreatedAt.Equal(s.CreatedAt) {
		t.Errorf("with a key %+v, then %+v; before %+v", set, get(), s)
	}
	low := strings.Repeat("A", 43) + "="
	if status, p, _ := w.ask(w.token, "PUT", "/ssh-settings", `{"audit_key":"`+low+`"}`); status != 422 || !strings.Contains(p.Detail, "low order") || get() != set {
		t.Errorf("a point of low order: %d %+v, %+v", status, p, get())
	}
	// Each rotation is answered with the seed that is asked for from then on, whatever phase
	// the one before is in.
	for range 3 {
		var rotated struct {
			Seed string `json:"seed_id"`
		}
		w.json(&rotated, "seed", "rotate")
		if now := get(); now.Seed != rotated.Seed || now.AuditKey != key || !now.UpdatedAt.After(set.UpdatedAt) {
			t.Errorf("after a rotation to %s: %+v", rotated.Seed, now)
		}
	}
	w.api(&set, "PUT", "/ssh-settings", map[string]any{"audit_key": ""})
	if get().AuditKey != "" {
		t.Errorf("without a key %+v", get())
	}
}
