package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"keyturn/internal/need"
)

// What is revealed is the key: ssh-keygen reads it, a server lets it in, and from then
// on it counts as external.
func TestReveal(t *testing.T) {
	t.Parallel()
	need.Long(t)
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	w := newWorld(t, 1)
	var revealed []keyJSON
	for name, spec := range map[string]struct{ make, reveal []string }{
		"ed25519":           {[]string{"ed25519"}, []string{"--passphrase-stdin"}},
		"ed25519, plain":    {[]string{"ed25519"}, []string{"--no-passphrase"}},
		"ecdsa, pem":        {[]string{"ecdsa-p384"}, []string{"--no-passphrase", "--format", "pem"}},
		"rsa, pkcs8":        {[]string{"rsa", "--bits", "2048"}, []string{"--no-passphrase", "--format", "pkcs8"}},
		"rsa, a passphrase": {[]string{"rsa", "--bits", "2048"}, []string{"--passphrase-stdin"}},
	} {
		var k keyJSON
		w.json(&k, append([]string{"key", "generate", "--comment", "backup key", "--type"}, spec.make...)...)
		if err := w.servers[0].Authorize(w.parse(k.PublicKey), ""); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "id")
		passphrase := ""
		if slices.Contains(spec.reveal, "--passphrase-stdin") {
			passphrase = "a passphrase, of its own"
		}
		w.stdin = passphrase + "\n"
		w.ok(append([]string{"key", "reveal", k.UUID, "--out", file}, spec.reveal...)...)
		if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: the file has the mode %v, %v", name, info.Mode(), err)
		}
		if passphrase != "" {
			if out, err := exec.Command(keygen, "-y", "-P", "", "-f", file).CombinedOutput(); err == nil {
				t.Errorf("%s: opens without its passphrase: %s", name, out)
			}
		}
		out, err := exec.Command(keygen, "-y", "-P", passphrase, "-f", file).Output()
		if fields := strings.Fields(string(out)); err != nil || len(fields) < 2 || strings.Join(fields[:2], " ") != k.PublicKey {
			t.Errorf("%s: ssh-keygen reads %s, %v; want %s", name, out, err, k.PublicKey)
		}
		if out, err := exec.Command(keygen, "-p", "-P", passphrase, "-N", "", "-f", file).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", name, err, out)
		}
		if err := try(t.Context(), file, w.servers[0]); err != nil {
			t.Errorf("%s: it does not log in: %v", name, err)
		}
		w.ok("key", "import", file)
		revealed = append(revealed, k)
		w.ok("key", "reveal", k.UUID, "--out", file+"2", "--no-passphrase") // it is here still
	}
	// Nobody has it alone again because it was imported, or found on a host.
	identity := filepath.Join(w.servers[0].Home(), ".ssh", "id_backup")
	w.ok("key", "reveal", revealed[0].UUID, "--out", identity, "--no-passphrase")
	w.ok("scan", "--wait")
	for i, k := range revealed {
		if now := w.key(w.parse(k.PublicKey)); now.Custody != "external" || now.RevealedAt == nil || len(now.Authorized) != 1 || i == 0 && len(now.Identities) != 1 {
			t.Errorf("revealed, imported and found, it is %+v", now)
		}
	}
}

