package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"keyturn/internal/access"
	"keyturn/internal/agent"
	"keyturn/internal/api"
	"keyturn/internal/api/appviewx"
	"keyturn/internal/api/cfengine"
	"keyturn/internal/api/cloudflare"
	"keyturn/internal/api/metrics"
	v1 "keyturn/internal/api/v1"
	"keyturn/internal/authority"
	"keyturn/internal/control"
	"keyturn/internal/discovery"
	"keyturn/internal/hostid"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/jwk"
	"keyturn/internal/keyring"
	"keyturn/internal/reach"
	"keyturn/internal/rotation"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A config is what a node is started with.
type config struct {
	data     string         // directory; made if it is missing
	database string         // URL, or empty for SQLite in data
	kek      keyring.Source // of the key-encryption key
	kekWas   keyring.Source // where that was until now, or nil
	http     string         // address to listen at
	proxies  api.Proxies    // in front of that
	password string         // of "admin" at the first start, or empty
	agent    string         // socket of an ssh-agent that signs for Keyturn, or empty
	workers  int            // steps of runs at a time
	follow   time.Duration  // between two looks for owners who have changed to new keys; 0 is ten minutes
	log      *slog.Logger
	// crash is called around every commit of the engine and every effect on a
	// host. Tests of crashes set it; nil otherwise.
	crash func(context.Context, string) error
	// alter changes the tables of procedures. Tests set it that show what a
	// wrong table would do; nil otherwise.
	alter func([]job.Procedure)
}

// A node is one running server: everything that is wired together, in the
// order in which it was, and taken apart in the opposite one.
type node struct {
	beginning identity.Beginning
	address   string // where it listens
	server    *http.Server
	listener  net.Listener
	engine    *job.Engine
	plane     *control.Plane
	rotator   *rotation.Rotator
	reach     *reach.Reach
	store     *store.Store
	follow    time.Duration
	log       *slog.Logger
}

// openNode wires a node up to the point at which it listens. This function is
// the map of the program.
func openNode(ctx context.Context, c config) (_ *node, err error) {
	if err := checkListen(c.http); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.data, 0o700); err != nil {
		return nil, trust.Errorf(trust.Unavailable, "data directory: %w", err)
	}
	n := &node{log: c.log, follow: cmp.Or(c.follow, 10*time.Minute)}
	counted := metrics.New(version)
	defer func() {
		if err != nil {
			n.close()
		}
	}()

	var keys *keyring.Keyring // opened below: it lies in the store that seals by it
	n.store, err = store.Open(ctx, store.Options{
		URL:    databaseURL(c),
		Schema: []fs.FS{keyring.Schema, identity.Schema, inventory.Schema, access.Schema, authority.Schema, job.Schema, hostid.Schema, jwk.Schema, control.Schema},
		Personal: func(tx *store.Tx, tenant trust.TenantID, person string, plain []byte) ([]byte, error) {
			return keys.SealPersonal(tx, tenant, person, plain)
		},
		Updated: counted.Updated,
	})
	if err != nil {
		return nil, err
	}
	if keys, err = keyring.Start(ctx, n.store, c.kek, c.kekWas); err != nil {
		return nil, err
	}
	if left := keys.Left(); left != "" {
		c.log.Warn(left)
	}
	directory, err := identity.Open(n.store, keys, identity.Options{Log: c.log})
	if err != nil {
		return nil, err
	}
	if n.beginning, err = directory.First(ctx, c.password); err != nil {
		return nil, err
	}
	installation, err := control.Installation(ctx, n.store)
	if err != nil {
		return nil, err
	}

	n.reach = reach.New(n.store, keys, c.crash, c.log)
	n.reach.Connected = counted.Connected
	if c.agent != "" {
		n.reach.Agent, n.reach.AgentOf = agent.NewClient(c.agent), n.beginning.Tenant
	}
	n.rotator = rotation.New(n.store, keys, n.reach, discovery.Judge)
	procedures := append(n.rotator.Procedures(), discovery.New(n.store, n.reach).Procedures()...)
	procedures = append(procedures, hostid.Procedures(n.store, keys)...)
	procedures = append(procedures, jwk.Procedures(keys)...)
	if c.alter != nil {
		c.alter(procedures)
	}
	n.engine, err = job.New(n.store, procedures, job.Options{
		Workers: c.workers, Installation: installation, Sole: c.database == "", Log: c.log, Hook: c.crash,
		Landed: func(procedure, step string, outcome job.CellState) { counted.Landed(procedure, step, string(outcome)) },
		Planners: map[string]job.Planner{
			control.ScanSchedule:      discovery.PlanScheduled,
			control.DiscoverySchedule: discovery.PlanDiscovery,
			control.PurgeSchedule:     rotation.PlanPurge,
			control.ReviewSchedule:    discovery.PlanReview,
			control.SeedSchedule:      hostid.PlanPurge,
			control.JWKSchedule:       jwk.PlanRotation,
		},
	})
	if err != nil {
		return nil, err
	}
	plane := control.New(n.store, directory, keys, n.engine)
	n.plane = plane
	if err := plane.Schedule(ctx); err != nil {
		return nil, err
	}

	cf := cfengine.New(plane, n.logError)
	n.server = api.NewServer(c.log, c.proxies, plane.Ready,
		api.Door{Prefix: "/api/v1/", Handler: v1.New(plane, n.logError)},
		api.Door{Prefix: "/avxapi/", Handler: appviewx.New(plane)},
		api.Door{Prefix: "/client/v4/", Handler: cloudflare.New(plane, n.logError)},
		api.Door{Prefix: "/cdn-cgi/access/certs", Handler: cloudflare.Certs(plane, n.logError)},
		api.Door{Prefix: "/api/ssh-key", Handler: cf}, api.Door{Prefix: "/api/ssh-key/", Handler: cf}, api.Door{Prefix: "/api/oauth2/", Handler: cf},
		api.Door{Prefix: "/metrics", Handler: counted.Handler(plane, n.logError)})
	if n.listener, err = net.Listen("tcp", c.http); err != nil {
		hint := "--http takes a loopback address and a port, such as 127.0.0.1:7780"
		if errors.Is(err, syscall.EADDRINUSE) {
			hint = "another server may be running; choose another address with --http"
		}
		return nil, trust.Errorf(trust.Unavailable, "%w", err).WithHint("%s", hint)
	}
	n.address = n.listener.Addr().String()
	return n, nil
}

