package remote

import (
	"context"
	"net"
	"strings"

	"keyturn/internal/trust"
)

// LoginFrom logs in from this host to another account with the identity that lies
// at path, by this host's own client: one read of the file's bytes, no .pub beside
// them, no other key and no agent, a host key that must be one of pins, and no
// channel. detail says what the client said. An error means that nothing was
// learned of the key: Unavailable where the address does not answer from there,
// Conflict where it has another host key.
//
// On a host that has only Dropbear's client, the command "true" is run there.
func (h *Host) LoginFrom(ctx context.Context, user, path, toUser, toAddress string, pins []trust.PublicKey) (ok bool, detail string, err error) {
	host, port, err := net.SplitHostPort(toAddress)
	if err != nil {
		return false, "", trust.Errorf(trust.Invalid, "address %q is not of the form host:port", toAddress)
	}
	if err := checkPath(path); err != nil {
		return false, "", err
	}
	if len(pins) == 0 {
		return false, "", trust.Errorf(trust.Conflict, "no host key of %s is known", toAddress)
	}
	keys := make([]string, len(pins))
	for i, p := range pins {
		keys[i] = p.String()
	}
	const seconds = "20"
	c := call{op: opLogin, as: h.actorsFor(user)[0]}
	c.args = []string{path, toUser, host, port, strings.Join(keys, ","), seconds}
	lines, err := h.run(ctx, c)
	if err != nil {
		return false, "", h.fail(err, path)
	}
	var log []string
	for _, l := range lines {
		switch l.word {
		case "accepted":
			ok = true
		case "log":
			log = append(log, strings.TrimRight(l.rest, "\r"))
		}
	}
	detail, err = explainLogin(h.name, toUser, toAddress, log)
	if ok {
		return true, detail, nil
	}
	return false, detail, err
}

// explainLogin picks what matters out of what ssh -v or dbclient said.
func explainLogin(from, toUser, toAddress string, log []string) (detail string, err error) {
	for _, text := range log {
		low := strings.ToLower(text)
		switch {
		case strings.HasPrefix(text, "Authenticated to "):
			return text, nil
		case strings.Contains(low, "partial success"):
			return "the key was taken, and the server wants something else besides", nil
		case strings.Contains(low, "permission denied") && !strings.HasPrefix(low, "load"),
			strings.Contains(low, "too many authentication failures"),
			strings.Contains(low, "no auth methods could be used"):
			return text, nil
		case strings.Contains(low, "host key verification failed"), strings.Contains(low, "host key mismatch"), strings.Contains(low, "no matching host key"):
			return text, trust.Errorf(trust.Conflict, "%s sees another host key at %s than is pinned: %s", from, toAddress, text)
		}
	}
	last := "it said nothing"
	for _, text := range log {
		if text != "" && !strings.HasPrefix(text, "debug") && !strings.HasPrefix(text, "OpenSSH") {
			detail = text
		} else if text != "" {
			last = "the last that it said is " + text // as where its time ran out
		}
	}
	if detail == "" {
		detail = last
	}
	return detail, trust.Errorf(trust.Unavailable, "a login from %s to %s at %s came to no answer: %s", from, toUser, toAddress, detail)
}
