package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/remote"
	"keyturn/internal/trust"
)

// This file proves, on real servers, sentences of docs/lockouts.md that no other
// test does.

// heldKey authorizes a key on every server, one line of options for each, and
// has Keyturn hold it.
func (w *world) heldKey(public trust.PublicKey, path string, options ...string) keyJSON {
	w.t.Helper()
	for i, s := range w.servers {
		if err := s.Authorize(public, options[i%len(options)]); err != nil {
			w.t.Fatal(err)
		}
	}
	w.ok("key", "import", path)
	w.ok("scan", "--wait")
	return w.key(public)
}

// keygen has ssh-keygen make a key of a type.
func (w *world) keygen(kind, bits string) (path string, public trust.PublicKey) {
	w.t.Helper()
	keygen := need.Program(w.t, "ssh-keygen", "openssh-client")
	path = filepath.Join(w.dir, kind+bits)
	if out, err := exec.Command(keygen, "-q", "-t", kind, "-b", bits, "-N", "", "-C", kind+bits, "-f", path).CombinedOutput(); err != nil {
		w.t.Fatal(err, string(out))
	}
	public, _, err := trust.ParsePublicKey(w.read(path + ".pub"))
	if err != nil {
		w.t.Fatal(err)
	}
	return path, public
}

// Where from= does not admit Keyturn, a login from Keyturn proves nothing: what is
// proven is that sshd would take the new key from there, and the report says so.
func TestSourceRestriction(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 2)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), `from="192.0.2.7"`, `from="127.0.0.0/8"`)
	var r runJSON
	w.json(&r, "rotate", k.UUID, "--wait", "--soak", "0s")
	report := strings.Split(w.ok("run", "show", r.Run), "\n")
	for _, want := range []string{"web1 authorized matched matched refused -", "web2 authorized login-here login-here refused -"} {
		if !slices.ContainsFunc(report, func(l string) bool {
			host, rest, _ := strings.Cut(l, ":")
			return slices.Equal(append([]string{host}, strings.Fields(rest)[min(1, len(strings.Fields(rest))):]...), strings.Fields(want))
		}) {
			t.Errorf("the report lacks %q:\n%s", want, strings.Join(report, "\n"))
		}
	}
	for i, options := range []string{`from="192.0.2.7" `, `from="127.0.0.0/8" `} {
		if now := w.read(w.authorized(i)); !strings.Contains(now, "\n"+options) || strings.Contains(now, deploy.String()) {
			t.Errorf("web%d holds\n%s", i+1, now)
		}
	}
}

// What a key of each type becomes: a server that takes the old one takes the new
// one.
func TestKeyTypesAreKept(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w := newWorld(t, 1)
	type kept struct{ kind, bits, becomes string }
	for _, c := range need.Share(t, 2,
		kept{"rsa", "2048", "ssh-rsa (3072 bits)"},
		kept{"rsa", "4096", "ssh-rsa (4096 bits)"},
		kept{"ecdsa", "384", "ecdsa-sha2-nistp384 (384 bits)"},
		kept{"ed25519", "256", "ssh-ed25519 (256 bits)"},
	) {
		path, public := w.keygen(c.kind, c.bits)
		k := w.heldKey(public, path, "no-pty")
		var r runJSON
		w.json(&r, "rotate", k.UUID, "--wait", "--soak", "0s")
		if got := w.ok("key", "show", r.Keys[0].New[0]); !strings.Contains(got, c.becomes) {
			t.Errorf("a key of type %s and %s bits became\n%s", c.kind, c.bits, got)
		}
	}
}

