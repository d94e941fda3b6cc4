package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyturn/internal/oidc/oidctest"
	"keyturn/internal/trust"
)

// What ends takes along the certificates that were asked for with it, or are for it: an
// API token and those that it made, an identity provider with its machines, a user.
func TestCertificatesEndWithWhoAskedForThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	admin := w.env
	w.ok("ca", "create", "people")
	key := filepath.Join(w.dir, "key.pub")
	w.write(key, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIMPqa427N6RO3r6Y5QRHgZNutbjSYN+xoNRtzYmSYws x\n")
	all := []any{map[string]any{"port": 22, "include": map[string]any{"hostnames": []string{"*"}}}}
	w.api(nil, "POST", "/applications", map[string]any{"name": "all", "type": "infrastructure", "criteria": all, "policies": []any{
		map[string]any{"name": "people", "include": []string{"everyone"}, "logins": []string{"deploy"}},
		map[string]any{"name": "machines", "decision": "non_identity", "include": []string{"any_valid_service_token"}, "logins": []string{"deploy"}},
	}})
	as := func(env map[string]string) certificateJSON {
		t.Helper()
		w.env = env
		var c certificateJSON
		w.json(&c, "cert", "sign", "--ca", "people", "--public-key", key, "--principal", "deploy", "--valid", "1h")
		w.env = admin
		return c
	}
	is := func(what string, c certificateJSON, revoked string) {
		t.Helper()
		var now certificateJSON
		w.json(&now, "cert", "show", c.Serial)
		if revoked == "" && now.Revoked != "" || !strings.Contains(now.Revoked, revoked) {
			t.Errorf("the certificate of %s is revoked: %q, want %q", what, now.Revoked, revoked)
		}
	}
	with := func(token string) map[string]string {
		return map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_TOKEN": token}
	}
	carol := w.user("carol", "Certificates Issue", "Tokens Write")
	w.env = carol
	var parent, child, own tokenJSON
	w.json(&parent, "token", "create", "ci", "--permission", "Certificates Issue", "--permission", "Tokens Write")
	w.json(&own, "token", "create", "own", "--permission", "Certificates Issue", "--personal")
	w.env = with(parent.Token)
	w.json(&child, "token", "create", "job", "--permission", "Certificates Issue")
	w.env = admin

	// A text that somebody else may have ends, and takes along what was made with it.
	leaked := as(with(parent.Token))
	rotated := parent
	w.env = carol
	w.json(&rotated, "token", "rotate", parent.ID)
	w.env = admin
	is("a token that was rotated", leaked, "")
	byOld := as(with(child.Token))
	w.env = carol
	w.refused("does not hold for an overlap", "token", "rotate", parent.ID, "--compromised", "--overlap", "1h")
	w.json(&rotated, "token", "rotate", parent.ID, "--compromised")
	for _, gone := range []string{parent.Token, child.Token} {
		w.env = with(gone)
		w.refused("not valid", "cert", "list")
	}
	w.env = admin
	is("a token whose text was compromised", leaked, "the API token that asked for it was compromised")
	is("a token that one of these made", byOld, "the API token that asked for it was compromised")
	parent = rotated
	w.env = with(parent.Token)
	w.json(&child, "token", "create", "job", "--permission", "Certificates Issue")
	w.env = admin

	person, byParent, byChild, byOwn := as(carol), as(with(parent.Token)), as(with(child.Token)), as(with(own.Token))
	w.ok("token", "revoke", parent.ID)
	is("a token that was revoked", byParent, "the API token that asked for it was revoked")
	is("a token that it made", byChild, "the API token that asked for it was revoked")
	is("another token", byOwn, "")
	is("the tokens' owner", person, "")

	i := oidctest.Start(t)
	w.ok("role", "set", "signer", "--permission", "Certificates Issue")
	w.ok("provider", "add", "ci", "--kind", "machines", "--issuer", i.URL, "--audience", "keyturn", "--rule", "sub=job -> signer")
	w.withoutCredential()
	w.stdin = i.Token("keyturn", time.Now(), oidctest.Claims{"sub": "job"})
	w.ok("login", "--provider", "ci", "--jwt-stdin")
	w.stdin = ""
	machine := as(maps.Clone(w.env))
	w.ok("provider", "remove", "ci")
	is("a machine whose provider was removed", machine, "the machine's identity provider was removed")
	is("the other token, still", byOwn, "")

	// Of who is gone, certificates are listed and revoked by the name or the id, unless
	// somebody else has that name now.
	var gone struct{ ID string }
	w.json(&gone, "user", "show", "carol")
	w.ok("user", "remove", "carol")
	is("a user who was removed", person, "the user was removed")
	is("that user's token", byOwn, "the user was removed")
	w.user("dave", "Certificates Issue")
	for _, name := range []string{"carol", gone.ID} {
		var list []certificateJSON
		if w.json(&list, "cert", "list", "--user", name); len(list) != 6 {
			t.Errorf("of %s there are %d certificates, want 6: %+v", name, len(list), list)
		}
		if out := w.ok("cert", "revoke", "--user", name); !strings.Contains(out, "0 certificates are revoked") {
			t.Errorf("revoked again: %s", out)
		}
	}
	next := as(w.user("carol", "Certificates Issue"))
	w.ok("cert", "revoke", "--user", gone.ID)
	is("another user of the same name", next, "")
	w.refused("there is no user", "cert", "revoke", "--user", "nobody")
	w.ok("cert", "revoke", "--key-id", "carol")
	w.env = carol
	w.refused(`"keyturn cert revoke --user ID" revokes those of one user, and no others`, "cert", "sign", "--ca", "people", "--public-key", key, "--principal", "deploy")
}

