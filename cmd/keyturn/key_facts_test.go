package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// What is said of a key is shown, found, kept through a rotation, and told when its
// time is over.
func TestKeyFacts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	var k keyJSON
	w.json(&k, "key", "generate", "--owner", "platform", "--label", "env=prod,team=db", "--expires", "90d")
	if k.Owner != "platform" || !slices.Equal(k.Labels, []string{"env=prod", "team=db"}) || k.ExpiresAt == nil {
		t.Errorf("made as %+v", k)
	}
	made := k.UUID
	k = keyJSON{}
	w.json(&k, "key", "set", made, "--purpose", "nightly backup", "--unlabel", "team", "--label", "env=test", "--expires", "never")
	if k.Owner != "platform" || k.Purpose != "nightly backup" || !slices.Equal(k.Labels, []string{"env=test"}) || k.ExpiresAt != nil {
		t.Errorf("set to %+v", k)
	}
	if out := w.ok("key", "show", k.UUID); !strings.Contains(out, "nightly backup") || !strings.Contains(out, "env=test") {
		t.Errorf("shown as\n%s", out)
	}
	listed := func(args ...string) (uuids []string) {
		var keys []keyJSON
		w.json(&keys, append([]string{"key", "list"}, args...)...)
		for _, k := range keys {
			uuids = append(uuids, k.UUID)
		}
		return uuids
	}
	for _, by := range [][]string{{"--label", "env=test"}, {"--owner", "platform"}} {
		if got := listed(by...); !slices.Equal(got, []string{k.UUID}) {
			t.Errorf("by %q there are %q", by, got)
		}
	}
	if got := listed("--label", "env=prod"); len(got) != 0 {
		t.Errorf("by what it was called before there are %q", got)
	}

	ops := w.key(w.parse(w.heldBy(w.ops)))
	w.json(&ops, "key", "set", ops.UUID, "--owner", "ops", "--purpose", "logins of Keyturn", "--label", "env=prod", "--expires", "1s")
	for deadline := time.Now().Add(time.Minute); !slices.Equal(listed("--expired"), []string{ops.UUID}); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not expire")
		}
	}
	w.ok("scan", "--wait")
	w.json(&ops, "key", "show", ops.UUID)
	if !slices.ContainsFunc(ops.Findings, func(f findingJSON) bool { return f.Kind == "expired" }) {
		t.Errorf("expired, it has the findings %+v", ops.Findings)
	}
	var r runJSON
	w.json(&r, "rotate", ops.UUID, "--wait", "--soak", "0s")
	var next keyJSON
	w.json(&next, "key", "show", r.Keys[0].New[0])
	if next.Owner != "ops" || next.Purpose != ops.Purpose || !slices.Equal(next.Labels, ops.Labels) || next.ExpiresAt != nil {
		t.Errorf("the key in its place is %+v", next)
	}
}
