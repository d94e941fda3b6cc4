package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// scrape reads /metrics with a token, or with none.
func (w *world) scrape(method, token string) (status int, text string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.node.address+"/metrics", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK && !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		w.t.Errorf("metrics come as %q", resp.Header.Get("Content-Type"))
	}
	return resp.StatusCode, string(data)
}

// Prometheus sees runs, places, hosts, commits and handshakes, with a token that
// may see just that, and nobody's name.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	var reads, other tokenJSON
	w.json(&reads, "token", "create", "prometheus", "--permission", "Metrics Read")
	w.json(&other, "token", "create", "other", "--permission", "Hosts Read", "--permission", "Runs Read")
	for name, c := range map[string]struct {
		method, token string
		status        int
	}{
		"no token":      {"GET", "", 401},
		"a wrong token": {"GET", "kt_" + strings.Repeat("0", 49), 401},
		"another token": {"GET", other.Token, 403},
		"a POST":        {"POST", reads.Token, 405},
	} {
		if status, text := w.scrape(c.method, c.token); status != c.status || strings.Contains(text, "keyturn_") {
			t.Errorf("%s: %d %.200s", name, status, text)
		}
	}

	w.ok("scan", "--wait")
	wants := func(lines ...string) (text string) {
		t.Helper()
		status, text := w.scrape("GET", reads.Token)
		for _, line := range lines {
			if status != 200 || !regexp.MustCompile(`(?m)^`+line+`$`).MatchString(text) {
				t.Errorf("%d, and no line %s", status, line)
			}
		}
		return text
	}
	text := wants(
		`keyturn_runs\{procedure="enrol",state="done"\} 2`,
		`keyturn_runs\{procedure="scan",state="done"\} 1`,
		`keyturn_targets_total\{outcome="done",procedure="scan",step="Scan"\} 2`,
		`keyturn_hosts\{mode="enforced"\} 2`,
		`keyturn_hosts_unreachable 0`,
		`keyturn_ssh_handshake_seconds_count\{outcome="ok",purpose="login"\} [1-9]\d*`,
		`keyturn_store_update_seconds_count\{outcome="ok"\} [1-9]\d*`,
		`process_open_fds [1-9]\d*`,
		`go_goroutines [1-9]\d*`,
		`keyturn_build_info\{version=".*"\} 1`,
	)
	for _, s := range w.servers {
		for _, secret := range []string{s.Name(), s.Address(), string(s.HostKey().Fingerprint()), reads.Token} {
			if strings.Contains(text, secret) {
				t.Errorf("the metrics name %q", secret)
			}
		}
	}

	w.servers[1].Kill()
	w.ok("scan", "web2", "--wait") // by a connection that was kept, perhaps
	w.ok("scan", "web2", "--wait")
	wants(`keyturn_hosts_unreachable 1`, `keyturn_ssh_handshake_seconds_count\{outcome="unavailable",purpose="login"\} [1-9]\d*`)
}