// The certificates for a key that may be in wrong hands are revoked when somebody says so,
// whoever has to approve of its rotation. Those for one that is retired are when that is
// approved, where it has to be.
func TestCertificatesEndWithTheirKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.ok("ca", "create", "people")
	alice, bob := w.person("alice"), w.person("bob")
	w.lets("alice", "*", nil, "deploy")
	keys, certificates := map[string]keyJSON{}, map[string]certificateJSON{}
	for _, name := range []string{"stolen", "retired", "later"} {
		path := filepath.Join(w.dir, name)
		keys[name] = w.heldKey(w.keyFile(path, name), path, "")
		w.env = alice.user
		var c certificateJSON
		w.json(&c, "cert", "sign", "--ca", "people", "--public-key", path+".pub", "--principal", "deploy", "--valid", "1h")
		certificates[name] = c
	}
	is := func(name, revoked string) {
		t.Helper()
		var now certificateJSON
		w.json(&now, "cert", "show", certificates[name].Serial)
		if revoked == "" && now.Revoked != "" || !strings.Contains(now.Revoked, revoked) {
			t.Errorf("the certificate for the key %q is revoked: %q, want %q", name, now.Revoked, revoked)
		}
	}
	w.ok("retire", keys["retired"].UUID, "--wait")
	is("retired", "its key was retired")
	is("later", "")

	w.ok("settings", "set", "rotation.approval", "on")
	var out startedJSON
	w.json(&out, "rotate", keys["stolen"].UUID, "--compromised", "--yes")
	is("stolen", "its key is compromised")
	var r runJSON
	if w.json(&r, "run", "show", out.Run); r.ApproveBy == nil {
		t.Errorf("the rotation waits for nobody: %+v", r)
	}
	w.json(&out, "retire", keys["later"].UUID)
	is("later", "")
	w.env = bob.user
	w.ok("run", "approve", out.Run)
	is("later", "its key was retired")
}

