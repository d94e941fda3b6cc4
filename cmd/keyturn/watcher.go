package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"keyturn/internal/dial"
	"keyturn/internal/lab"
	"keyturn/internal/trust"
)

// A watcher logs in to servers in turn, each time with one read of the bytes that an identity file holds at that instant: as a client would
// that has no other key, and nobody to ask.
type watcher struct {
	logins, refused atomic.Int64
	cancel          context.CancelFunc
	done            chan struct{}
}

// maxWatching is how many logins of a watcher may be under way: on a machine that
// is slower it logs in less often.
const maxWatching = 8

// watchPace is how often a watcher logs in: twenty times a second.
const watchPace = 50 * time.Millisecond

// shortestSoak is for how long the rotations that are watched accept both keys. A
// login that takes longer may come too late with what it read (docs/lockouts.md, 20).
const shortestSoak = time.Second

// watch starts a watcher of the identity file on the first of servers, which logs in
// once in a pace.
func watch(servers []*lab.Server, pace time.Duration) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{cancel: cancel, done: make(chan struct{})}
	identity := filepath.Join(servers[0].Home(), ".ssh", "id_ed25519")
	go func() {
		defer close(w.done)
		tick := time.NewTicker(pace)
		defer tick.Stop()
		var under errgroup.Group
		under.SetLimit(maxWatching)
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				_ = under.Wait()
				return
			case <-tick.C:
			}
			under.TryGo(func() error {
				w.login(ctx, identity, servers[n%len(servers)])
				return nil
			})
		}
	}()
	return w
}

// login logs in once. A server that is told to read its configuration anew does not
// listen for an instant: who finds nobody there tries again for a while, with what
// the file holds then.
func (w *watcher) login(ctx context.Context, identity string, s *lab.Server) {
	const patience = 2 * time.Second
	w.logins.Add(1)
	for begun := time.Now(); ctx.Err() == nil; {
		err := try(ctx, identity, s)
		if err == nil || ctx.Err() != nil {
			return
		}
		if trust.KindOf(err) != trust.Unavailable || time.Since(begun) > patience {
			w.refused.Add(1)
			return
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
}

// try reads the identity file and logs in with that.
func try(ctx context.Context, identity string, s *lab.Server) error {
	text, err := os.ReadFile(identity)
	if err != nil {
		return err
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return err
	}
	begun := time.Now()
	outcome, err := dial.Prove(ctx, dial.Target{Address: s.Address(), User: s.User(), Pins: []trust.PublicKey{s.HostKey()}}, signer)
	if err != nil || outcome == dial.Accepted {
		return err
	}
	if now, err := os.ReadFile(identity); err == nil && !bytes.Equal(now, text) && time.Since(begun) > shortestSoak {
		return nil // it outlasted the soak, on a machine that is busy
	}
	return trust.Errorf(trust.Denied, "%s: %s", s.Name(), outcome)
}

// stop ends the watcher and returns how often it logged in, and in vain.
func (w *watcher) stop() (logins, refused int64) {
	w.cancel()
	<-w.done
	return w.logins.Load(), w.refused.Load()
}
