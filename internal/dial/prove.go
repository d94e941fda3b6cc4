package dial

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// Prove tries whether a key logs in: Accepted, Partial (the server took it and
// wants something else besides), Matched (it would take the key but something else
// refuses the login, such as an expired account), Refused, or Untried if the server
// and the key have no algorithm in common. No channel is opened, so that neither
// forced commands nor shells play a part; PAM's session modules do.
//
// Credentials after the key are offered only if it did not log in, so that the
// server sees a connection that ended well. An error means that nothing was learned
// of the key.
func Prove(ctx context.Context, t Target, key ssh.Signer, then ...Credential) (Outcome, error) {
	o, err := newOffer(key)
	if err != nil {
		return Untried, err
	}
	first := &step{id: "key", fingerprint: o.key.Fingerprint(), offer: o}
	return probe(ctx, t, []*step{first}, then, defaultPatience())
}

// Query asks whether the server would take a key of which only the public half is
// at hand: Matched, Refused or Untried. The credentials that follow should hold one
// that logs in: a connection that does not counts as a failure with the server.
func Query(ctx context.Context, t Target, key trust.PublicKey, credentials []Credential) (Outcome, error) {
	return probe(ctx, t, asking("question", key), credentials, defaultPatience())
}

// Disprove tries whether the server still takes an old key, which is offered first
// and by its public half, and logs in with a good one on the same connection. It
// reports a refusal only if the server answered the old key with no *and* the good
// one logged in, so that neither a dead account nor a dead server passes for one.
// That the good key is refused is a Denied error.
func Disprove(ctx context.Context, t Target, old trust.PublicKey, good ssh.Signer) (stillAccepted bool, err error) {
	return disprove(ctx, t, old, good, defaultPatience())
}

func disprove(ctx context.Context, t Target, old trust.PublicKey, good ssh.Signer, p patience) (bool, error) {
	if trust.PublicKeyOf(good.PublicKey()) == old {
		return false, trust.Errorf(trust.Invalid, "the key %s cannot show that it is refused itself", old.Fingerprint())
	}
	first := asking("old", old)
	rest, err := signing([]Credential{KeyCredential("good", good)})
	if err != nil {
		return false, err
	}
	s, err := login(ctx, t, append(slices.Clone(first), rest...), p)
	if err != nil {
		var refused *RefusedError
		if errors.As(err, &refused) {
			return false, trust.Errorf(trust.Denied, "whether %s is refused cannot be shown, because the good key does not log in: %w", old.Fingerprint(), err)
		}
		return false, err
	}
	_ = s.conn.Close()
	switch outcomeOf(first) {
	case Refused:
		return false, nil
	case Untried:
		return false, trust.Errorf(trust.Conflict, "%s could not be asked about %s: they have no algorithm in common", t.Address, old.Fingerprint())
	}
	return true, nil
}

// probe offers first and then the credentials, and returns what became of first.
func probe(ctx context.Context, t Target, first []*step, then []Credential, p patience) (Outcome, error) {
	rest, err := signing(then)
	if err != nil {
		return Untried, err
	}
	s, err := login(ctx, t, append(slices.Clone(first), rest...), p)
	if err == nil {
		_ = s.conn.Close()
		return outcomeOf(first), nil
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		return outcomeOf(first), nil
	}
	return Untried, err
}
