package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/access"
	"keyturn/internal/audit"
	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// lets writes a policy that lets a user in at hosts of a name as some logins, beside
// what the command line has for it.
func (w *world) lets(user, host string, exclude []string, logins ...string) {
	w.t.Helper()
	tenant := trust.TenantID(w.account().ID)
	var id string
	var users []userJSON
	w.json(&users, "user", "list")
	for _, u := range users {
		if u.Name == user {
			id = u.ID
		}
	}
	ev := audit.Event{Tenant: tenant, Actor: audit.Actor{Kind: "system"}, Action: "test.change", Subject: "test:1"}
	err := w.node.store.Update(context.Background(), ev, func(tx *store.Tx) error {
		a, err := access.AddApplication(tx, access.Application{
			ID: access.NewID(), Aud: access.NewAudience(), Name: "hosts " + host, Type: policy.Infrastructure, Criteria: []access.Criterion{{Criterion: policy.Criterion{
				Protocol: policy.ProtocolSSH, Port: 22, Include: policy.Attributes{Hostnames: []string{host}}, Exclude: policy.Attributes{Hostnames: exclude},
			}}},
		})
		if err != nil {
			return err
		}
		_, err = access.AddPolicy(tx, access.Policy{
			ID: access.NewID(), Application: a.ID, Precedence: 1, Name: "ops", Action: policy.Allow,
			Expression: policy.Expression{Include: []policy.Rule{{Kind: policy.User, Value: id}}}, SSH: &access.SSHRules{Usernames: logins},
		})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// A host that trusts an authority as it is printed, and reads the list as it is fetched,
// lets in by a certificate that policy allowed, and no more once that is revoked.
func TestCertificateOpensHost(t *testing.T) {
	t.Parallel()
	need.Program(t, "ssh", "openssh-client")
	dir := t.TempDir()
	cas, revoked := filepath.Join(dir, "cas"), filepath.Join(dir, "revoked")
	w := newServersOf(t, lab.Options{Config: []string{"TrustedUserCAKeys " + cas, "RevokedKeys " + revoked}})
	w.start()
	// The policies are for people, and a token asks in its own name.
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "admin", "KEYTURN_PASSWORD": testPassword}
	host := w.servers[0]
	login := host.User()
	w.lets("admin", "*", nil, login, "deploy")
	w.lets("admin", "web*", nil, "web")

	key := filepath.Join(dir, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.ok("ca", "create", "people")
	w.ok("krl", "--out", revoked)
	trusted := func() { w.write(cas, w.ok("ca", "show", "people")) }
	trusted()
	logsIn := func() bool {
		args := append([]string{"-n", "-i", key, "-o", "CertificateFile=" + key + "-cert.pub"}, w.ssh(host)...)
		for i, a := range args {
			if a == "IdentityFile=none" {
				args[i] = "IdentitiesOnly=yes"
			}
		}
		cmd := exec.Command("ssh", append(args, "true")...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("ssh: %s", out)
		}
		return err == nil
	}
	sign := func(args ...string) (c certificateJSON) {
		w.json(&c, append([]string{"cert", "sign", "--ca", "people", "--public-key", key + ".pub"}, args...)...)
		w.write(key+"-cert.pub", c.Certificate+"\n")
		return c
	}
	c := sign("--principal", login)
	if !logsIn() {
		t.Errorf("the certificate does not open; the log of sshd ends\n%s", host.Log().Tail(20))
	}
	if c.KeyID != "admin" || !strings.Contains(c.Why, `policy "ops" of application "hosts *"`) || c.ValidBefore == nil || time.Until(*c.ValidBefore) > 5*time.Minute {
		t.Errorf("signed %+v", c)
	}

	// What no policy that stands for every host allows is not signed.
	for _, principal := range []string{"root2", "web"} {
		if code, _, errs := w.try("cert", "sign", "--ca", "people", "--public-key", key+".pub", "--principal", login, "--principal", principal); code == 0 || !strings.Contains(errs, `no certificate as "`+principal+`"`) {
			t.Errorf("as %s: exit %d, %s", principal, code, errs)
		}
	}
	w.lets("admin", "*", []string{"db*"}, "carol")
	if code, _, errs := w.try("cert", "sign", "--ca", "people", "--public-key", key+".pub", "--principal", "carol"); code == 0 || !strings.Contains(errs, "does not stand for every host") {
		t.Errorf("by a policy from which hosts are excepted: exit %d, %s", code, errs)
	}
	// Where one application lets in at some hosts, and another at all, the one that does
	// is in force, whichever was there first; and each principal has its own.
	w.lets("admin", "*", nil, "carol", "dave")
	if c := sign("--principal", "carol", "--principal", login); strings.Count(c.Why, "; ") != 1 || !strings.Contains(c.Why, "in as carol") || !strings.Contains(c.Why, "in as "+login) {
		t.Errorf("signed %+v", c)
	}
	admin := w.env
	w.env = w.user("otto", "Certificates Issue")
	if code, _, errs := w.try("cert", "sign", "--ca", "people", "--public-key", key+".pub", "--principal", login); code == 0 || !strings.Contains(errs, "no certificate as") || strings.Contains(errs, "**") || !strings.Contains(errs, "keyturn policy allow") {
		t.Errorf("for somebody whom no policy names: exit %d, %s", code, errs)
	}

	w.env = admin

	for flag, says := range map[string]string{"--valid=0s": "no time for which", "--verify-required": "is for security keys"} {
		w.refused(says, "cert", "sign", "--ca", "people", "--public-key", key+".pub", "--principal", login, flag)
	}

	// A limit of the certificate limits.
	sign("--principal", login, "--source-address", "192.0.2.0/24")
	if logsIn() {
		t.Error("a certificate for another address opens")
	}
	c = sign("--principal", login, "--valid", "1h")
	var again certificateJSON
	w.json(&again, "cert", "show", c.Serial)
	if again.Certificate != c.Certificate {
		t.Errorf("shown as another certificate than was signed:\n%s\n%s", again.Certificate, c.Certificate)
	}

	// The list is the same until something is revoked, and then closes the host.
	tag := func(known string) (status int, etag string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.client.server+"/api/v1/krl", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+w.token)
		if known != "" {
			req.Header.Set("If-None-Match", known)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("ETag")
	}
	status, etag := tag("")
	if status != 200 || etag == "" {
		t.Errorf("the list: %d, tag %q", status, etag)
	}
	for _, known := range []string{etag, `"x", W/` + etag, "*"} {
		if status, same := tag(known); status != 304 || same != etag {
			t.Errorf("%s of the list that one has: %d, tag %q", known, status, same)
		}
	}
	if !logsIn() {
		t.Error("the certificate does not open before it is revoked")
	}
	w.ok("cert", "revoke", c.Serial, "--reason", "lost")
	if status, next := tag(etag); status != 200 || next == etag {
		t.Errorf("the list after a revocation: %d, tag %q", status, next)
	}
	w.ok("krl", "--out", revoked)
	if logsIn() {
		t.Error("a revoked certificate opens")
	}
	again = certificateJSON{}
	w.json(&again, "cert", "show", c.Serial)
	if again.Certificate != "" || !strings.Contains(again.Revoked, "lost") {
		t.Errorf("revoked, and shown as %+v", again)
	}

	// What the authority signs is what its profile says from then on.
	var profile profileJSON
	w.json(&profile, "ca", "profile", "people", "--max-valid", "10m", "--extension", "permit-pty", "--critical-option", "")
	if profile.MaxValid != "10m0s" || profile.Valid != "5m0s" || len(profile.Extensions) != 1 || len(profile.CriticalOptions) != 0 || len(profile.KeyTypes) == 0 {
		t.Errorf("the profile is %+v", profile)
	}
	if out := w.ok("ca", "profile", "people"); !strings.Contains(out, "10m0s") || !strings.Contains(out, "permit-pty") {
		t.Errorf("printed as\n%s", out)
	}
	for _, args := range [][]string{{"--valid", "1h"}, {"--force-command", "id"}} {
		if code, _, errs := w.try(append([]string{"cert", "sign", "--ca", "people", "--public-key", key + ".pub", "--principal", login}, args...)...); code == 0 || !strings.Contains(errs, "this authority signs") {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}

	// A rotation at once: the old key's certificates open, and the new one's.
	before := sign("--principal", login)
	w.ok("ca", "rotate", "people", "--overlap", "0s")
	trusted()
	if !logsIn() {
		t.Error("the certificate of the key before does not open")
	}
	after := sign("--principal", login)
	if after.Authority == before.Authority || !logsIn() {
		t.Error("the certificate of the new key does not open")
	}
	w.ok("ca", "remove", before.Authority, "--reason", "stolen")
	w.ok("krl", "--out", revoked)
	if !logsIn() {
		t.Error("the certificate of the new key does not open when the old one is removed")
	}
	w.write(key+"-cert.pub", before.Certificate+"\n")
	if logsIn() {
		t.Error("a certificate of a removed authority opens")
	}
	var all []certificateJSON
	w.json(&all, "cert", "list")
	if len(all) != 6 || all[0].Serial != after.Serial {
		t.Errorf("listed: %+v", all)
	}
}
