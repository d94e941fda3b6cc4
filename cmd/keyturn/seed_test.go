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
			if k.Host == "web1" && slices.Contains(known.Keys, key) == k.Revoked {
				w.t.Errorf("known-hosts %v and %+v:\n%s", args, k, text)
			}
		}
		if strings.Contains(text, "@") { // a client that has such a line learns no more keys
			w.t.Errorf("known-hosts %v has lines with a marker:\n%s", args, text)
		}
		revoked := w.ok("known-hosts", "--revoked")
		for _, k := range s.Keys {
			if strings.Contains(revoked, k.PublicKey) != k.Revoked {
				w.t.Errorf("what known-hosts --revoked says of %+v:\n%s", k, revoked)
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

// Where there is an authority for hosts, the keys that hosts have at the gateway can be had
// with its certificates, which are the same until they are renewed; known-hosts has its
// line; and those of a compromised seed are in the list of what is revoked.
func TestSeedCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	if code, _, stderr := w.try("seed", "certify", "web1"); code == 0 || !strings.Contains(stderr, "there is no authority that signs for hosts") || !strings.Contains(stderr, "keyturn ca create NAME --purpose host") {
		t.Errorf("without an authority: %d %s", code, stderr)
	}
	if text := w.ok("known-hosts", "--authorities", "only"); text != "" {
		t.Errorf("without an authority: %s", text)
	}
	w.ok("ca", "create", "people")
	w.ok("ca", "create", "hosts", "--purpose", "host")
	if code, _, stderr := w.try("seed", "certify", "web1", "--ca", "people"); code == 0 || !strings.Contains(stderr, "does not sign for hosts") {
		t.Errorf("by an authority for people: %d %s", code, stderr)
	}
	first := w.certifySeed("web1", "web2", "")
	if again := w.certifySeed("web1", "web2", ""); len(first) != 2*3 || !slices.EqualFunc(again, first, sameCertificate) {
		t.Errorf("at first %+v\nthen %+v", first, again)
	}
	for _, c := range first {
		if !c.Presented || !slices.Equal(c.Certificate.Principals, []string{c.Name}) || c.Certificate.Type != "host" {
			t.Errorf("made was %+v", c)
		}
	}
	// Nobody else has a certificate for names of the gateway, however they are written.
	w.keyFile(w.dir+"/mine", "mine")
	gateway := first[0].Name[strings.Index(first[0].Name, "gw."):]
	for _, name := range []string{gateway, first[0].Name, strings.ToUpper("any." + gateway), gateway + "."} {
		w.refused("is a name of the gateway", "cert", "sign", "--ca", "hosts", "--public-key", w.dir+"/mine.pub", "--principal", "web1", "--principal", name)
	}
	w.ok("cert", "sign", "--ca", "hosts", "--public-key", w.dir+"/mine.pub", "--principal", "not"+gateway)
	w.sameKnownHosts(w.awaitSeed("settled"))

	// Of one name, hashed too, the line is for nothing else.
	var shown []struct {
		PublicKey string `json:"public_key"`
	}
	w.json(&shown, "ca", "show", first[0].Certificate.Authority)
	alias, ca := first[0].Name, shown[0].PublicKey
	for _, args := range [][]string{{}, {"--for", "web1"}, {"--for", "web1", "--hashed"}} {
		text := w.ok(append([]string{"known-hosts", "--authorities", "only"}, args...)...)
		if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "@cert-authority ") || !strings.Contains(text, ca) {
			t.Fatalf("known-hosts %v: %s", args, text)
		}
		if all, authority := w.ok(append([]string{"known-hosts", "--authorities", "too"}, args...)...), strings.Fields(text)[0]; !strings.HasPrefix(all, authority) || strings.Count(all, authority) != 1 {
			t.Errorf("known-hosts %v: %s", args, all)
		}
		known := trust.ParseKnownHosts([]byte(text))
		for name, matches := range map[string]bool{alias: true, first[2].Name: len(args) == 0, first[4].Name: len(args) == 0, "web1": false, "x" + first[4].Name: false, alias + ".example.com": false} {
			line := known.Line(0)
			if line.Matches(name) != matches {
				t.Errorf("known-hosts %v matches %s: %t", args, name, !matches)
			}
		}
	}
	if text := w.ok("known-hosts", "--authorities", "none"); strings.Contains(text, "@cert-authority") || !strings.Contains(text, alias) {
		t.Errorf("known-hosts without authorities: %s", text)
	}

	// What is announced has its certificates before it is presented.
	w.ok("seed", "rotate")
	both := w.certifySeed("web1")
	if len(both) != 4 || !slices.ContainsFunc(both, func(c hostCertificateJSON) bool { return !c.Presented }) {
		t.Errorf("while it is rotated there are %+v", both)
	}
	// Of one that was announced, and replaced or taken back, clients may have the keys.
	w.ok("seed", "rotate")
	both = append(both, w.certifySeed("web1")...)
	var last struct {
		Run string `json:"run"`
	}
	w.json(&last, "seed", "rotate")
	both = append(both, w.certifySeed("web1")...)
	w.ok("run", "back", last.Run, "--wait")
	w.ok("seed", "rotate", "--compromised")
	after := w.certifySeed("web1")
	list := filepath.Join(w.t.TempDir(), "krl")
	w.ok("krl", "--out", list)
	w.revoked(list, after, false)
	w.revoked(list, append(first, both...), true)
	s := w.awaitSeed("settled")
	for _, c := range both {
		if !slices.ContainsFunc(s.Keys, func(k seedKeyJSON) bool { return k.Revoked && k.Fingerprint == c.Certificate.Fingerprint }) {
			t.Errorf("%s key %s of seed %s is not among the revoked", c.Type, c.Certificate.Fingerprint, c.Seed)
		}
	}
	w.sameKnownHosts(s)
	if text := w.ok("known-hosts", "--authorities", "only"); !strings.Contains(text, ca) {
		t.Errorf("a compromised seed is no reason to trust the authority no more: %s", text)
	}

	// Many at once, by patterns, each once.
	for _, asked := range []struct {
		args []string
		want int
	}{{[]string{"web*"}, 2}, {[]string{"--all"}, 3}, {[]string{"web?", "web1", ""}, 3}} {
		hosts := map[string]bool{}
		list := w.certifySeed(asked.args...)
		for _, c := range list {
			hosts[c.HostID] = true
		}
		if len(hosts) != asked.want || len(list) != 2*asked.want {
			t.Errorf("certify %q: %+v", asked.args, list)
		}
	}
	if text := w.ok("seed", "certify", "web*"); strings.Count(text, "\n") != 4 {
		t.Errorf("as lines:\n%s", text)
	}
	w.refused("no host has a name of the pattern", "seed", "certify", "db*")
	w.refused("name none", "seed", "certify", "--all", "web1")

	w.ok("ca", "create", "others", "--purpose", "host")
	if code, _, stderr := w.try("seed", "certify", "web1"); code == 0 || !strings.Contains(stderr, "say which of hosts, others") {
		t.Errorf("by one of two: %d %s", code, stderr)
	}
	if others := w.certifySeed("web1", "--ca", "others"); len(others) != 2 || others[0].Certificate.Authority == after[0].Certificate.Authority {
		t.Errorf("by the other one: %+v", others)
	}

	// What an authority signed that was removed is refused, and it is trusted no more.
	w.ok("ca", "remove", "hosts")
	for _, args := range [][]string{{}, {"--for", "web1", "--hashed"}} {
		text := w.ok(append([]string{"known-hosts", "--authorities", "only"}, args...)...)
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "@cert-authority ") || !strings.HasPrefix(lines[1], "@revoked ") || !strings.Contains(lines[1], ca) {
			t.Errorf("known-hosts %v, of an authority that was removed:\n%s", args, text)
		}
		line := trust.ParseKnownHosts([]byte(lines[1] + "\n")).Line(0)
		if !line.Matches(alias) {
			t.Errorf("the line does not match %s:\n%s", alias, lines[1])
		}
	}
	if text := w.ok("known-hosts", "--authorities", "none"); strings.Contains(text, ca) {
		t.Errorf("known-hosts without authorities: %s", text)
	}
}

func sameCertificate(a, b hostCertificateJSON) bool {
	return a.Certificate.Serial == b.Certificate.Serial && a.Certificate.Certificate == b.Certificate.Certificate && a.HostID == b.HostID
}

func (w *world) certifySeed(args ...string) (list []hostCertificateJSON) {
	w.t.Helper()
	w.json(&list, append([]string{"seed", "certify"}, args...)...)
	return list
}

// revoked has ssh-keygen say whether certificates are in a list.
func (w *world) revoked(list string, certificates []hostCertificateJSON, want bool) {
	w.t.Helper()
	for _, c := range certificates {
		file := filepath.Join(w.t.TempDir(), "cert.pub")
		w.write(file, c.Certificate.Certificate+"\n")
		out, err := exec.CommandContext(w.t.Context(), need.Program(w.t, "ssh-keygen", "openssh-client"), "-Q", "-f", list, file).CombinedOutput()
		if (err != nil) != want || strings.Contains(string(out), "REVOKED") != want {
			w.t.Errorf("certificate %s of seed %s: %s, want revoked %t", c.Certificate.Serial, c.Seed, out, want)
		}
	}
}
