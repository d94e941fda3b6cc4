package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/lab"
	"keyturn/internal/need"
)

// The authority of an application for some hosts signs for whom that application lets in,
// and opens no host that trusts another one's. What an application let in to is taken back
// over this wire: every certificate because of it, whoever signed it, and no other.
func TestCloudflareRevokesTokens(t *testing.T) {
	t.Parallel()
	need.Program(t, "ssh", "openssh-client")
	dir := t.TempDir()
	cas, revoked := filepath.Join(dir, "cas"), filepath.Join(dir, "revoked")
	w := newServersOf(t, lab.Options{Config: []string{"TrustedUserCAKeys " + cas, "RevokedKeys " + revoked}})
	w.start()
	host, c := w.servers[0], w.cloudflare()
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "admin", "KEYTURN_PASSWORD": testPassword}
	w.stdin = testPassword + "\n"
	w.ok("user", "add", "bob", "--permission", "Certificates Issue", "--password-stdin")
	w.stdin = ""
	for _, some := range []struct{ user, hosts string }{{"admin", "web*"}, {"admin", "db*"}, {"bob", "mail*"}, {"admin", "*"}} {
		w.lets(some.user, some.hosts, nil, host.User())
	}
	trusted := ""
	for name, application := range map[string]string{"webs": "hosts web*", "dbs": "hosts db*", "users": ""} {
		var made authorityJSON
		w.json(&made, "ca", "create", name, "--application", application)
		if name != "dbs" {
			trusted += made.PublicKey + "\n"
		}
	}
	w.write(cas, trusted)
	w.ok("krl", "--out", revoked)
	key := filepath.Join(dir, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sign := func(ca string) (c certificateJSON) {
		t.Helper()
		w.json(&c, "cert", "sign", "--ca", ca, "--public-key", key+".pub", "--principal", host.User())
		return c
	}
	opens := func(what string, c certificateJSON, want bool) {
		t.Helper()
		w.ok("krl", "--out", revoked)
		w.write(key+"-cert.pub", c.Certificate+"\n")
		args := []string{"-n", "-i", key, "-o", "CertificateFile=" + key + "-cert.pub"}
		for _, a := range w.ssh(host) {
			args = append(args, strings.Replace(a, "IdentityFile=none", "IdentitiesOnly=yes", 1))
		}
		cmd := exec.Command("ssh", append(args, "true")...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
		if got := cmd.Run() == nil; got != want {
			t.Errorf("%s opens the host: %v, want %v; the log of sshd ends\n%s", what, got, want, host.Log().Tail(20))
		}
	}
	serials := func(application string) (list []string) {
		t.Helper()
		var all []certificateJSON
		w.json(&all, "cert", "list", "--application", application)
		for _, c := range all {
			list = append(list, c.Serial)
		}
		return list
	}

	web, db, all := sign("webs"), sign("dbs"), sign("users")
	opens("a certificate of the application for web*", web, true)
	opens("a certificate of the application for db*", db, false)
	opens("a certificate for every host", all, true)
	w.env["KEYTURN_USER"] = "bob"
	if code, _, errs := w.try("cert", "sign", "--ca", "webs", "--public-key", key+".pub", "--principal", host.User()); code == 0 || !strings.Contains(errs, "no certificate as") {
		t.Errorf("bob, whom another application lets in, gets a certificate of this one: %d %s", code, errs)
	}
	w.env["KEYTURN_USER"] = "admin"

	for application, want := range map[string]certificateJSON{"hosts web*": web, "hosts db*": db, "hosts *": all} {
		if got := serials(application); len(got) != 1 || got[0] != want.Serial {
			t.Errorf("because of %q there are %q, want %s", application, got, want.Serial)
		}
	}
	id := w.find(`"id":"([^"]+)","name":"hosts web\*"`, "GET", "/client/v4/accounts/"+c.account+"/access/apps?exact=true&name=hosts+web*", "", c.header)
	if status, text := c.do("POST", "/accounts/{account}/access/apps/"+id+"/revoke_tokens", ""); status != 202 {
		t.Fatal(status, text)
	}
	opens("a revoked certificate", web, false)
	opens("that of another application", all, true)
	again := sign("webs")
	opens("a new one", again, true)

	// The same in Keyturn's words, also of an application that is gone.
	w.ok("cert", "revoke", "--application", "hosts *", "--reason", "moved")
	opens("one that was revoked by the command line", all, false)
	opens("another one", again, true)
	whole := w.find(`"id":"([^"]+)","name":"hosts \*"`, "GET", "/client/v4/accounts/"+c.account+"/access/apps?exact=true&name=hosts+*", "", c.header)
	last := sign("users")
	opens("one of an application that is there", last, true)
	if status, text := c.do("DELETE", "/accounts/{account}/access/apps/"+whole, ""); status != 202 {
		t.Fatal(status, text)
	}
	opens("one of an application that is gone", last, false)
	opens("one of another application", again, true)
	if got := serials(whole); len(got) != 2 {
		t.Errorf("because of one that is gone there are %q", got)
	}
	var shown certificateJSON
	if w.json(&shown, "cert", "show", last.Serial); !slices.Equal(shown.Applications, []string{whole}) || !strings.Contains(shown.Revoked, "the application that let it was removed") {
		t.Errorf("one of an application that is gone: %+v", shown)
	}
	if out := w.ok("cert", "revoke", "--application", whole); !strings.HasPrefix(out, "0 certificates are") {
		t.Errorf("revoked again %s", out)
	}
}