// A DSA key is refused before anything is planned, by the dry run as by the rotation,
// with the two ways out; and both lead out.
func TestDSAIsNotRotated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	identity := filepath.Join(w.servers[0].Home(), ".ssh", "id_dsa")
	w.write(identity, w.read("../../internal/keyring/testdata/refused/dsa-openssh")) // OpenSSH 10 makes none
	dsa, _, err := remote.IdentityFiles{Private: []byte(w.read(identity))}.Key()
	if err != nil {
		t.Fatal(err)
	}
	w.appendLine(w.authorized(0), "no-pty "+dsa.String())
	w.ok("scan", "--wait")
	before, k := w.read(w.authorized(0)), w.key(dsa)
	for _, args := range [][]string{{"--dry-run"}, {"--soak", "0s"}} {
		code, out, errs := w.try(append([]string{"rotate", k.UUID, "--share"}, args...)...)
		if code != 1 || out != "" || !strings.Contains(errs, "is a DSA key") || !strings.Contains(errs, "keyturn key supply "+k.UUID) || !strings.Contains(errs, "keyturn retire "+k.UUID) {
			t.Errorf("rotate %q: %d\n%s%s", args, code, out, errs)
		}
	}
	if out := w.ok("finding", "list"); !strings.Contains(out, "is a DSA key, which OpenSSH has given up: its owner has to make another") {
		t.Errorf("the findings are\n%s", out)
	}
	if code, _, errs := w.try("key", "import", identity); code != 1 || !strings.Contains(errs, "ssh-keygen -t ed25519") {
		t.Errorf("key import: %d\n%s", code, errs)
	}
	w.keyFile(filepath.Join(w.dir, "next"), "next")
	w.ok("key", "supply", k.UUID, "--public-key", filepath.Join(w.dir, "next.pub"))
	if out := w.ok("rotate", k.UUID, "--dry-run"); !strings.Contains(out, "its owner puts the new key there") {
		t.Errorf("the dry run with another key says\n%s", out)
	}
	w.ok("retire", k.UUID, "--wait", "--yes")
	if now, want := w.read(w.authorized(0)), strings.Replace(before, "no-pty "+dsa.String()+"\n", "", 1); now != want {
		t.Errorf("after the retirement the file holds\n%q\nwant\n%q", now, want)
	}
}

// A key that a host no longer takes, for its type or its options, loses nothing
// there: the place is not touched, and the report says why.
func TestUntouchedWhereTheOldKeyFails(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, lab.Options{}, lab.Options{Config: []string{"PubkeyAcceptedAlgorithms ssh-ed25519"}}, lab.Options{})
	path, public := w.keygen("ecdsa", "256")
	k := w.heldKey(public, path, "", "", "no-such-option")
	untouched := []string{w.read(w.authorized(1)), w.read(w.authorized(2))}
	out := w.ok("rotate", k.UUID, "--wait", "--soak", "0s")
	if !strings.Contains(out, "2 places stay as they were") {
		t.Errorf("rotate says\n%s", out)
	}
	var shown struct {
		Places []placeReportJSON `json:"places"`
	}
	w.json(&shown, "run", "show", w.latest("rotate"))
	for _, p := range shown.Places {
		if (p.Untouched == "") != strings.HasPrefix(p.Name, "web1:") {
			t.Errorf("run show --json has %+v", p)
		}
	}
	if len(shown.Places) != 3 {
		t.Errorf("run show --json has the places %+v", shown.Places)
	}
	var runs []runJSON
	w.json(&runs, "run", "list")
	for i, was := range untouched {
		if now := w.read(w.authorized(i + 1)); now != was {
			t.Errorf("web%d holds\n%s\nwant as before\n%s", i+2, now, was)
		}
	}
	if strings.Contains(w.read(w.authorized(0)), public.String()) {
		t.Error("web1 still has the old key")
	}
	report := strings.Split(w.ok("run", "show", runs[0].Run), "\n")
	for _, host := range []string{"web2:", "web3:"} {
		if !slices.ContainsFunc(report, func(l string) bool {
			return strings.HasPrefix(l, host) && strings.Contains(l, "refuses "+string(public.Fingerprint()))
		}) {
			t.Errorf("the report does not say why %s was not touched:\n%s", host, strings.Join(report, "\n"))
		}
	}

	// A retirement takes the lines away all the same, and brings them back.
	if out := w.ok("finding", "list"); !strings.Contains(out, "still or again: keyturn retire "+k.UUID) {
		t.Errorf("the findings do not say that the old key still lies there:\n%s", out)
	}
	var r runJSON
	w.json(&r, "retire", k.UUID, "--wait")
	for i := range untouched {
		if strings.Contains(w.read(w.authorized(i+1)), public.String()) {
			t.Errorf("web%d has the old key after its retirement", i+2)
		}
	}
	w.ok("run", "back", r.Run, "--wait")
	for i, was := range untouched {
		if now := w.read(w.authorized(i + 1)); now != was {
			t.Errorf("web%d holds\n%s\nafter the retirement was taken back, want\n%s", i+2, now, was)
		}
	}
}

