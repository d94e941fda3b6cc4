package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"keyturn/internal/trust"
)

// What a signature by a key that stays in Keyturn costs more than one by a key that an
// agent on this machine has: two ways over HTTP, a right that is asked for, an event
// that is durable, and a private half that is unsealed. Ed25519; RSA of 4096 bits signs
// some milliseconds longer, wherever it lies.
//
//	added-ms/op  by how much longer a signature takes
//	cpu-ms/op    processor time of client, agent and server together
func BenchmarkAgentSignature(b *testing.B) {
	w := newWorld(b, 0)
	k := w.generated()
	a := w.agent(w.env)
	c, err := net.Dial("unix", a.socket)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	held := agent.NewClient(c)

	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: &private}); err != nil {
		b.Fatal(err)
	}
	ours, theirs := net.Pipe()
	go func() { _ = agent.ServeAgent(ring, theirs) }()
	defer ours.Close()
	local := agent.NewClient(ours)
	near, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		b.Fatal(err)
	}
	far, err := w.parse(k.PublicKey).SSH()
	if err != nil {
		b.Fatal(err)
	}
	sign := func(with agent.Agent, key ssh.PublicKey, n int) time.Duration {
		data := ssh.Marshal(struct {
			Session               []byte
			Message               byte
			User, Service, Method string
			Signature             bool
			Algorithm             string
			Key                   []byte
		}{bytes.Repeat([]byte{7}, 32), 50, "deploy", "ssh-connection", "publickey", true, key.Type(), key.Marshal()})
		begun := time.Now()
		for range n {
			if _, err := with.Sign(key, data); err != nil {
				b.Fatalf("key %s: %v: %s", trust.PublicKeyOf(key).Fingerprint(), err, a.says())
			}
		}
		return time.Since(begun)
	}
	sign(held, far, 10) // connections, pages, caches
	b.ResetTimer()
	before := processorTime()
	took := sign(held, far, b.N)
	b.StopTimer()
	b.ReportMetric(float64((processorTime()-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64((took-sign(local, near, b.N)).Microseconds())/1000/float64(b.N), "added-ms/op")
}
