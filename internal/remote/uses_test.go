package remote

import (
	"testing"
	"time"
)

// Lines as sshd's log has them in the three places where it is read from.
func TestParseUse(t *testing.T) {
	since := time.Date(2026, 12, 30, 0, 0, 0, 0, time.UTC)
	zone := time.FixedZone("", 2*3600)
	for text, want := range map[string]Use{
		"1798761600.250000 web1 sshd[7]: Accepted publickey for alice from 192.0.2.7 port 4711 ssh2: ED25519 SHA256:abc":          {time.Date(2027, 1, 1, 0, 0, 0, 250_000_000, time.UTC), "alice", "192.0.2.7"},
		"2027-01-01T02:00:00.5+02:00 web1 sshd-session[7]: Accepted publickey for bob from 2001:db8::1 port 1 ssh2: RSA SHA256:x": {time.Date(2027, 1, 1, 0, 0, 0, 500_000_000, time.UTC), "bob", "2001:db8::1"},
		"Jan  1 02:00:00 web1 sshd[7]: Accepted publickey for eve from 192.0.2.7 port 4711 ssh2: ED25519 SHA256:abc":              {time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), "eve", "192.0.2.7"},
		"Dec 31 23:00:00 web1 sshd[7]: Accepted publickey for eve from 192.0.2.7 port 4711 ssh2: ED25519 SHA256:abc":              {time.Date(2026, 12, 31, 21, 0, 0, 0, time.UTC), "eve", "192.0.2.7"},
		"Jan  1 02:00:00 web1 sshd[7]: Accepted password for eve from 192.0.2.7 port 4711 ssh2":                                   {},
		"no time Accepted publickey for eve from 192.0.2.7 port 4711":                                                             {},
	} {
		got, ok := parseUse(text, since, zone)
		if ok != (want != Use{}) || ok && (got.User != want.User || got.Source != want.Source || !got.At.Equal(want.At)) {
			t.Errorf("%q: %+v, %v; want %+v", text, got, ok, want)
		}
	}
}
