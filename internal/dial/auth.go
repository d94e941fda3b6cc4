package dial

import (
	"errors"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// An Outcome says how a server answered to one credential.
type Outcome string

// The outcomes of offering a credential, from the least to the most.
const (
	// Untried: the server was never asked, for want of a common algorithm or
	// because it did not offer the method.
	Untried Outcome = "untried"
	// Refused: the server does not take it.
	Refused Outcome = "refused"
	// Matched: the server said that a signature by this key would do
	// (SSH_MSG_USERAUTH_PK_OK), but there was no login by it: only its public
	// half was offered, or what comes after the signature refused.
	Matched Outcome = "matched"
	// Partial: the server took it and wants something else besides
	// (AuthenticationMethods in sshd_config(5)).
	Partial Outcome = "partial"
	// Accepted: it logged in.
	Accepted Outcome = "accepted"
)

// A step is one thing to offer in an authentication.
type step struct {
	id          string // of the credential
	fingerprint trust.Fingerprint
	offer       *offer // a key, or
	password    string
	outcome     Outcome // empty until it is known
	tried       bool
	cut         bool // a connection ended when the key had signed
}

// methods returns the authentication methods by which the step can be offered.
func (s *step) methods() []string {
	if s.offer != nil {
		return []string{"publickey"}
	}
	return []string{"password", "keyboard-interactive"}
}

// signing returns the steps that offer the credentials in their order.
func signing(creds []Credential) ([]*step, error) {
	var steps []*step
	for _, c := range creds {
		s := &step{id: c.ID, password: c.password}
		if c.signer != nil {
			o, err := newOffer(c.signer)
			if err != nil {
				return nil, err
			}
			s.offer, s.fingerprint = o, o.key.Fingerprint()
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// asking returns the steps that offer no more than a public half. An RSA key is
// asked for with each of its signature algorithms, SHA-1 too, because a server may
// take one and not the others, and what it takes must not be called refused; a
// query signs nothing.
func asking(id string, key trust.PublicKey) []*step {
	algorithms := []string{keyType(key.Type())}
	if algorithms[0] == ssh.KeyAlgoRSA {
		algorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	}
	var steps []*step
	for _, a := range algorithms {
		steps = append(steps, &step{id: id, fingerprint: key.Fingerprint(), offer: &offer{key: key, algorithms: []string{a}}})
	}
	return steps
}

// outcomeOf returns the best of what became of steps that stand for one key.
func outcomeOf(steps []*step) Outcome {
	for _, o := range []Outcome{Accepted, Partial, Matched, Refused} {
		if slices.ContainsFunc(steps, func(s *step) bool { return s.outcome == o }) {
			return o
		}
	}
	return Untried
}

// An authentication offers steps in order on one connection, each once, as far
// as the server's methods allow.
type authentication struct {
	wire    *wire
	steps   []*step
	current *step
	partial int      // how many of the server's answers were partial successes
	methods []string // what the server offered last
	notice  string   // what the server said after the current step had signed
}

// banner is the ssh.BannerCallback. What a server says (RFC 4252, section 5.4) before
// a key has signed is for whoever logs in; sshd also says so why PAM refuses the
// account, and hangs up.
func (a *authentication) banner(message string) error {
	if s := a.current; s != nil && s.offer != nil && s.offer.matched {
		a.notice = message
	}
	return nil
}

// closed reports whether the server lets nobody in for now: PAM's words are those of
// systemd, which keeps /run/nologin while a machine starts and stops.
func (a *authentication) closed() bool {
	return a.hungUp() && strings.Contains(a.notice, "pam_nologin(8)")
}

// errExhausted ends an authentication in which nothing is left to offer.
var errExhausted = errors.New("dial: no credential left")

// next is the ssh.ClientAuthCallback: it settles what became of the step that was
// offered last and picks the one to offer now.
func (a *authentication) next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	a.methods = c.AllowedMethods
	last := a.current
	if a.hungUp() {
		return nil, io.EOF // the step stays the one that nobody answered
	}
	a.settle(len(c.PartialSuccessMethods) > a.partial)
	a.partial = len(c.PartialSuccessMethods)
	if _, _, _, broken := a.wire.said(); broken != nil {
		return nil, broken
	}
	if s := last; s != nil && s.offer != nil && s.offer.failed != nil {
		return nil, cannotSign(s.id, s.offer.failed)
	}
	for _, s := range a.steps {
		if s.tried {
			continue
		}
		for _, method := range s.methods() {
			if slices.Contains(c.AllowedMethods, method) {
				s.tried, a.current = true, s
				return s.auth(method), nil
			}
		}
	}
	return nil, errExhausted
}

// cannotSign says that there was no signature. What signs may be elsewhere, and says
// itself what to do.
func cannotSign(id string, err error) error {
	if trust.KindOf(err) == trust.Unavailable {
		return err
	}
	return trust.Errorf(trust.Internal, "%s cannot sign: %w", id, err)
}

// settle records the answer to the current step, if there is one.
func (a *authentication) settle(partial bool) {
	s := a.current
	if s == nil {
		return
	}
	a.current = nil
	switch {
	case partial:
		s.outcome = Partial
	case s.offer != nil && s.offer.matched:
		s.outcome = Matched
	case s.offer != nil && !s.offer.offered:
		s.outcome = Untried
	default:
		s.outcome = Refused
	}
}

// auth returns the step as x/crypto/ssh wants it.
func (s *step) auth(method string) ssh.AuthMethod {
	switch method {
	case "publickey":
		return ssh.PublicKeys(s.offer)
	case "password":
		return ssh.Password(s.password)
	}
	return ssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
		switch {
		case len(questions) == 0:
			return nil, nil
		case len(questions) == 1 && !echos[0]:
			return []string{s.password}, nil
		}
		return nil, trust.Errorf(trust.Denied, "the server asks %d questions, not one for a password", len(questions))
	})
}

// ended records what the end of the handshake says about the steps, and reports
// whether the server took back the connection although steps are left to offer.
func (a *authentication) ended(err error) (cut bool) {
	s := a.current
	switch {
	case err == nil:
		a.current = nil
		if s != nil {
			s.outcome = Accepted
		}
	case s == nil:
	case strings.Contains(err.Error(), tooManyTries):
		// OpenSSH answers the attempt that reaches MaxAuthTries by hanging up
		// instead of by a failure. A key it would take it would have matched.
		a.settle(false)
		return a.left()
	case errors.Is(err, errExhausted):
	case a.hungUp() && s.cut:
		a.settle(false)
		return a.left()
	default:
		// The connection broke while this was being offered: no answer. It is
		// tried once more where the key had signed: sshd answers by hanging up
		// where PAM lets nobody in to the account, and will again.
		a.current, s.tried, s.cut = nil, false, a.hungUp()
		return s.cut || len(a.attempts()) > 0
	}
	return false
}

// hungUp reports whether the server ended the connection instead of answering to a
// signature by a key that it had said would do.
func (a *authentication) hungUp() bool {
	_, _, _, broken := a.wire.said()
	return isGone(broken) && a.current != nil && a.current.offer != nil && a.current.offer.matched
}

// left reports whether there are steps that were not offered.
func (a *authentication) left() bool {
	return slices.ContainsFunc(a.steps, func(s *step) bool { return !s.tried })
}

// attempts returns what became of the steps that have been offered.
func (a *authentication) attempts() []Attempt {
	var out []Attempt
	for _, s := range a.steps {
		if s.outcome != "" && s.outcome != Untried {
			out = append(out, Attempt{s.id, s.fingerprint, s.outcome})
		}
	}
	return out
}
