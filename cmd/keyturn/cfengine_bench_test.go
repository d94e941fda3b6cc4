package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyturn/internal/api"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// benchPool is how many keys are ready for each round of BenchmarkPostSSHKey.
const benchPool = 16

// BenchmarkPostSSHKey has an RSA key of 4096 bits made by CFEngine's call, from those
// that are ready, and in turns with that has a server of the same making read and write
// as much JSON. The client logs in by password and shares the process.
//
//	post-ms  median of the call
//	echo-ms  median of the echo
//	x-echo   the one by the other
func BenchmarkPostSSHKey(b *testing.B) {
	w := newWorld(b, 0)
	w.ok("settings", "set", "keys.rsa-pool", strconv.Itoa(benchPool))
	call := func(address, body string) (time.Duration, string) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, address, strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		req.SetBasicAuth("admin", testPassword)
		begun := time.Now()
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		took := time.Since(begun)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatalf("%s: %d %s %v", address, resp.StatusCode, answer, err)
		}
		return took, string(answer)
	}
	post := "http://" + w.node.address + "/api/ssh-key"
	echo := "http://" + echoServer(b) + "/echo"
	_, sample := call(post, "") // asks for the first, and so for those that are to be ready
	var posts, echoes []time.Duration
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		w.stocked(benchPool)
		call(echo, sample) // its connection
		b.StartTimer()
		for range benchPool {
			took, _ := call(post, "")
			posts = append(posts, took)
			took, _ = call(echo, sample)
			echoes = append(echoes, took)
		}
	}
	slices.Sort(posts)
	slices.Sort(echoes)
	p, e := posts[len(posts)/2], echoes[len(echoes)/2]
	b.ReportMetric(p.Seconds()*1e3, "post-ms")
	b.ReportMetric(e.Seconds()*1e3, "echo-ms")
	b.ReportMetric(float64(p)/float64(e), "x-echo")
}

// echoServer starts a server that answers JSON with the same, and returns its address.
func echoServer(b *testing.B) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := api.NewServer(slog.New(slog.DiscardHandler), api.Proxies{}, nil, api.Door{Prefix: "/echo", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var out bytes.Buffer
		if err := json.NewEncoder(&out).Encode(body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(out.Bytes())
	})})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	b.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return listener.Addr().String()
}

// stocked waits until so many keys are ready.
func (w *world) stocked(n int) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		ready := 0
		err := w.node.store.View(w.t.Context(), store.System, func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT COUNT(*) FROM ready_keys WHERE tenant <> $1`, trust.Installation).Scan(&ready)
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if ready == n {
			return
		}
	}
	w.t.Fatalf("%d keys are not ready", n)
}
