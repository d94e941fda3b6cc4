package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/store/storetest"
)

// Two servers over one PostgreSQL database are equal: what is asked of one is
// seen by the other, and what one was doing when it was killed the other carries
// on with.
func TestTwoNodes(t *testing.T) {
	need.Long(t)
	t.Parallel()
	f := newFleet(t, 2, rand.New(rand.NewPCG(1, 2)), storetest.Postgres(t))
	second := *f
	second.data, second.daemon = filepath.Join(f.dir, "second"), nil
	client := *f.client
	second.client = &client
	second.start()
	t.Cleanup(func() { second.kill(0) })
	// For most of the test the other node waits for a lease to end.
	clients := watch(f.servers, 10*watchPace)
	defer clients.stop()

	old := f.current()
	run := f.rotate(old)
	for r := (runJSON{}); r.Row != "Install" && r.Row != "Confirm" && r.Row != "Soak"; {
		f.must(second.client.call(t.Context(), "GET", fmt.Sprintf("/runs/%s?wait=5s&since=%d", run, r.Revision), nil, &r))
		if r.ended() {
			t.Fatalf("run %s has ended before it could be cut off", run)
		}
	}
	f.kill(0)
	cut := time.Now()
	second.settle(run)
	t.Logf("the other node ended the run %s after the first was killed", time.Since(cut).Round(time.Millisecond))
	next := second.current()
	if next == old {
		t.Fatal("the old key is in use")
	}
	second.holds(next)

	// The one that comes back takes part again.
	f.start()
	f.settle(f.back(run, old))
	f.holds(old)
	if logins, refused := clients.stop(); refused > 0 || logins < 20 {
		t.Errorf("the client was refused %d times in %d logins", refused, logins)
	}
}
