package control

import (
	"testing"
	"time"

	"keyturn/internal/trust"
)

func TestParseExpiry(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"90d":                       "2026-05-30T12:00:00Z",
		"12h":                       "2026-03-02T00:00:00Z",
		"2026-03-01":                "2026-03-02T00:00:00Z", // to the end of that day
		"2027-01-31T10:00:00+02:00": "2027-01-31T08:00:00Z",
		"never":                     "0001-01-01T00:00:00Z",
	} {
		if got, err := parseExpiry(text, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: got %s, %v; want %s", text, got.Format(time.RFC3339), err, want)
		}
	}
	for _, text := range []string{"", "d", "0d", "-1d", "1.5d", "99999999999999999999d", "36601d", "-1h", "0s", "2026-02-28", "2026-13-01", "3000-01-01", "soon", "Never"} {
		if got, err := parseExpiry(text, now); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%q is taken as %s, %v", text, got, err)
		}
	}
}
