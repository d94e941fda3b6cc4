package dial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// A HostKeyError says that a host proved a key that is not pinned. It is the
// cause of a Conflict error.
type HostKeyError struct {
	Address string
	Got     trust.PublicKey
	Want    []trust.PublicKey
}

func (e *HostKeyError) Error() string {
	var want []string
	for _, k := range e.Want {
		want = append(want, fmt.Sprintf("%s (%s)", k.Fingerprint(), k.Type()))
	}
	return fmt.Sprintf("host key changed: %s presents %s (%s) and is known by %s: another machine answers there, or its key was changed",
		e.Address, e.Got.Fingerprint(), e.Got.Type(), strings.Join(want, ", "))
}

// A RefusedError says that a server took none of the credentials. It is the cause
// of an error of kind Denied.
type RefusedError struct {
	Address, User string
	Tried         []Attempt // in order
	// Offers are the methods by which the server would go on (RFC 4252, section
	// 5.1), empty where it hung up instead.
	Offers []string
}

// An Attempt is what became of one credential.
type Attempt struct {
	ID          string            // of the credential
	Fingerprint trust.Fingerprint // of its key; empty for a password
	Outcome     Outcome
}

func (e *RefusedError) Error() string {
	if len(e.Tried) == 0 {
		return fmt.Sprintf("%s lets %q in by %s only, for which there is no credential", e.Address, e.User, strings.Join(e.Offers, ", "))
	}
	var tried []string
	for _, a := range e.Tried {
		text := fmt.Sprintf("%q", a.ID)
		if a.Fingerprint != "" {
			text += " " + string(a.Fingerprint)
		}
		tried = append(tried, text+" ("+string(a.Outcome)+")")
	}
	return fmt.Sprintf("%s does not let %q in with %s", e.Address, e.User, strings.Join(tried, ", "))
}

// tooManyTries is how x/crypto/ssh words an SSH_MSG_DISCONNECT with reason 2, which
// is what OpenSSH sends when MaxAuthTries is reached; the type is not exported.
// Dropbear and others just close.
const tooManyTries = "ssh: disconnect, reason 2:"

// explain says in our terms why a handshake failed.
func explain(ctx context.Context, t Target, w *wire, err error) error {
	var known *trust.Error
	if errors.As(err, &known) {
		return known
	}
	if ctx.Err() != nil {
		return trust.Errorf(trust.Unavailable, "%s: gave up: %w", t.Address, context.Cause(ctx))
	}
	phase, version, greeting, broken := w.said()
	if broken == nil {
		broken = err
	}
	switch {
	case errors.Is(broken, os.ErrDeadlineExceeded):
		return trust.Errorf(trust.Unavailable, "%s did not finish %s in time: %w", t.Address, phase, broken)
	case version == "" && (isGone(broken) || isGone(err)):
		return explainSilence(t, greeting, broken)
	case version == "":
		return trust.Errorf(trust.Conflict, "%s is not an SSH server: it says %q", t.Address, firstLine(greeting))
	}
	var algorithms *ssh.AlgorithmNegotiationError
	if errors.As(err, &algorithms) {
		return trust.Errorf(trust.Conflict, "%s (%s) and Keyturn have no %s in common: it offers %s", t.Address, version,
			strings.TrimPrefix(algorithms.What, "client to server "), strings.Join(algorithms.RequestedAlgorithms, ", "))
	}
	if isGone(broken) {
		return trust.Errorf(trust.Unavailable, "%s (%s) ended the connection during %s: %w", t.Address, version, phase, broken)
	}
	return trust.Errorf(trust.Unavailable, "%s (%s) failed during %s: %w", t.Address, version, phase, err)
}

// explainSilence tells apart the ways in which a server hangs up before it has
// said who it is.
func explainSilence(t Target, greeting string, err error) error {
	switch {
	case strings.Contains(greeting, "Exceeded MaxStartups"):
		return trust.Errorf(trust.Unavailable, "%s has too many connections that have not logged in yet (MaxStartups)", t.Address)
	case strings.Contains(greeting, "Not allowed at this time"):
		return trust.Errorf(trust.Unavailable, "%s refuses this address for now (PerSourcePenalties or MaxStartups): it says %q", t.Address, firstLine(greeting)).
			WithHint("add the address that Keyturn connects from to PerSourcePenaltyExemptList in that host's sshd_config")
	case greeting != "":
		return trust.Errorf(trust.Conflict, "%s is not an SSH server: it says %q", t.Address, firstLine(greeting))
	}
	return trust.Errorf(trust.Unavailable, "%s ended the connection without a word: sshd does that to an address that it penalises (PerSourcePenalties) or when it has too many connections (MaxStartups), and so do tcpd and a listener whose server is gone: %w", t.Address, err).
		WithHint("look for %q in that host's sshd log", "drop connection")
}

// isGone reports whether the other side ended the connection.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 80 {
		s = s[:80]
	}
	return strings.TrimSpace(s)
}

// pinned returns the host key check for t.
func pinned(t Target, key trust.PublicKey) error {
	if slices.Contains(t.Pins, key) {
		return nil
	}
	cause := &HostKeyError{Address: t.Address, Got: key, Want: slices.Clone(t.Pins)}
	return (&trust.Error{Kind: trust.Conflict, Message: cause.Error(), Err: cause}).
		WithHint("where the change is right: keyturn host confirm %s --host-key \"%s\"", t.Name, key)
}
