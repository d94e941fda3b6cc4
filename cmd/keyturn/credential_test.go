package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// A host is not left to keys that do not open it: a scan logs in by each, and only those
// that it saw to work can be all that stays.
func TestRemoveCredential(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 1)
	var h hostJSON
	w.json(&h, "host", "show", "web1")
	if len(h.Credentials) != 1 || h.Credentials[0].LastWorked == nil {
		t.Fatalf("after its enrolment the host has %+v", h.Credentials)
	}
	ops := h.Credentials[0].Key
	public := w.keyFile(filepath.Join(w.dir, "second"), "second")
	w.ok("key", "import", filepath.Join(w.dir, "second"))
	second := w.key(public).UUID
	scanned := func(want ...string) {
		t.Helper()
		w.ok("scan", "web1", "--wait")
		var h hostJSON
		w.json(&h, "host", "show", "web1")
		var opened []string
		for _, c := range h.Credentials {
			if c.LastWorked != nil {
				opened = append(opened, c.Key)
			}
		}
		if h.Scan.Outcome == "unreachable" || !slices.Equal(opened, want) {
			t.Fatalf("scanned (%s %s): %q open the host, want %q", h.Scan.Outcome, h.Scan.Why, opened, want)
		}
	}

	code, said, warned := w.try("host", "credential", "add", "web1", "--key", second, "--first")
	if code != 0 || !strings.Contains(warned, "key "+second+" was for everybody with the permission Keys Use") || !strings.Contains(warned, "keyturn key allow "+second) {
		t.Errorf("added: %d, and said of who may use the key:\n%s", code, warned)
	}
	if !strings.Contains(said, "web1 was not seen to be opened by key "+second+": keyturn scan web1 --wait tries it\n") || !strings.Contains(said, "web1 is opened by key "+ops+"\n") {
		t.Errorf("added:\n%s", said)
	}
	w.refused("no other key was seen to open host", "host", "credential", "remove", "web1", ops)
	scanned(ops)
	if log := w.servers[0].Log().Tail(1000); strings.Contains(log, "Connection closed by authenticating user") || !strings.Contains(log, "Failed publickey") {
		t.Errorf("the key that does not open the host was offered in no connection that ends in a login:\n%s", log)
	}
	w.refused("no other key was seen to open host", "host", "credential", "remove", "web1", ops)
	if shown := w.ok("host", "show", "web1"); !strings.Contains(shown, second+" (not seen to open it)") {
		t.Errorf("shown:\n%s", shown)
	}

	before := w.read(w.authorized(0))
	if err := w.servers[0].Authorize(public, ""); err != nil {
		t.Fatal(err)
	}
	scanned(second, ops)
	w.write(w.authorized(0), before)
	scanned(ops) // although a connection is kept that the second one opened
	w.refused("no other key was seen to open host", "host", "credential", "remove", "web1", ops)
	if err := w.servers[0].Authorize(public, ""); err != nil {
		t.Fatal(err)
	}
	scanned(second, ops)
	w.ok("host", "credential", "remove", "web1", ops)
	scanned(second)

	// Whoever must may do without.
	if _, _, warned := w.try("host", "credential", "add", "web1", "--key", ops); warned != "" {
		t.Errorf("added again, which takes the key from nobody:\n%s", warned)
	}
	w.write(w.authorized(0), "")
	w.refused("--force", "host", "credential", "remove", "web1", second)
	if left := w.ok("host", "credential", "remove", "web1", second, "--force"); !strings.Contains(left, "not seen to be opened by key "+ops) {
		t.Errorf("left:\n%s", left)
	}
}
