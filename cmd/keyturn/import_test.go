package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// importFile imports hosts of a file with this content, and returns the report.
func (w *world) importFile(content string, args ...string) (code int, r importReport, errs string) {
	w.t.Helper()
	path := filepath.Join(w.dir, "hosts")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	code, out, errs := w.try(append([]string{"host", "import", path, "--identity", w.ops, "--json"}, args...)...)
	if out != "" {
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			w.t.Fatalf("%v in %s", err, out)
		}
	}
	return code, r, errs
}

// refusals returns what is said of which lines.
func (r importReport) refusals() map[int]string {
	said := map[int]string{}
	for _, h := range r.Refused {
		said[h.Line] = h.Reason
	}
	return said
}

func (w *world) hostCount() int {
	w.t.Helper()
	var hosts []hostJSON
	w.json(&hosts, "host", "list")
	return len(hosts)
}

// Hosts of a file are taken in, all or none, and once.
func TestImportHosts(t *testing.T) {
	t.Parallel()
	w := newServers(t, 3)
	ops := w.opsKey()
	w.start()
	var known strings.Builder
	for _, s := range w.servers {
		if err := s.Authorize(ops, ""); err != nil {
			t.Fatal(err)
		}
		known.WriteString(s.KnownHosts())
	}
	knownPath := filepath.Join(w.dir, "known_hosts")
	if err := os.WriteFile(knownPath, []byte(known.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s := w.servers
	lines := []string{
		"# ours\nname,address,host_key\n", // line 3 follows
		fmt.Sprintf("web1,%s,%s\n", s[0].Address(), s[0].HostKey()),
		fmt.Sprintf("web2,%s,\n", s[1].Address()),
		fmt.Sprintf("web3,%s\n", s[2].Address()),
	}
	file := strings.Join(lines, "")
	login, hosts := []string{"--login", s[0].User()}, []string{"--known-hosts", knownPath}

	// One line is wrong: none is added, and the line is told.
	code, r, _ := w.importFile(file, append(login, "--wait")...)
	if said := r.refusals(); code == 0 || len(said) != 2 || !strings.Contains(said[4], "no host key") || !strings.Contains(said[5], "no host key") || len(r.Added) != 0 || w.hostCount() != 0 {
		t.Fatalf("without the host keys of two lines: exit %d, %+v, and %d hosts", code, r, w.hostCount())
	}

	all := append(login, hosts...)
	code, r, errs := w.importFile(file, append(all, "--dry-run")...)
	if code != 0 || !r.DryRun || len(r.Added) != 3 || w.hostCount() != 0 {
		t.Fatalf("dry: exit %d, %+v, and %d hosts; %s", code, r, w.hostCount(), errs)
	}
	var keys []keyJSON
	if w.json(&keys, "key", "list"); len(keys) != 0 {
		t.Errorf("a dry run has left %d keys", len(keys))
	}

	code, r, errs = w.importFile(file, all...)
	if code != 0 || len(r.Added) != 3 || len(r.Refused) != 0 {
		t.Fatalf("exit %d, %+v; %s", code, r, errs)
	}
	for i, h := range r.Added {
		if h.Line != i+3 || h.Name != s[i].Name() || h.State != "ready" {
			t.Errorf("added: %+v", h)
		}
	}
	var web2 hostJSON
	w.json(&web2, "host", "show", "web2")
	if len(web2.HostKeys) != 1 || web2.HostKeys[0].PublicKey != s[1].HostKey().String() || web2.HostKeys[0].Origin != "given" || web2.Mode != "inventory" {
		t.Errorf("web2 is %+v", web2)
	}

	// The same file again, and as JSON: nothing changes.
	asJSON := fmt.Sprintf(`{"name":"WEB1","address":%q,"login":%q}`+"\n\n"+`{"name":"web2","address":%q,"login":%q}`, s[0].Address(), s[0].User(), s[1].Address(), s[1].User())
	for _, content := range []string{file, asJSON} {
		code, r, errs = w.importFile(content, all...)
		if code != 0 || len(r.Added) != 0 || len(r.Present) < 2 || w.hostCount() != 3 {
			t.Errorf("again: exit %d, %+v, and %d hosts; %s", code, r, w.hostCount(), errs)
		}
	}

	// A name that is there with another address is not the same host.
	code, r, _ = w.importFile("name,address\nweb1,127.0.0.1:1\nweb9,127.0.0.1:2\n", append(login, "--accept-new")...)
	if said := r.refusals(); code == 0 || !strings.Contains(said[2], `there is a host "web1" already`) || len(said) != 1 || w.hostCount() != 3 {
		t.Errorf("another web1: exit %d, %+v", code, r)
	}
}

// What is wrong with a file is told by its line, and nothing is added.
func TestImportBadFiles(t *testing.T) {
	t.Parallel()
	w := newServers(t, 0)
	w.opsKey()
	w.start()
	many := "name\n" + strings.Repeat("x\n", 10_001)
	for _, bad := range []struct {
		content, says string
		line          int // 0: of the whole file
	}{
		{"", "holds no host", 0},
		{"name,address\n", "holds no host", 0},
		{many, "more than 10000 hosts", 0},
		{strings.Repeat("x", 17<<20), "is longer than", 0},
		{"name,colour\nweb1,red\n", `"colour" is none of`, 0},
		{"name\n\"web1\n", `extraneous or missing "`, 0},
		{"name\nweb1\nweb1\n", "line 2 has the same name", 3},
		{"name,address\nweb1,h:22\nweb2,H\n", "line 2 has the same address", 3},
		{"name\nweb 1\n", "neither an IP address nor a DNS name", 2},
		{"name,address\nweb1,h:99999\n", "port", 2},
		{"name,address\nweb1,h,x\n", "3 values for 2 columns", 2},
		{"name,become\nweb1,pray\n", "become", 2},
		{"name,host_key\nweb1,ssh-ed25519 AAAA\n", "public key", 2},
		{"name,key\nweb1,nonsense\n", "UUID", 2},
		{"{\"name\":\"web1\"}\n{\"name\":7}\n", "no JSON object of texts", 2},
		{"{\"name\":\"web1\",\"colour\":\"red\"}\n", `"colour" is none of`, 1},
		{"{\"name\":\"web1\"\n", "no JSON object of texts", 1},
	} {
		code, r, errs := w.importFile(bad.content, "--login", "root", "--accept-new")
		said := errs
		if bad.line > 0 {
			said = r.refusals()[bad.line]
		}
		if code == 0 || !strings.Contains(said, bad.says) {
			t.Errorf("%.40q: exit %d, %q; want it to say %q of line %d", bad.content, code, said, bad.says, bad.line)
		}
	}
	if n := w.hostCount(); n != 0 {
		t.Errorf("bad files have left %d hosts", n)
	}
}