// Who asks twice, or two who ask at once, remove one key of an authority and not the next.
func TestAuthorityRemovedTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.ok("ca", "create", "people")
	w.ok("ca", "rotate", "people")
	if out := w.ok("ca", "remove", "people", "--reason", "stolen"); !strings.Contains(out, "nothing signs as people until") || !strings.Contains(out, "keyturn ca rotate people --overlap 0s") {
		t.Errorf("it says %q", out)
	}
	w.refused("no key of authority \"people\" signs now", "ca", "remove", "people")
	var all []authorityJSON
	w.json(&all, "ca", "show", "people")
	if len(all) != 1 || all[0].State != "next" {
		t.Fatalf("left are %+v", all)
	}
	w.refused("has a next key already", "ca", "rotate", "people", "--overlap", "0s", "--type", "ed25519")
	w.ok("ca", "rotate", "people", "--overlap", "0s")
	next := all[0].ID
	if w.json(&all, "ca", "show", "people"); len(all) != 1 || all[0].State != "signing" || all[0].ID != next {
		t.Errorf("then there are %+v", all)
	}
	if out := w.ok("ca", "remove", "people"); !strings.Contains(out, "nothing signs as people any more") || !strings.Contains(out, "keyturn ca create people") {
		t.Errorf("of the last one it says %q", out)
	}
	w.refused("there is no authority", "ca", "remove", "people")
}

// ssh reads the list as any user, and so does what fetches it again: it keeps the mode of
// the file, and a link to it.
func TestListKeepsItsMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	file, link := filepath.Join(w.dir, "list"), filepath.Join(w.dir, "link")
	mode := func(want os.FileMode) {
		t.Helper()
		if info, err := os.Lstat(file); err != nil || info.Mode() != want {
			t.Errorf("the list is %v, %v; want %v", info.Mode(), err, want)
		}
	}
	w.ok("krl", "--out", file)
	mode(0o644)
	if err := errors.Join(os.Chmod(file, 0o640), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	w.ok("krl", "--out", link)
	mode(0o640)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link to the list is %v, %v", info.Mode(), err)
	}
}

// What is no regular file, such as a pipe or a device, is not replaced by one; the list
// goes to standard output by the name that has everywhere.
func TestListGoesToFilesOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	pipe, nowhere := filepath.Join(w.dir, "pipe"), filepath.Join(w.dir, "nowhere")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.Symlink(filepath.Join(w.dir, "none"), nowhere)); err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct{ out, why string }{{pipe, "is not a regular file"}, {nowhere, "a symbolic link to what does not exist"}, {w.dir, "is not a regular file"}, {"", "--out is empty"}} {
		w.refused(at.why, "krl", "--out", at.out)
	}
	if info, err := os.Lstat(pipe); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe is %v, %v", info.Mode(), err)
	}
	if k, err := trust.ParseKRL([]byte(w.ok("krl", "--out", "-"))); err != nil || k.Version != 0 {
		t.Errorf("standard output holds %+v, %v", k, err)
	}
	w.refused("--json says what became of a file", "krl", "--out", "-", "--json")
}

// A flag that is given and empty, as by a script of which a variable is, is not taken for
// one that is left out: that would be a certificate that opens more.
func TestEmptyFlagsOfCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "admin", "KEYTURN_PASSWORD": testPassword}
	w.ok("ca", "create", "people")
	var p policyJSON
	w.json(&p, "policy", "allow", "--user", "admin", "--host", "*", "--login", "deploy", "--login", "root")
	if !slices.Equal(p.Logins, []string{"deploy", "root"}) {
		t.Errorf("both logins are to be let in, and the policy has %q", p.Logins)
	}
	id := w.keyFile(w.dir+"/id", "id")
	w.ok("key", "import", w.dir+"/id")
	sign := []string{"cert", "sign", "--ca", "people", "--public-key", w.dir + "/id.pub", "--principal", "deploy"}
	for _, flag := range []string{"force-command", "source-address", "valid"} {
		w.refused("--"+flag+" is empty", append(sign, "--"+flag, "")...)
	}
	// A key that lies nowhere is refused with what to do instead, before anything is to be confirmed.
	w.ok(sign...)
	w.refused("keyturn key delete", "rotate", w.key(id).UUID, "--compromised")
	w.refused("--login is empty", "policy", "add", "x", "--include", "everyone", "--login", "")
	if said := w.ok("ca", "remove", "people"); !strings.Contains(said, "keyturn ca create people") {
		t.Errorf("without its only key, what is next for the name is not said: %s", said)
	}
}
