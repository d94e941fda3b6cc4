package main

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// BenchmarkFleetKeys has a server of its own answer for two keys that 100,000 hosts
// accept each: it lists them, imports one, and begins to rotate it.
//
//	X-MB      the most memory that the server had meanwhile (VmHWM)
//	X-cpu-s   processor time of the server
//	X-stall-s the longest that another change waited for its commit meanwhile
func BenchmarkFleetKeys(b *testing.B) {
	const hosts = 100_000
	for range b.N {
		w := &world{t: b, dir: b.TempDir(), workers: 1}
		w.start()
		one, two := w.keyFile(filepath.Join(w.dir, "one"), "one@ci"), w.keyFile(filepath.Join(w.dir, "two"), "two@ci")
		other := w.keyFile(filepath.Join(w.dir, "other"), "other@ci")
		w.ok("key", "import", filepath.Join(w.dir, "other"))
		w.seedFleet(hosts, one, two)
		w.stop()
		daemon := w.serve()
		w.client = w.withToken()
		measure := func(what string, fn func()) {
			resetPeak(b, daemon)
			before := processorTimeOf(b, daemon)
			stop := make(chan struct{})
			longest := make(chan time.Duration)
			go func() { longest <- w.longestChange(other, stop) }()
			fn()
			b.ReportMetric((processorTimeOf(b, daemon) - before).Seconds(), what+"-cpu-s")
			b.ReportMetric(peakMegabytes(b, daemon), what+"-MB")
			close(stop)
			b.ReportMetric((<-longest).Seconds(), what+"-stall-s")
		}
		b.ReportMetric(0, "ns/op")
		measure("list", func() {
			keys, err := list[keyJSON](b.Context(), w.client, "/keys", "keys", url.Values{"kind": {"user"}})
			if err != nil || len(keys) != 3 {
				b.Fatalf("%d keys, %v", len(keys), err)
			}
		})
		var k keyJSON
		measure("import", func() {
			w.api(&k, http.MethodPost, "/keys", map[string]any{"private_key": w.read(filepath.Join(w.dir, "one"))})
			if len(k.Authorized) != hosts {
				b.Fatalf("the key is accepted in %d places", len(k.Authorized))
			}
		})
		var run startedJSON
		measure("rotate", func() {
			w.api(&run, http.MethodPost, "/rotations", map[string]any{"keys": []string{k.UUID}, "soak": "0s", "canary": 1})
		})
		w.ok("run", "back", run.Run)
	}
}

// longestChange changes what is known of a key, again and again until it is stopped, and
// returns how long the slowest change took.
func (w *world) longestChange(key trust.PublicKey, stop chan struct{}) (longest time.Duration) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return longest
		default:
		}
		begun := time.Now()
		err := w.client.call(w.t.Context(), http.MethodPatch, "/keys/"+url.PathEscape(string(key.Fingerprint())), map[string]any{"purpose": fmt.Sprint(n)}, nil)
		if err != nil {
			w.t.Error(err)
			return longest
		}
		longest = max(longest, time.Since(begun))
	}
}

// seedFleet has the world's node know of n hosts, whose account deploy accepts keys, as
// if it had scanned them.
func (w *world) seedFleet(n int, keys ...trust.PublicKey) {
	w.t.Helper()
	text := ""
	for _, k := range keys {
		text += k.String() + "\n"
	}
	accepted := inventory.AuthorizedKeysOf([]byte(text), trust.OpenSSHVersion(9, 2))
	tenant := w.node.beginning.Tenant
	for from := 0; from < n; from += 1000 {
		ev := audit.Event{Tenant: tenant, Actor: audit.Actor{Kind: "system"}, Action: "test.seed", Subject: "test:fleet"}
		err := w.node.store.Update(w.t.Context(), ev, func(tx *store.Tx) error {
			for i := from; i < min(from+1000, n); i++ {
				h := inventory.Host{
					ID: inventory.NewHostID(), Name: fmt.Sprintf("web%06d", i), Address: fmt.Sprintf("web%06d.invalid:22", i), User: "deploy",
					Mode: inventory.Enforced, State: inventory.Ready, Pins: []inventory.Pin{{Key: pinOf(i), Origin: inventory.Given}},
				}
				if _, err := inventory.AddHost(tx, h); err != nil {
					return err
				}
				_, err := inventory.RecordScan(tx, inventory.Scan{
					Host: h.ID, Outcome: inventory.Scanned, Complete: true, Users: []string{"deploy"},
					Files: []inventory.FoundFile{{
						File: inventory.File{
							Place: trust.Place{Host: h.ID, User: "deploy", Path: "/home/deploy/.ssh/authorized_keys"},
							Kind:  inventory.AuthorizedFile, SHA256: "seeded", Inode: "8:1",
						},
						Authorized: accepted,
					}},
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// pinOf returns a host key that nobody has.
func pinOf(n int) trust.PublicKey {
	key, err := trust.ParsePublicKeyBlob(fmt.Appendf([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), "%032d", n))
	if err != nil {
		panic(err)
	}
	return key
}
