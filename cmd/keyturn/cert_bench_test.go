package main

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

const (
	benchSigners = 64   // clients, each with a connection that it keeps
	benchRound   = 6400 // certificates in one turn of a server
	// benchApplications of benchRules rules each stand beside the one that lets in.
	benchApplications = 100
	benchRules        = 10
)

// BenchmarkIssue has 64 clients get certificates over the server's listener, each
// decided by policy, on record and in the audit log before it is signed; and in turns
// with that from a bare server, which does nothing but read JSON, make a certificate,
// sync a line of a hash chain together with those of others, and answer. Each server is
// a process of its own, and the clients are this one.
//
//	certs/s, floor-certs/s  of the server and of the bare one
//	x-floor                 the one by the other; the aim is 0.6
//	p50-ms, p99-ms          of the server's answers; x-p50 is the latter by the former,
//	                        of which the aim is 5
//	cpu-us/cert             processor time of the server; floor-cpu-us/cert that of the
//	                        bare one, and x-cpu the one by the other: the aim is 2
func BenchmarkIssue(b *testing.B) {
	for _, kind := range []string{"ecdsa-p256", "ed25519"} {
		b.Run(kind, func(b *testing.B) { benchmarkIssue(b, kind) })
	}
}

func benchmarkIssue(b *testing.B, kind string) {
	w := &world{t: b, dir: b.TempDir()}
	daemon := w.serve()
	w.benchPolicies()
	w.ok("ca", "create", "people", "--type", kind)
	var login struct {
		Token string `json:"token"`
	}
	c, err := newClient(w.environ)
	if err != nil {
		b.Fatal(err)
	}
	if err := c.call(b.Context(), http.MethodPost, "/login/password", map[string]any{"user": "admin", "password": testPassword}, &login); err != nil {
		b.Fatal(err)
	}
	server := signingServer{b, daemon, strings.TrimPrefix(w.env["KEYTURN_SERVER"], "http://"), login.Token}
	floor := startSigningFloor(b, kind)
	server.round(benchSigners * 4)
	floor.round(benchSigners * 4)

	var ours, bare signed
	b.ResetTimer()
	for range b.N {
		bare.add(floor.round(benchRound))
		ours.add(server.round(benchRound))
	}
	b.StopTimer()
	w.recorded(c, login.Token, len(ours.took)+benchSigners*4)
	p50, p99 := ours.percentile(50), ours.percentile(99)
	b.ReportMetric(ours.rate(), "certs/s")
	b.ReportMetric(bare.rate(), "floor-certs/s")
	b.ReportMetric(ours.rate()/bare.rate(), "x-floor")
	b.ReportMetric(p50.Seconds()*1e3, "p50-ms")
	b.ReportMetric(p99.Seconds()*1e3, "p99-ms")
	b.ReportMetric(float64(p99)/float64(p50), "x-p50")
	b.ReportMetric(ours.each()*1e6, "cpu-us/cert")
	b.ReportMetric(bare.each()*1e6, "floor-cpu-us/cert")
	b.ReportMetric(ours.each()/bare.each(), "x-cpu")
}

// benchPolicies lets admin in everywhere as deploy, and others at some hosts.
func (w *world) benchPolicies() {
	w.t.Helper()
	c := w.withToken()
	for i := range benchApplications {
		var rules []string
		for j := range benchRules {
			rules = append(rules, fmt.Sprintf("email:user%d@team%d.example", j, i))
		}
		if err := c.call(w.t.Context(), http.MethodPost, "/applications", map[string]any{
			"name": fmt.Sprintf("team %d", i), "type": "infrastructure",
			"criteria": []any{map[string]any{"port": 22, "include": map[string]any{"hostnames": []string{fmt.Sprintf("team%d-*", i)}}}},
			"policies": []any{map[string]any{"name": "team", "include": rules, "logins": []string{"deploy"}}},
		}, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	w.ok("policy", "allow", "--user", "admin", "--host", "*", "--login", "deploy")
}

// recorded fails the benchmark unless so many certificates are on record.
func (w *world) recorded(c *client, token string, want int) {
	w.t.Helper()
	c.token = token
	count, after := 0, ""
	for {
		var page struct {
			Certificates []certificateJSON `json:"certificates"`
			Next         string            `json:"next"`
		}
		if err := c.call(w.t.Context(), http.MethodGet, "/certificates?"+url.Values{"limit": {"1000"}, "after": {after}}.Encode(), nil, &page); err != nil {
			w.t.Fatal(err)
		}
		count += len(page.Certificates)
		if after = page.Next; after == "" {
			break
		}
	}
	if count != want {
		w.t.Fatalf("%d certificates are on record, and %d were signed", count, want)
	}
}

// signed is what came of rounds.
type signed struct {
	wall, cpu time.Duration
	took      []time.Duration // each certificate
}

func (s *signed) add(more signed) {
	s.wall += more.wall
	s.cpu += more.cpu
	s.took = append(s.took, more.took...)
}

func (s *signed) rate() float64 { return float64(len(s.took)) / s.wall.Seconds() }

// each returns the seconds of processor time that a certificate took.
func (s *signed) each() float64 { return s.cpu.Seconds() / float64(len(s.took)) }

func (s *signed) percentile(n int) time.Duration {
	slices.Sort(s.took)
	return s.took[len(s.took)*n/100]
}

// A signingServer answers POST /api/v1/certificates.
type signingServer struct {
	b       *testing.B
	pid     int
	address string
	token   string
}

// round has n certificates signed by all clients together.
func (s signingServer) round(n int) signed {
	s.b.Helper()
	requests := make([][]byte, 256)
	for i := range requests {
		requests[i] = s.request()
	}
	var done atomic.Int64
	took := make([][]time.Duration, benchSigners)
	var group errgroup.Group
	cpu, begun := processorTimeOf(s.b, s.pid), time.Now()
	for i := range took {
		group.Go(func() error {
			conn, err := net.Dial("tcp", s.address)
			if err != nil {
				return err
			}
			defer conn.Close()
			answers := bufio.NewReader(conn)
			for {
				at := int(done.Add(1))
				if at > n {
					return nil
				}
				begun := time.Now()
				if err := signOnce(conn, answers, requests[at%len(requests)], at%benchRound == 1); err != nil {
					return err
				}
				took[i] = append(took[i], time.Since(begun))
			}
		})
	}
	if err := group.Wait(); err != nil {
		s.b.Fatal(err)
	}
	return signed{time.Since(begun), processorTimeOf(s.b, s.pid) - cpu, slices.Concat(took...)}
}

// request returns the bytes of a request for a key of its own: a client that makes them
// anew each time takes half of what the server does.
func (s signingServer) request() []byte {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.b.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		s.b.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{"authority": "people", "public_key": string(ssh.MarshalAuthorizedKey(key)), "principals": []string{"deploy"}})
	if err != nil {
		s.b.Fatal(err)
	}
	return fmt.Appendf(nil, "POST /api/v1/certificates HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		s.address, s.token, len(body), body)
}

// signOnce has one certificate signed, and looks at it or only at the answer's status.
func signOnce(conn net.Conn, answers *bufio.Reader, request []byte, look bool) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s %v", resp.Status, body, err)
	}
	if !look {
		return nil
	}
	var out certificateJSON
	if err := json.Unmarshal(body, &out); err != nil {
		return err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(out.Certificate))
	if err != nil {
		return err
	}
	return (&ssh.CertChecker{}).CheckCert("deploy", key.(*ssh.Certificate))
}
