package control

import (
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/discovery"
	"keyturn/internal/hostid"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/rotation"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// newPlane returns a plane over an empty store, with an actor who may do everything.
// It has no keyring: who needs one here does more than the tests say.
func newPlane(t *testing.T) (*Plane, identity.Actor) {
	t.Helper()
	s := storetest.Open(t, keyring.Schema, identity.Schema, inventory.Schema, job.Schema, hostid.Schema, Schema)
	procedures := append(rotation.New(s, nil, nil, discovery.Judge).Procedures(), discovery.New(s, nil).Procedures()...)
	engine, err := job.New(s, procedures, job.Options{Planners: map[string]job.Planner{ScanSchedule: discovery.PlanScheduled}})
	if err != nil {
		t.Fatal(err)
	}
	return New(s, nil, nil, engine), identity.Actor{Tenant: storetest.Tenant, Kind: "system", ID: "test", Permissions: []identity.Permission{identity.All}}
}

// A value that is out of bounds is refused by name, and changes nothing.
func TestBadSettings(t *testing.T) {
	p, actor := newPlane(t)
	before, err := p.ListSettings(t.Context(), actor)
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][]string{
		rotationSoak:     {"", "1", "-1s", "8785h", "soon", "1h ", strings.Repeat("9", 100) + "h"},
		rotationProof:    {"", "Login", "hearsay"},
		rotationCanary:   {"", "-1", "10001", "1.5", "one"},
		rotationWave:     {"", "-1", "100001", "0x10"},
		archiveRetention: {"", "0s", "59m59s", "87841h"},
		keysRSAPool:      {"", "-1", "65", "many"},
		scanInterval:     {"", "-10m", "1ns", "9m59s", "8785h"},
		rotationApproval: {"", "yes", "ON", "true"},
		revealApproval:   {"", "no", "Off"},
		seedOverlap:      {"", "0s", "999ms", "8785h", "60s"}, // the last is not longer than gateway.lease
		gatewayLease:     {"", "-1s", "25h", "168h", "24h1s"},
		auditKey:         {"x", "1pyl6I1tL7xfJuFYVzXlUW8uXXlpxegHXBzGCBKaSFA", strings.Repeat("A", 44)},
		caOverlap:        {"", "-1s", "8785h", "a day"},
	}
	for _, s := range before {
		if len(bad[s.Name]) == 0 {
			t.Errorf("no bad values of setting %s are tried", s.Name)
		}
		for _, value := range bad[s.Name] {
			if got, err := p.SetSetting(t.Context(), actor, s.Name, value); trust.KindOf(err) != trust.Invalid {
				t.Errorf("%s %q: got %+v, %v", s.Name, value, got, err)
			}
		}
	}
	for _, name := range []string{"", "rotation", "Rotation.soak", installationSetting} {
		if _, err := p.SetSetting(t.Context(), actor, name, "1h"); trust.KindOf(err) != trust.NotFound {
			t.Errorf("setting %q, which there is not: %v", name, err)
		}
	}
	after, err := p.ListSettings(t.Context(), actor)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range after {
		if s.Value != before[i].Value || s.Value != s.Default || !s.ChangedAt.IsZero() || s.Meaning == "" {
			t.Errorf("after bad values, %+v, and before %+v", s, before[i])
		}
	}
}

