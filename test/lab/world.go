//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"keyturn/internal/need"
)

// A World is the hosts of one test. They see each other and the test, and
// nothing else; the hosts of other tests are in the same network but at other
// addresses.
type World struct {
	number int    // 1 to 250, unique in the process while the test runs
	dir    string // what the hosts' files are kept in

	mu    sync.Mutex
	hosts []*Host
}

// NewWorld returns an empty world for the test. Its hosts end with the test.
// Where hosts cannot be started, the test is skipped and says why, or fails under
// KEYTURN_CI=1.
func NewWorld(t testing.TB) *World {
	t.Helper()
	if entered.refusal != "" {
		need.Skip(t, "%s", entered.refusal)
	}
	for number := 1; number <= 250; number++ {
		// The directory is the claim to the number and its addresses.
		dir := filepath.Join(yardDir, strconv.Itoa(number))
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		w := &World{number: number, dir: dir}
		t.Cleanup(func() {
			for _, h := range w.Hosts() {
				if t.Failed() {
					t.Logf("log of %s:\n%s", h.name, h.log.Tail(30))
				}
				h.remove()
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		return w
	}
	t.Fatal("too many worlds at one time")
	return nil
}

// Hosts returns the world's hosts in the order of their addresses.
func (w *World) Hosts() []*Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*Host(nil), w.hosts...)
}

// BootAll boots hosts side by side and returns them in the order of specs.
func (w *World) BootAll(t testing.TB, specs ...Spec) []*Host {
	t.Helper()
	hosts := make([]*Host, len(specs))
	for i, spec := range specs {
		hosts[i] = w.newHost(t, spec)
	}
	failures := make([]error, len(specs))
	var group sync.WaitGroup
	for i, h := range hosts {
		group.Go(func() { failures[i] = h.powerOn() })
	}
	group.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	return hosts
}

// Boot boots a host and returns when its server accepts connections. A root
// file system that is not in the cache is made first, which takes a minute.
// Where it cannot be made, the test is skipped, see [Root].
func (w *World) Boot(t testing.TB, spec Spec) *Host {
	t.Helper()
	return w.BootAll(t, spec)[0]
}

// OtherSource gives the test one more address, "10.99.X.Y" with X from 251 on, and
// returns it: connections made from it come from elsewhere than those from the
// test's usual one, 10.99.0.1.
func (w *World) OtherSource(t testing.TB, address string) netip.Addr {
	t.Helper()
	source, err := netip.ParseAddr(address)
	if err != nil || !netip.MustParsePrefix("10.99.248.0/21").Contains(source) || source.As4()[2] < 251 {
		t.Fatalf("other source %q is not an address from 10.99.251.0 on", address)
	}
	if err := ip(fmt.Sprintf("addr add %s/16 dev br0", source)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ip(fmt.Sprintf("addr del %s/16 dev br0", source)); err != nil {
			t.Error(err)
		}
	})
	return source
}

// Gateway returns the address that the test's connections come from.
func (w *World) Gateway() netip.Addr { return netip.MustParseAddr(gateway) }