// run serves until ctx ends or something fails for good.
func (n *node) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	engineDone := make(chan error, 1)
	go func() {
		err := n.engine.Run(ctx)
		cancel(fmt.Errorf("the engine stopped: %w", errors.Join(err, context.Cause(ctx))))
		engineDone <- err
	}()
	serveDone := make(chan error, 1)
	go func() {
		err := n.server.Serve(n.listener)
		cancel(err)
		serveDone <- err
	}()
	var aside sync.WaitGroup
	aside.Go(func() {
		n.plane.Stock(ctx, func(err error) { n.log.Warn("no key could be made ready", "err", err) })
	})
	aside.Go(func() {
		n.plane.FollowOwners(ctx, n.follow, n.rotator.Changed,
			func(err error) {
				n.log.Warn("a run that is held for the owner of a key could not be looked at", "err", err)
			})
	})
	<-ctx.Done()
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	_ = n.server.Shutdown(grace) // what is not done by then is cut off by close
	aside.Wait()                 // which may finish a key
	err := <-engineDone
	if serveErr := <-serveDone; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// logError logs what a client is not told.
func (n *node) logError(_ context.Context, err error) { n.log.Error("a request failed", "err", err) }

// close takes the node apart.
func (n *node) close() {
	if n.listener != nil {
		_ = n.listener.Close()
	}
	if n.server != nil {
		_ = n.server.Close()
	}
	if n.reach != nil {
		n.reach.Close()
	}
	if n.store != nil {
		if err := n.store.Close(); err != nil {
			n.log.Error("closing the database", "err", err)
		}
	}
}

func databaseURL(c config) string {
	if c.database != "" {
		return c.database
	}
	return "sqlite:" + filepath.Join(c.data, "keyturn.db")
}

// checkListen refuses an address that others could reach: there is no TLS yet
// to keep passwords and tokens from whoever listens in between.
func checkListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return trust.Errorf(trust.Invalid, "--http %q is not of the form host:port", address)
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); host == "localhost" || err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	return trust.Errorf(trust.Invalid, "--http %q is beyond loopback, and this server has no TLS: passwords and tokens would travel in the clear", address).
		WithHint("listen at 127.0.0.1 and put a TLS proxy or an ssh -L tunnel in front of it")
}
