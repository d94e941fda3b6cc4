package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// listed returns the hosts of the targets that are listed with some flags.
func (w *world) listed(flags ...string) (hosts []string) {
	w.t.Helper()
	var list []targetJSON
	w.json(&list, append([]string{"target", "list"}, flags...)...)
	for _, t := range list {
		hosts = append(hosts, t.Host)
	}
	slices.Sort(hosts)
	return hosts
}

// Targets on the command line are the same rows as over Cloudflare's wire, and as hosts.
func TestTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	c := w.cloudflare()
	const at = "/accounts/{account}/infrastructure/targets"

	// The host that was taken in is one; what is added where there is none is another.
	before := time.Now().UTC().Format(time.RFC3339Nano)
	var made, now targetJSON
	w.json(&made, "target", "add", "Web-9", "--ip", "10.1.0.9", "--ip", "FD00:0::9", "--tag", "env=prod", "--tag", "old=a=b")
	if made.Host != "web-9" || made.Hostname != "Web-9" || made.ips() != "10.1.0.9 FD00:0::9" || made.tags() != "env=prod, old=a=b" || made.Addresses[0].Network == "" {
		t.Errorf("added %+v", made)
	}
	if _, text := c.do("GET", at+"/"+made.ID, ""); !strings.Contains(text, `"hostname":"Web-9"`) || !strings.Contains(text, `"tags":{"env":"prod","old":"a=b"}`) || !strings.Contains(text, `"ip_addr":"FD00:0::9"`) {
		t.Errorf("over Cloudflare's wire it is %s", text)
	}
	if text := w.ok("host", "show", "web-9"); !strings.Contains(text, "unenrolled") {
		t.Errorf("as a host it is %s", text)
	}
	c.do("POST", at, `{"hostname":"web-10","ip":{"ipv4":{"ip_addr":"10.2.0.10"}}}`)

	for flags, want := range map[string]string{
		"": "web-10 web-9 web1", "--hostname=WEB-9": "web-9", "--contains=B-": "web-10 web-9", "--ip=10.2.0.10 --ip=fd00::9": "web-10 web-9",
		"--ip-like=10.*": "web-10 web-9", "--within=10.1.0.0/16": "web-9", "--within=10.0.0.0/9": "web-10 web-9", "--within=10.2.0.10/32": "web-10", "--within=fd00::/16": "web-9",
		"--tag=env=prod": "web-9", "--tag=env=prod --tag=old=a=b": "web-9", "--tag=env=prod --tag=old=a": "", "--network=" + made.Addresses[0].Network: "web-10 web-9 web1",
		"--created-after=" + before: "web-10 web-9", "--created-before=" + before: "web1", "--modified-after=" + before + " --contains=9": "web-9",
		"--modified-before=2014-01-01T05:20:00Z": "",
	} {
		if got := strings.Join(w.listed(strings.Fields(flags)...), " "); got != want {
			t.Errorf("target list %s: %s, want %s", flags, got, want)
		}
	}
	if text := w.ok("target", "list", "--contains", "-9"); !strings.Contains(text, "HOST") || !strings.Contains(text, "web-9  Web-9") || !strings.Contains(text, "10.1.0.9 FD00:0::9  env=prod, old=a=b") {
		t.Errorf("target list prints\n%s", text)
	}

	// What is not given stays.
	w.json(&now, "target", "set", "web-9", "--tag", "env=lab", "--untag", "old")
	if now.ID != made.ID || now.Hostname != "Web-9" || now.ips() != made.ips() || now.tags() != "env=lab" || !now.ModifiedAt.After(*made.ModifiedAt) {
		t.Errorf("with other tags %+v", now)
	}
	w.json(&now, "target", "set", made.ID, "--hostname", "db", "--ip", "10.1.0.8")
	if now.Host != "web-9" || now.Hostname != "db" || now.ips() != "10.1.0.8" || now.tags() != "env=lab" {
		t.Errorf("elsewhere %+v", now)
	}
	w.json(&now, "target", "show", "WEB-9")
	if now.Hostname != "db" || now.Addresses[0] != (targetAddressJSON{"10.1.0.8", made.Addresses[0].Network}) {
		t.Errorf("shown %+v", now)
	}

	listed := w.listed()
	for _, bad := range []struct {
		args []string
		says string
	}{
		{[]string{"target", "add", "other", "--ip", "10.1.0.8"}, "is target " + made.ID},
		{[]string{"target", "add", "other"}, "--ip is not given"},
		{[]string{"target", "add", "other", "--ip", "somewhere"}, `"somewhere" is no IP address`},
		{[]string{"target", "add", "other", "--ip", "10.1.0.7", "--ip", "10.1.0.6"}, "are two addresses"},
		{[]string{"target", "add", "o_ther", "--ip", "10.1.0.7"}, "hostname"},
		{[]string{"target", "add", "other", "--ip", "10.1.0.7", "--tag", "env"}, "not of the form name=value"},
		{[]string{"target", "set", "web-9"}, "nothing to change"},
		{[]string{"target", "set", "web-9", "--network", made.ID}, "--network says where --ip is"},
		{[]string{"target", "set", "web1", "--ip", "10.1.0.7"}, "was taken in at 127.0.0.1"},
		{[]string{"target", "show", "nowhere"}, "there is no host"},
		{[]string{"target", "list", "--within", "10.0.0.0"}, "is no network"},
		{[]string{"target", "list", "--ip", "10.0.0"}, "is no IP address"},
		{[]string{"target", "list", "--tag", "env"}, "not of the form name=value"},
	} {
		if code, _, stderr := w.try(bad.args...); code == 0 || !strings.Contains(stderr, bad.says) {
			t.Errorf("%v: %d %s, want %s", bad.args, code, stderr, bad.says)
		}
	}
	if got := w.listed(); !slices.Equal(got, listed) {
		t.Errorf("after what is refused there are %v", got)
	}

	// A host that was taken in stays, and one that was not goes.
	w.ok("target", "remove", "web1")
	w.ok("target", "remove", "web-9")
	if code, _, stderr := w.try("target", "show", "web1"); code == 0 || !strings.Contains(stderr, `host "web1" is no target`) {
		t.Errorf("removed: %d %s", code, stderr)
	}
	if code, _, _ := w.try("host", "show", "web-9"); code == 0 {
		t.Error("a host that was only ever a target is there still")
	}
	w.ok("target", "add", "web1", "--ip", "127.0.0.1")
	if got := w.listed(); !slices.Equal(got, []string{"web-10", "web1"}) {
		t.Errorf("at the end there are %v", got)
	}
}
