package remote

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/trust"
)

// A Use is a login with a key, as the host's log has it.
type Use struct {
	At     time.Time
	User   string
	Source string // the client's address
}

// Uses returns the logins with a key to user's account since a time, the last one from
// each address, with their times by our clock. logged says that the host has a log of
// them that we may read.
func (h *Host) Uses(ctx context.Context, user string, key trust.Fingerprint, since time.Time) (uses []Use, logged bool, err error) {
	answers, err := h.runAll(ctx, h.asking(key, since))
	if err != nil {
		return nil, false, err
	}
	if uses, err = h.readUses(answers[0], user, since); err != nil {
		return nil, false, err
	}
	return uses, slices.ContainsFunc(answers[0].lines, func(l line) bool { return l.word == "log" }), nil
}

// asking is a call of op uses.
func (h *Host) asking(key trust.Fingerprint, since time.Time) call {
	return call{op: opUses, as: h.strongest(), args: []string{string(key), strconv.FormatInt(h.there(since).Unix(), 10)}}
}

// there is a time by the host's clock, which says when in its log, and may be ahead of
// ours or behind.
func (h *Host) there(t time.Time) time.Time { return t.Add(h.skew).Truncate(time.Second) }

// readUses reads the answer of op uses, with times by our clock.
func (h *Host) readUses(a answer, user string, since time.Time) (uses []Use, err error) {
	if a.no != nil {
		return nil, h.fail(a.no, "")
	}
	since = h.there(since)
	zone := time.UTC
	for _, l := range a.lines {
		switch l.word {
		case "zone":
			if t, err := time.Parse("-0700", l.rest); err == nil {
				zone = t.Location()
			}
		case "use":
			u, ok := parseUse(l.rest, since, zone)
			if ok && u.User == user && !u.At.Before(since) {
				u.At = u.At.Add(-h.skew)
				uses = append(uses, u)
			}
		}
	}
	return uses, nil
}

// parseUse reads a log line of sshd, "... Accepted publickey for USER from ADDRESS
// port N ssh2: TYPE SHA256:...", behind any of the three usual kinds of time.
func parseUse(text string, since time.Time, zone *time.Location) (Use, bool) {
	_, rest, ok := strings.Cut(text, "Accepted publickey for ")
	if !ok {
		return Use{}, false
	}
	f := strings.Fields(rest)
	if len(f) < 3 || f[1] != "from" {
		return Use{}, false
	}
	at, ok := logTime(text, since, zone)
	return Use{At: at, User: f[0], Source: f[2]}, ok
}

// logTime reads the time at the beginning of a log line: seconds since 1970
// (journalctl), RFC 3339, or "Jan _2 15:04:05" without a year, which then is the
// one closest to since.
func logTime(text string, since time.Time, zone *time.Location) (time.Time, bool) {
	first, _, _ := strings.Cut(text, " ")
	if seconds, err := strconv.ParseFloat(first, 64); err == nil {
		return time.UnixMicro(int64(seconds * 1e6)).UTC(), true
	}
	if t, err := time.Parse(time.RFC3339Nano, first); err == nil {
		return t.UTC(), true
	}
	if len(text) < len(time.Stamp) {
		return time.Time{}, false
	}
	t, err := time.ParseInLocation(time.Stamp, text[:len(time.Stamp)], zone)
	if err != nil {
		return time.Time{}, false
	}
	t = t.AddDate(since.Year(), 0, 0)
	if t.Before(since.AddDate(0, -6, 0)) {
		t = t.AddDate(1, 0, 0)
	}
	return t.UTC(), true
}