// What is not to leave does not, and leaves no file.
func TestRevealRefused(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 1)
	dir := t.TempDir()
	file := filepath.Join(dir, "id")
	reveal := func(key string) []string { return []string{"key", "reveal", key, "--out", file, "--no-passphrase"} }
	public := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	held := w.heldKey(public, filepath.Join(w.dir, "deploy"), "")
	var k keyJSON
	w.json(&k, "key", "generate")
	ops := w.key(w.parse(w.heldBy(w.ops)))
	in, _ := w.inPlace()

	w.refused("for Keyturn itself", reveal(ops.UUID)...)
	w.refused("does not hold the private half", reveal(in.UUID)...)
	w.refused("there is no key", reveal(someKey)...)
	var keys []keyJSON
	w.json(&keys, "key", "list", "--kind", "host")
	for _, h := range keys {
		w.refused("only user keys", reveal(h.UUID)...)
	}
	if len(keys) == 0 {
		t.Error("no host key is tried")
	}
	w.ok("key", "import", w.servers[0].HostKeyFile())
	var users []keyJSON
	w.json(&users, "key", "list", "--kind", "user")
	imported := slices.IndexFunc(users, func(k keyJSON) bool { return k.PublicKey == w.servers[0].HostKey().String() })
	w.refused("is the host key of a server as well", reveal(users[imported].UUID)...)
	w.ok("key", "delete", k.UUID)
	w.refused("only user keys that are in use", reveal(k.UUID)...)
	w.ok("key", "restore", k.UUID)
	var s startedJSON
	w.json(&s, "rotate", held.UUID, "--soak", "1h")
	w.refused("only user keys that are in use", reveal(held.UUID)...)
	var r runJSON
	w.json(&r, "run", "show", s.Run)
	w.refused("is in run "+s.Run, reveal(r.Keys[0].New[0])...)
	w.refused("--no-passphrase", "key", "reveal", k.UUID, "--out", file)
	w.refused("--out is not given", "key", "reveal", k.UUID, "--no-passphrase")
	w.refused("the passphrase is empty", "key", "reveal", k.UUID, "--out", file, "--passphrase-stdin")
	authorized := w.read(w.authorized(0))
	w.write(w.authorized(0), authorized+"cert-authority "+k.PublicKey+"\n")
	w.ok("scan", "--wait")
	w.refused("certificate authority", reveal(k.UUID)...)
	w.write(w.authorized(0), authorized)
	w.ok("scan", "--wait")

	w.ok("key", "allow", k.UUID, "--user", w.person("carol").user["KEYTURN_USER"])
	w.refused("users who are named for it", reveal(k.UUID)...)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("what was refused left %v, %v", files, err)
	}

	// Nor is another file written over, or a key given away for nothing.
	var other keyJSON
	w.json(&other, "key", "generate")
	w.write(file, "mine\n")
	w.refused("file exists", reveal(other.UUID)...)
	if now := w.key(w.parse(other.PublicKey)); w.read(file) != "mine\n" || now.Custody != "held" {
		t.Errorf("the file that was there is %q, and the key is %s", w.read(file), now.Custody)
	}
	if out := w.ok("key", "reveal", other.UUID, "--out", "-", "--no-passphrase"); !strings.HasPrefix(out, "-----BEGIN OPENSSH PRIVATE KEY-----\n") {
		t.Errorf("on standard output it is %q", out)
	}
	w.refused("was revealed", "host", "add", "web9", "--address", "127.0.0.1:1", "--login", "root", "--accept-new", "--key", other.UUID)
}

// With key.reveal-approval on, a key leaves to who asked, once, after another user has
// approved.
func TestRevealTakesApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	alice, bob, carol := w.person("alice"), w.person("bob"), w.person("carol")
	var k, other keyJSON
	w.json(&k, "key", "generate")
	w.json(&other, "key", "generate")
	w.ok("settings", "set", "key.reveal-approval", "on")
	dir := t.TempDir()
	reveal := func(key keyJSON, name string) []string {
		return []string{"key", "reveal", key.UUID, "--out", filepath.Join(dir, name), "--no-passphrase"}
	}
	const asks = "another user has to approve"
	w.env = alice.user
	w.refused("nothing about key:", "key", "approve-reveal", k.UUID, "alice")
	for range 2 {
		w.refused(asks, reveal(k, "alice")...)
	}
	var list []approvalJSON
	if w.json(&list, "approval", "list"); len(list) != 1 || list[0].AskedBy != "alice" || list[0].Subject != "key:"+k.UUID {
		t.Errorf("what waits is %+v", list)
	}
	for _, self := range []map[string]string{alice.user, alice.token} {
		w.env = self
		w.refused("takes the approval of another user", "key", "approve-reveal", k.UUID, "alice")
	}
	w.env = bob.user
	w.refused("nothing about key:", "key", "approve-reveal", other.UUID, "alice")
	w.refused("there is no user", "key", "approve-reveal", k.UUID, "nobody")
	if out := w.ok("__complete", "key", "approve-reveal", k.UUID, ""); !strings.Contains(out, "alice") || strings.Contains(out, k.UUID) {
		t.Errorf("approve-reveal completes to\n%s", out)
	}
	if out := w.ok("key", "approve-reveal", k.UUID, "alice"); !strings.HasPrefix(out, "alice may have") {
		t.Errorf("approved: %q", out)
	}
	w.refused("approved already", "key", "approve-reveal", k.UUID, "alice")
	w.refused(asks, reveal(k, "bob")...) // it is for alice
	w.env = carol.token
	w.refused(asks, reveal(k, "carol")...)
	w.env = alice.user
	w.refused(asks, reveal(other, "other")...) // and for that key

	// Of many that make use of one approval, one does.
	var won sync.Map
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			status, p, raw := w.ask(alice.token["KEYTURN_TOKEN"], http.MethodPost, "/keys/"+k.UUID+"/reveal", `{"plain":true}`)
			switch {
			case status == http.StatusOK && strings.Contains(raw, "PRIVATE KEY"):
				won.Store(i, true)
			case status != http.StatusConflict || !strings.Contains(p.Detail, asks):
				t.Errorf("reveal %d: %d %+v", i, status, p)
			}
		})
	}
	group.Wait()
	n := 0
	won.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("one approval revealed the key %d times", n)
	}
	w.refused(asks, reveal(k, "again")...)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("what was refused left %v, %v", files, err)
	}
}
