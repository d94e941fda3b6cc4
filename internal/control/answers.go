package control

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"keyturn/internal/identity"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A client that lost the answer to a request which makes something asks again, and would
// have two of it: one that it knows nothing of, and that lets in whom it says. So what a
// request made is remembered for some minutes, in the commit that made it, by who asked
// and for what. Who says that it asks again gets that, as long as it is as it was made.

// askedAgainWithin is for how long after a request a client may still be trying.
// Cloudflare's own do for three and a half minutes.
const askedAgainWithin = 5 * time.Minute

// A making is a request that makes something of type T.
type making[T any] struct {
	// request is the digest of who asks, and for what.
	request string
	// again says that who asks has asked before, and lost the answer.
	again bool
	// find returns what has the id that make returned, and state what of that may not
	// change. Where it is another, or not there, it is not as it was.
	find  func(tx *store.Tx, id string) (T, error)
	state func(T) any
}

// requestOf returns the digest of what an actor asks of a verb.
func requestOf(actor identity.Actor, verb string, asked any) (string, error) {
	return digestOf([]any{actor.Kind, actor.ID, actor.Name, verb, asked})
}

func digestOf(v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// once makes what is asked for by make, which returns its id, or finds what the same
// request made before. Then it returns errAsked, which ends the transaction.
func (m making[T]) once(tx *store.Tx, make func() (id string, err error)) (made T, err error) {
	if m.again {
		found, there, err := m.answered(tx)
		if err != nil || there {
			return found, cmp.Or(err, errAsked)
		}
	}
	id, err := make()
	if err != nil {
		return made, err
	}
	if made, err = m.find(tx, id); err != nil {
		return made, err
	}
	state, err := digestOf(m.state(made))
	if err != nil {
		return made, err
	}
	return made, insertAnswer(tx, m.request, id, state)
}

// answered returns what the same request made before, if it is as it was then.
func (m making[T]) answered(tx *store.Tx) (found T, there bool, err error) {
	id, was, err := selectAnswer(tx, m.request)
	if err != nil || id == "" {
		return found, false, err
	}
	found, err = m.find(tx, id)
	if trust.KindOf(err) == trust.NotFound {
		return found, false, nil
	}
	if err != nil {
		return found, false, err
	}
	is, err := digestOf(m.state(found))
	return found, is == was, err
}

// errAsked ends a transaction in which there is nothing to do.
var errAsked = errors.New("the answer is that of before")

// answered returns err, unless that says that the answer is that of before.
func answered(err error) error {
	if errors.Is(err, errAsked) {
		return nil
	}
	return err
}
