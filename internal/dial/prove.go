package dial

import (
	"context"
	"errors"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// An Outcome says how a server answered to a key.
type Outcome string

// The outcomes of offering a key.
const (
	// Accepted: a login with the key's signature succeeded.
	Accepted Outcome = "accepted"
	// Partial: the server took the key's signature and asks for something
	// else besides (AuthenticationMethods in sshd_config(5)).
	Partial Outcome = "partial"
	// Matched: the server said that it would take the key, and nobody signed.
	Matched Outcome = "matched"
	// Refused: the server does not take the key.
	Refused Outcome = "refused"
)

var (
	errOnlyAsked = errors.New("the key was only asked about")
	errPartial   = errors.New("the key was taken, and more is asked for")
)

// Prove finds out how t answers to a key by a login with it. No channel is
// opened, and the connection is closed. Errors are those of Dial, but for
// Denied: that is the Outcome Refused.
func Prove(ctx context.Context, t Target, signer ssh.Signer) (Outcome, error) {
	a := attempt{target: t, credentials: []Credential{KeyCredential("key", signer)}, onPartial: func() error { return errPartial }}
	conn, err := a.connect(ctx)
	switch {
	case err == nil:
		return Accepted, conn.Close()
	case a.partial:
		return Partial, nil
	case trust.KindOf(err) == trust.Denied:
		return Refused, nil
	}
	return "", err
}

// Query finds out whether t would take a key whose private half is not at
// hand: Matched or Refused. The question rides in a connection that one of the
// credentials brings to a good end where there is one; without, the server
// counts it as a failed login. Errors are those of Dial; that no credential was
// taken is none, because the question was answered before.
func Query(ctx context.Context, t Target, key trust.PublicKey, credentials []Credential) (Outcome, error) {
	accepted, conn, err := ask(ctx, t, key, credentials)
	if conn != nil {
		_ = conn.Close()
	}
	if err != nil && trust.KindOf(err) != trust.Denied {
		return "", err
	}
	if accepted {
		return Matched, nil
	}
	return Refused, nil
}

// Disprove finds out whether t still takes a key that it should not take any
// more: it is offered first, by its public half alone, and then good is, in the
// same connection, which must end in success. That good is refused is a Denied
// error: then nothing is known of the old key either.
func Disprove(ctx context.Context, t Target, old trust.PublicKey, good ssh.Signer) (stillAccepted bool, err error) {
	accepted, conn, err := ask(ctx, t, old, []Credential{KeyCredential("good", good)})
	if err != nil {
		return false, err
	}
	return accepted, conn.Close()
}

// ask dials t with a question first and credentials after it.
func ask(ctx context.Context, t Target, key trust.PublicKey, credentials []Credential) (accepted bool, _ *Conn, err error) {
	public, err := key.SSH()
	if err != nil {
		return false, nil, err
	}
	q := &question{key: public}
	c := Credential{ID: "question", name: "publickey", method: ssh.PublicKeys(q)}
	conn, err := Dial(ctx, t, append([]Credential{c}, credentials...))
	return q.accepted, conn, err
}
