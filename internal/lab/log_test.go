package lab_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"keyturn/internal/lab"
	"keyturn/internal/trust"
)

// What OpenSSH 9.2 and 10.0 and Dropbear 2022.83 write.
var logLines = []struct {
	text string
	want lab.Event
}{
	{
		"Server listening on 127.0.0.1 port 38447.",
		lab.Event{Kind: lab.Listening},
	},
	{
		"Accepted key ED25519 SHA256:e0bBa4 found at /home/alice/.ssh/authorized_keys:12",
		lab.Event{Kind: lab.Matched, Fingerprint: "SHA256:e0bBa4", File: "/home/alice/.ssh/authorized_keys", Line: 12},
	},
	{
		"Accepted key ED25519 SHA256:e0bBa4 found at /tmp/with a space:1/keys:3",
		lab.Event{Kind: lab.Matched, Fingerprint: "SHA256:e0bBa4", File: "/tmp/with a space:1/keys", Line: 3},
	},
	{
		"Accepted publickey for alice from 10.99.0.1 port 33562 ssh2: ED25519 SHA256:e0bBa4",
		lab.Event{Kind: lab.Accepted, Method: "publickey", User: "alice", Source: "10.99.0.1:33562", Fingerprint: "SHA256:e0bBa4"},
	},
	{
		"Accepted publickey for alice from ::1 port 33562 ssh2: ED25519-CERT SHA256:e0bBa4 ID alice@example (serial 7) CA ECDSA SHA256:ca99",
		lab.Event{Kind: lab.Accepted, Method: "publickey", User: "alice", Source: "[::1]:33562", Fingerprint: "SHA256:e0bBa4", CA: "SHA256:ca99"},
	},
	{
		"Accepted password for alice from 10.99.0.1 port 33562 ssh2",
		lab.Event{Kind: lab.Accepted, Method: "password", User: "alice", Source: "10.99.0.1:33562"},
	},
	{
		"Failed publickey for alice from 10.99.0.1 port 33562 ssh2: RSA SHA256:rsa1 [preauth]",
		lab.Event{Kind: lab.Failed, Method: "publickey", User: "alice", Source: "10.99.0.1:33562", Fingerprint: "SHA256:rsa1"},
	},
	{
		"Failed none for invalid user mallory from 10.99.0.1 port 33562 ssh2",
		lab.Event{Kind: lab.Failed, Method: "none", User: "mallory", Source: "10.99.0.1:33562"},
	},
	{
		`Accepted certificate ID "a b" (serial 7) signed by ECDSA CA SHA256:ca99 via /etc/ssh/ca.pub`,
		lab.Event{Kind: lab.Matched, CA: "SHA256:ca99", File: "/etc/ssh/ca.pub"},
	},
	{
		`Accepted certificate ID "a b" (serial 7) signed by CA ECDSA SHA256:ca99 found at /home/alice/.ssh/authorized_keys:2`,
		lab.Event{Kind: lab.Matched, CA: "SHA256:ca99", File: "/home/alice/.ssh/authorized_keys", Line: 2},
	},
	{
		"/home/alice/.ssh/authorized_keys:2: entry expired at 2024-01-01T00:00:00",
		lab.Event{Kind: lab.Refused},
	},
	{
		"User alice from 10.99.0.1 not allowed because listed in DenyUsers",
		lab.Event{Kind: lab.Refused},
	},
	{
		"error: Authentication key ED25519 SHA256:e0bBa4 revoked by file /etc/ssh/revoked",
		lab.Event{Kind: lab.Refused},
	},
	{
		"/home/alice/.ssh/authorized_keys:2: Authentication tried for alice with correct key but not from a permitted host (host=10.99.0.1, ip=10.99.0.1).",
		lab.Event{Kind: lab.Refused},
	},
	{
		"Authentication refused: bad ownership or modes for directory /home/alice",
		lab.Event{Kind: lab.Refused},
	},
	{
		"User nobody not allowed because account is locked",
		lab.Event{Kind: lab.Refused},
	},
	{
		"Connection closed by authenticating user alice 10.99.0.1 port 33562 [preauth]",
		lab.Event{Kind: lab.Closed},
	},
	{
		"[23] Nov 22 01:02:03 Pubkey auth succeeded for 'alice' with ssh-ed25519 key SHA256:e0bBa4 from 10.99.0.1:33562",
		lab.Event{Kind: lab.Accepted, PID: 23, Method: "publickey", User: "alice", Source: "10.99.0.1:33562", Fingerprint: "SHA256:e0bBa4"},
	},
	{
		"sshd-session[4711]: Accepted key ED25519 SHA256:e0bBa4 found at /home/alice/.ssh/authorized_keys:12",
		lab.Event{Kind: lab.Matched, PID: 4711, Fingerprint: "SHA256:e0bBa4", File: "/home/alice/.ssh/authorized_keys", Line: 12},
	},
	{
		"debug1: Forked child 77.",
		lab.Event{Kind: lab.Other},
	},
}

func TestParseEvent(t *testing.T) {
	for _, c := range logLines {
		c.want.Text = c.text
		if got := lab.ParseEvent(c.text); got != c.want {
			t.Errorf("%s\n got %+v\nwant %+v", c.text, got, c.want)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	for _, c := range logLines {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, line string) {
		e := lab.ParseEvent(line)
		if e.Text != line || e.Line < 0 {
			t.Fatalf("%q: %+v", line, e)
		}
		if e.Kind == lab.Matched && !strings.Contains(line, e.File) {
			t.Fatalf("%q: file %q", line, e.File)
		}
	})
}

func TestLogKeepsTheNewest(t *testing.T) {
	var copied strings.Builder
	log := lab.NewLog(&copied)
	const lines = 20000
	if _, err := log.ReadFrom(strings.NewReader(strings.Repeat("debug1: again\n", lines) + "Server listening on ::1 port 22.")); err != nil {
		t.Fatal(err)
	}
	if log.Seq() != lines+1 {
		t.Errorf("%d events, want %d", log.Seq(), lines+1)
	}
	all := log.Events(0)
	if len(all) < 12000 || all[len(all)-1].Seq != lines+1 || all[0].Seq != lines+2-len(all) {
		t.Errorf("keeps %d events, from %d to %d", len(all), all[0].Seq, all[len(all)-1].Seq)
	}
	if e, err := log.Await(t.Context(), lines-3, lab.IsKind(lab.Listening)); err != nil || e.Seq != lines+1 {
		t.Errorf("event %d (%v), want the last", e.Seq, err)
	}
	if strings.Count(copied.String(), "\n") != lines+1 {
		t.Error("the copy is not complete")
	}
	cause := errors.New("the reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err := log.Await(ctx, 0, lab.IsKind(lab.Accepted))
	if trust.KindOf(err) != trust.Unavailable || !errors.Is(err, cause) || !strings.Contains(err.Error(), "Server listening") {
		t.Errorf("%v, want the cause and the tail", err)
	}
}