// Beside the file there is another source of keys, which goes on granting the old
// one: the run does not call that done.
func TestAuthorizedKeysCommandGoesOnGranting(t *testing.T) {
	t.Parallel()
	granted := filepath.Join(t.TempDir(), "granted")
	if err := os.WriteFile(granted, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cat := need.Program(t, "cat", "coreutils")
	w := newWorldOf(t, lab.Options{Config: []string{"AuthorizedKeysCommand " + cat + " " + granted, "AuthorizedKeysCommandUser root"}})
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "no-pty")
	if err := os.WriteFile(granted, []byte(deploy.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--soak", "0s")
	w.held(run.Run, "Disprove", "AuthorizedKeysCommand")
	if err := os.WriteFile(granted, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
}

// A key that may be in wrong hands does not come back by a rollback, unless
// that is said.
func TestCompromisedKeyStaysAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "no-pty")
	before := w.read(w.authorized(0))
	w.ok("settings", "set", "rotation.soak", "0s")
	w.ok("rotate", k.UUID, "--wait", "--compromised", "--yes")
	rotated := w.read(w.authorized(0))
	code, out, errs := w.try("rollback", k.UUID, "--wait")
	if code == 0 || !strings.Contains(out+errs, "compromised") || !strings.Contains(errs, "--force") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if now := w.read(w.authorized(0)); now != rotated {
		t.Errorf("a refused rollback changed the file to\n%s", now)
	}
	w.ok("rollback", k.UUID, "--wait", "--force")
	if now := w.read(w.authorized(0)); now != before {
		t.Errorf("the file is\n%s\nwant as before\n%s", now, before)
	}
}

// A host that refuses the old key for nothing that anybody has decided may accept it
// again tomorrow, when the new one would open nothing there: the run is held before
// anything is touched, until that is mended, or a person goes on without the place.
func TestHeldWhereTheOldKeyIsRefused(t *testing.T) {
	t.Parallel()
	revoked := filepath.Join(t.TempDir(), "revoked")
	w := &world{t: t}
	w.write(revoked, "")
	w = newWorldOf(t, lab.Options{}, lab.Options{Config: []string{"RevokedKeys " + revoked}})
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "no-pty")
	before := []string{w.read(w.authorized(0)), w.read(w.authorized(1))}
	w.write(revoked, deploy.String()+"\n")

	if diff := w.ok("rotate", k.UUID, "--dry-run"); !strings.Contains(diff, "would be held until that is mended") {
		t.Errorf("the dry run does not say that web2 is in the way:\n%s", diff)
	}
	var r runJSON
	w.json(&r, "rotate", k.UUID, "--soak", "0s")
	w.held(r.Run, "Baseline", "although "+w.authorized(1)+" holds it")
	for i, was := range before {
		if now := w.read(w.authorized(i)); now != was {
			t.Errorf("web%d holds\n%s\nalthough the run was held before it touched anything", i+1, now)
		}
	}
	w.write(revoked, "")
	w.ok("run", "resume", r.Run)
	w.await(r.Run, func(r runJSON) bool { return r.State == "done" })
	for i := range before {
		if strings.Contains(w.read(w.authorized(i)), deploy.String()) {
			t.Errorf("web%d has the old key after the fault was mended and the run was resumed", i+1)
		}
	}

	w.json(&r, "run", "show", r.Run)
	w.json(&k, "key", "show", r.Keys[0].New[0])
	before[1] = w.read(w.authorized(1))
	w.write(revoked, k.PublicKey+"\n")
	w.json(&r, "rotate", k.UUID, "--soak", "0s")
	w.held(r.Run, "Baseline", "refuses "+k.Fingerprint)
	w.ok("run", "leave", r.Run, "web2")
	w.await(r.Run, func(r runJSON) bool { return r.State == "partial" })
	if now := w.read(w.authorized(1)); now != before[1] {
		t.Errorf("web2 was left out, and holds\n%s\nwant\n%s", now, before[1])
	}
	if strings.Contains(w.read(w.authorized(0)), k.PublicKey) {
		t.Error("web1 has the old key, although the run went on without web2")
	}
}

// What sshd does for connections from elsewhere is not seen from here, and said.
func TestKeysByOrigin(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, lab.Options{Config: []string{"Match Address 192.0.2.0/24", "AuthorizedKeysFile /elsewhere/%u"}}, lab.Options{})
	k := w.heldKey(w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci"), filepath.Join(w.dir, "deploy"), "no-pty")
	const says = "AuthorizedKeysFile /elsewhere/%u (Match Address 192.0.2.0/24)"
	if out := w.ok("host", "show", "web1"); !strings.Contains(out, "for other addresses than Keyturn's sshd may take other keys: "+says) {
		t.Errorf("host show web1 does not say %q:\n%s", says, out)
	}
	if out := w.ok("host", "show", "web2"); strings.Contains(out, "other addresses") {
		t.Errorf("host show web2 says\n%s", out)
	}
	out := w.ok("rotate", k.UUID, "--dry-run")
	if want := fmt.Sprintf("web1:%s:%s is not all that sshd reads: ", w.servers[0].User(), w.authorized(0)); !strings.Contains(out, want) || strings.Count(out, "is not all that") != 1 || !strings.Contains(out, "would stay: "+says+"\n") {
		t.Errorf("the dry run does not say %q and %q, or says it of web2:\n%s", want, says, out)
	}
}