// A value within bounds, at their very ends included, is what the next request
// is filled with; one tenant's is not another's.
func TestGoodSettings(t *testing.T) {
	p, actor := newPlane(t)
	for name, values := range map[string][]string{
		rotationSoak:     {"0s", "8784h", "90m"},
		rotationProof:    {"written", "login", "matched"},
		rotationCanary:   {"0", "10000", "3"},
		rotationWave:     {"0", "100000", "7"},
		archiveRetention: {"1h", "87840h", "48h"},
		scanInterval:     {"10m", "8784h", "0s", "24h"},
		rotationApproval: {"off", "on"},
		revealApproval:   {"off", "on"},
		seedOverlap:      {"91s", "8784h", "2h"},
		gatewayLease:     {"0s", "1h59m59s", "90s"},
		auditKey:         {"1pyl6I1tL7xfJuFYVzXlUW8uXXlpxegHXBzGCBKaSFA=", ""},
		caOverlap:        {"0s", "8784h", "36h"},
	} {
		for _, value := range values {
			got, err := p.SetSetting(t.Context(), actor, name, value)
			if err != nil || got.Value != value || got.ChangedAt.IsZero() {
				t.Errorf("%s %q: got %+v, %v", name, value, got, err)
			}
		}
		list, err := p.ListSettings(t.Context(), actor)
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(list, func(s Setting) bool { return s.Name == name })
		if last := values[len(values)-1]; at < 0 || list[at].Value != last || list[at].ChangedAt.IsZero() {
			t.Errorf("%s is listed as %+v, want %q", name, list, last)
		}
	}
	err := p.view(t.Context(), actor, identity.SettingsRead, func(tx *store.Tx) error {
		q, err := request(tx, Rotate{})
		if want := (rotation.Request{Soak: 90 * time.Minute, Proof: rotation.Matched, Canary: 3, Wave: 7, Retention: 48 * time.Hour}); err != nil || q.Soak != want.Soak || q.Proof != want.Proof || q.Canary != want.Canary || q.Wave != want.Wave || q.Retention != want.Retention {
			t.Errorf("a request is filled with %+v, %v; want %+v", q, err, want)
		}
		soak, canary := time.Second, 0
		if q, err = request(tx, Rotate{Soak: &soak, Canary: &canary}); err != nil || q.Soak != soak || q.Canary != 0 || q.Wave != 7 {
			t.Errorf("what was asked for is overruled: %+v, %v", q, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	actor.Tenant = storetest.Other
	list, err := p.ListSettings(t.Context(), actor)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Value != s.Default {
			t.Errorf("in another tenant %s is %q", s.Name, s.Value)
		}
	}
}

// What is asked of a key that the tenant has never met is not found, and no run begins.
func TestUnknownKeys(t *testing.T) {
	p, actor := newPlane(t)
	unknown := []trust.KeyID{"00000000-0000-5000-8000-000000000001"}
	for name, ask := range map[string]func() error{
		"rotate":      func() error { _, err := p.Rotate(t.Context(), actor, Rotate{Keys: unknown}); return err },
		"rotate, dry": func() error { _, err := p.Rotate(t.Context(), actor, Rotate{Keys: unknown, DryRun: true}); return err },
		"retire":      func() error { _, err := p.Retire(t.Context(), actor, unknown); return err },
		"roll back":   func() error { _, err := p.Rollback(t.Context(), actor, Rollback{Keys: unknown}); return err },
		"roll back now": func() error {
			_, err := p.Rollback(t.Context(), actor, Rollback{Keys: unknown, Current: true})
			return err
		},
		"show": func() error { _, _, err := p.ShowKey(t.Context(), actor, string(unknown[0])); return err },
	} {
		if err := ask(); trust.KindOf(err) != trust.NotFound || !strings.Contains(err.Error(), string(unknown[0])) {
			t.Errorf("%s: got %v, want a NotFound that names the key", name, err)
		}
	}
	for name, ask := range map[string]func() error{
		"rotate": func() error { _, err := p.Rotate(t.Context(), actor, Rotate{}); return err },
		"dry":    func() error { _, err := p.Rotate(t.Context(), actor, Rotate{DryRun: true}); return err },
		"retire": func() error { _, err := p.Retire(t.Context(), actor, nil); return err },
		"back":   func() error { _, err := p.Rollback(t.Context(), actor, Rollback{}); return err },
	} {
		if err := ask(); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%s no key: got %v", name, err)
		}
	}
	if runs, _, err := p.ListRuns(t.Context(), actor, job.Filter{}, Page{}); err != nil || len(runs) != 0 {
		t.Errorf("there are runs: %+v, %v", runs, err)
	}
}
