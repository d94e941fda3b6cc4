package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"keyturn/internal/lab"
	"keyturn/internal/need"
)

// addApplication adds an application of a domain, over Keyturn's own API, whose one
// policy lets the administrator in.
func (w *world) addApplication(name string, logins ...string) (a struct{ ID, Aud string }) {
	w.t.Helper()
	body, err := json.Marshal(map[string]any{
		"name": name, "type": "ssh", "domain": name + ".example.com",
		"policies": []any{map[string]any{"name": "ops", "include": []string{"user:admin"}, "logins": logins}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	_, text := w.send("POST", "/api/v1/applications", string(body), headers("Authorization", "Bearer "+w.token))
	if err := json.Unmarshal([]byte(text), &a); err != nil || a.ID == "" {
		w.t.Fatalf("%v: %s", err, text)
	}
	return a
}

// keysOfCAs stands for what differs from one authority to the next.
var keysOfCAs = regexp.MustCompile(`AAAA[A-Za-z0-9+/=]+ `)

// The documented exchanges with authorities of applications and of the gateway, byte for
// byte but for ids and keys; what is seen here is what the command line sees.
func TestCloudflareCAs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	const apps, gateway = "/accounts/{account}/access/apps", "/accounts/{account}/access/gateway_ca"
	const ends = `"success":true,"errors":[],"messages":[]`
	const line = `ecdsa-sha2-nistp256 * open-ssh-ca@cloudflareaccess.org`
	expect := func(c flare, method, path, body string, status int, want string) string {
		t.Helper()
		got, text := c.do(method, path, body)
		if shown := keysOfCAs.ReplaceAllString(text, "* "); got != status || volatile.ReplaceAllString(shown, `"$1":"*"`) != want {
			t.Errorf("%s %s: %d\n%s\nwant %d\n%s", method, path, got, text, status, want)
		}
		return text
	}
	notFound := func(what string) string {
		return `{"result":null,"success":false,"errors":[{"code":12135,"message":"access.api.error.not_found","error_chain":[{"code":12135,"message":"` + what + `"}]}],"messages":[]}`
	}
	const unknown = `{"result":null,"success":false,"errors":[{"code":11021,"message":"access.api.error.unknown_application"}],"messages":[]}`
	info := func(count, page, total, pages string) string {
		return `,"result_info":{"count":` + count + `,"page":` + page + `,"per_page":1000,"total_count":` + total + `,"total_pages":` + pages + `}}`
	}
	web, db := w.addApplication("web"), w.addApplication("db")
	at := apps + "/" + web.ID + "/ca"
	shown := `{"id":"*","aud":"` + web.Aud + `","public_key":"` + line + `"}`
	one := `{"result":` + shown + `,` + ends + `}`

	expect(c, "GET", apps+"/ca", "", 200, `{"result":[],`+ends+info("0", "1", "0", "0"))
	expect(c, "GET", at, "", 404, notFound(`application \"`+web.ID+`\" has no authority`))
	expect(c, "DELETE", at, "", 404, notFound(`application \"`+web.ID+`\" has no authority`))
	made := expect(c, "POST", at, "{}", 200, one)
	expect(c, "POST", at, "", 400, `{"result":null,"success":false,"errors":[{"code":12130,"message":"access.api.error.invalid_request: the application has an authority already, \"app-`+web.ID+`\" (keyturn ca show app-`+web.ID+`)"}],"messages":[]}`)
	retry := c.with("Authorization", "Bearer "+w.token, "X-Stainless-Retry-Count", "1")
	if again := expect(retry, "POST", at, "", 200, one); again != made {
		t.Errorf("a POST that is repeated gets\n%s\nand the first got\n%s", again, made)
	}
	if got := expect(c, "GET", at, "", 200, one); got != made {
		t.Errorf("made\n%s\nread\n%s", made, got)
	}
	expect(retry, "POST", apps+"/"+db.ID+"/ca", "", 200, strings.Replace(one, web.Aud, db.Aud, 1)) // whose first was lost, too
	expect(c, "GET", apps+"/ca", "", 200, `{"result":[`+shown+`,`+strings.Replace(shown, web.Aud, db.Aud, 1)+`],`+ends+info("2", "1", "2", "1"))
	zone := "/zones/" + c.account[16:] + c.account[:16] + "/access/apps"
	expect(c, "GET", zone+"/ca", "", 200, `{"result":[`+shown+`,`+strings.Replace(shown, web.Aud, db.Aud, 1)+`],`+ends+info("2", "1", "2", "1"))
	expect(c, "GET", zone+"/"+web.ID+"/ca", "", 200, one)
	expect(c, "GET", apps+"/ca?page=2", "", 200, `{"result":[],`+ends+info("0", "2", "2", "1"))
	expect(c, "GET", apps+"/ca?page=2&per_page=1", "", 200, `{"result":[`+strings.Replace(shown, web.Aud, db.Aud, 1)+`],`+ends+strings.Replace(info("1", "2", "2", "2"), "1000", "1", 1))
	for _, bad := range []string{"page=-1", "per_page=1001", "page=x"} {
		if status, text := c.do("GET", apps+"/ca?"+bad, ""); status != 400 || !strings.Contains(text, `{"code":12130,`) {
			t.Errorf("%s: %d %s", bad, status, text)
		}
	}
	for _, path := range []string{apps + "/nobody/ca", apps + "/1f4158e4-c12d-5097-a058-7bb2817e132b/ca"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			expect(c, method, path, "", 404, unknown)
		}
	}

	// It is the authority that the command line knows.
	var seen struct {
		Result struct {
			ID        string `json:"id"`
			PublicKey string `json:"public_key"`
		}
	}
	if err := json.Unmarshal([]byte(made), &seen); err != nil {
		t.Fatal(err)
	}
	var list []authorityJSON
	w.json(&list, "ca", "list")
	if len(list) != 2 || list[0].Application != web.ID || list[0].Purpose != "user" || seen.Result.ID != strings.Repeat("0", 16)+strings.ReplaceAll(list[0].ID, "-", "") ||
		seen.Result.PublicKey != strings.Replace(list[0].PublicKey, list[0].Name, "open-ssh-ca@cloudflareaccess.org", 1) {
		t.Errorf("seen as %s, and by keyturn ca list as %+v", made, list)
	}
	// A rotation shows one at a time, the one that signs.
	w.ok("ca", "rotate", list[0].Name)
	if got := expect(c, "GET", at, "", 200, one); got != made {
		t.Errorf("during a rotation it is %s, was %s", got, made)
	}
	if got := expect(c, "DELETE", at, "", 202, `{"result":{"id":"*"},`+ends+`}`); !strings.Contains(got, seen.Result.ID) {
		t.Errorf("removed %s, want %s", got, seen.Result.ID)
	}
	if code, _, errs := w.try("ca", "show", list[0].Name); code == 0 || !strings.Contains(errs, "there is no authority") {
		t.Errorf("a removed one is shown: %d %s", code, errs)
	}
	// One that the command line made is seen here, too, and goes with its application.
	w.ok("ca", "create", "webs", "--application", "web")
	expect(c, "GET", at, "", 200, one)
	w.send("DELETE", "/api/v1/applications/"+web.ID, "", headers("Authorization", "Bearer "+w.token))
	w.json(&list, "ca", "list")
	if len(list) != 1 || list[0].Application != db.ID {
		t.Errorf("without application web there are %+v", list)
	}
	w.ok("krl", "--out", filepath.Join(w.dir, "krl"))
	if raw, err := os.ReadFile(filepath.Join(w.dir, "krl")); err != nil || len(raw) < 300 { // three keys of a hundred bytes
		t.Errorf("the list of what is revoked has %d bytes: %v", len(raw), err)
	}

	// The gateway has one.
	exists := `{"result":null,"success":false,"errors":[{"code":12130,"message":"access.api.error.gateway_ca_already_exists","error_chain":[{"code":12130,"message":"the gateway has an authority already: gateway"}]}],"messages":[]}`
	hop := `{"id":"*","public_key":"` + line + `"}`
	expect(c, "GET", gateway, "", 200, `{"result":[],`+ends+`}`)
	made = expect(c, "POST", gateway, "", 201, `{"result":`+hop+`,`+ends+`}`)
	expect(c, "POST", gateway, "{}", 400, exists)
	if again := expect(retry, "POST", gateway, "", 201, `{"result":`+hop+`,`+ends+`}`); again != made {
		t.Errorf("a POST that is repeated gets\n%s\nand the first got\n%s", again, made)
	}
	expect(c, "GET", gateway, "", 200, `{"result":[`+hop+`],`+ends+`}`)
	w.ok("ca", "rotate", "gateway")
	expect(c, "GET", gateway, "", 200, `{"result":[`+hop+`,`+hop+`],`+ends+`}`) // hosts should trust both
	w.json(&list, "ca", "list")
	for _, a := range list {
		if a.Purpose != "gateway" {
			expect(c, "DELETE", gateway+"/"+a.ID, "", 404, notFound(`the gateway has no authority \"`+a.ID+`\"`))
			continue
		}
		expect(c, "DELETE", gateway+"/"+a.ID, "", 200, `{"result":{"id":"*"},`+ends+`}`)
		expect(c, "DELETE", gateway+"/"+a.ID, "", 404, notFound(`the gateway has no authority \"`+a.ID+`\"`))
	}
	expect(c, "GET", gateway, "", 200, `{"result":[],`+ends+`}`)
	w.ok("ca", "create", "hops", "--purpose", "gateway")
	expect(c, "POST", gateway, "", 400, strings.Replace(exists, "already: gateway", "already: hops", 1))

	// Another account sees none of it.
	var other addedAccountJSON
	w.json(&other, "account", "add", "other")
	theirs := w.find(`"token":"(kt_[^"]+)"`, "POST", "/api/v1/tokens", `{"name":"x","permissions":["All"]}`, headers("Authorization", basic(other.Admin, other.Password)))
	o := c.with("Authorization", "Bearer "+theirs)
	o.account = w.find(`"id":"([^"]+)"`, "GET", "/api/v1/account", "", headers("Authorization", basic(other.Admin, other.Password)))
	expect(o, "GET", apps+"/ca", "", 200, `{"result":[],`+ends+info("0", "1", "0", "0"))
	expect(o, "GET", gateway, "", 200, `{"result":[],`+ends+`}`)
	for _, method := range []string{"GET", "POST", "DELETE"} {
		expect(o, method, apps+"/"+db.ID+"/ca", "", 404, unknown)
	}
	w.json(&list, "ca", "list")
	for _, a := range list {
		expect(o, "DELETE", gateway+"/"+a.ID, "", 404, notFound(`the gateway has no authority \"`+a.ID+`\"`))
	}
}

// A host that trusts the authority of an application, as this wire prints it, lets in by
// certificates for that application, by none for another one, and by none once the
// authority is removed over this wire.
func TestCloudflareCAOpensHost(t *testing.T) {
	t.Parallel()
	need.Program(t, "ssh", "openssh-client")
	dir := t.TempDir()
	cas, revoked := filepath.Join(dir, "cas"), filepath.Join(dir, "revoked")
	w := newServersOf(t, lab.Options{Config: []string{"TrustedUserCAKeys " + cas, "RevokedKeys " + revoked}})
	w.start()
	host, c := w.servers[0], w.cloudflare()
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "admin", "KEYTURN_PASSWORD": testPassword}
	web, db := w.addApplication("web", host.User()), w.addApplication("db", host.User())
	line := func(application string) string {
		return w.find(`"public_key":"([^"]+)"`, "POST", "/client/v4/accounts/"+c.account+"/access/apps/"+application+"/ca", "", c.header)
	}
	w.write(cas, line(web.ID)+"\n")
	line(db.ID)
	w.ok("krl", "--out", revoked)

	key := filepath.Join(dir, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sign := func(application string) {
		t.Helper()
		var c certificateJSON
		w.json(&c, "cert", "sign", "--ca", "app-"+application, "--public-key", key+".pub", "--principal", host.User())
		w.write(key+"-cert.pub", c.Certificate+"\n")
	}
	logsIn := func() bool {
		args := []string{"-n", "-i", key, "-o", "CertificateFile=" + key + "-cert.pub"}
		for _, a := range w.ssh(host) {
			args = append(args, strings.Replace(a, "IdentityFile=none", "IdentitiesOnly=yes", 1))
		}
		cmd := exec.Command("ssh", append(args, "true")...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
		return cmd.Run() == nil
	}
	sign(db.ID)
	if logsIn() {
		t.Error("a certificate for application db opens a host of application web")
	}
	sign(web.ID)
	if !logsIn() {
		t.Errorf("a certificate for application web does not open its host; the log of sshd ends\n%s", host.Log().Tail(20))
	}
	// That of an application for hosts signs whatever hosts those are: no others trust it.
	w.lets("admin", "web*", nil, "deploy")
	w.ok("ca", "create", "webs", "--application", "hosts web*")
	w.ok("cert", "sign", "--ca", "webs", "--public-key", key+".pub", "--principal", "deploy")
	for _, ca := range []string{"webs", "app-" + db.ID} {
		if code, _, errs := w.try("cert", "sign", "--ca", ca, "--public-key", key+".pub", "--principal", "carol"); code == 0 || !strings.Contains(errs, `no certificate as "carol"`) || strings.Contains(errs, "every host") {
			t.Errorf("by %s as somebody whom the application does not let in: %d %s", ca, code, errs)
		}
	}
	if code, _, errs := w.try("cert", "sign", "--ca", "app-"+web.ID, "--public-key", key+".pub", "--principal", "root2"); code == 0 || !strings.Contains(errs, `no certificate as "root2"`) {
		t.Errorf("as somebody whom the application does not let in: %d %s", code, errs)
	}
	if status, text := c.do("DELETE", "/accounts/{account}/access/apps/"+web.ID+"/ca", ""); status != 202 {
		t.Fatal(status, text)
	}
	w.ok("krl", "--out", revoked)
	if logsIn() {
		t.Error("a certificate of a removed authority opens")
	}
	if code, _, errs := w.try("cert", "sign", "--ca", "app-"+web.ID, "--public-key", key+".pub", "--principal", host.User()); code == 0 || !strings.Contains(errs, "there is no authority") {
		t.Errorf("a removed authority signs: %d %s", code, errs)
	}
}
