package identity

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/alexedwards/argon2id"
	"golang.org/x/crypto/argon2"

	"keyturn/internal/trust"
)

// params are the second recommended choice of RFC 9106, section 4: 64 MiB, three
// passes, four lanes. It costs about 0.2 s of a CPU, and the same on every
// machine.
var params = &argon2id.Params{Memory: 64 << 10, Iterations: 3, Parallelism: 4, SaltLength: 16, KeyLength: 32}

const (
	// maxHashing bounds how many passwords are hashed at a time, and so the
	// memory that logins take: 128 MiB, however many there are.
	maxHashing = 2
	// maxWaiting bounds how many wait for their turn. Behind them, at some
	// ten a second, one would wait for seconds anyway.
	maxWaiting = 32

	minPassword = 8    // characters of a password that a user is given
	maxPassword = 1024 // bytes
)

// A PasswordHash is a password as it is stored. The zero value is that of a user
// who cannot log in with one.
type PasswordHash struct{ encoded string }

// String says nothing of the hash, which is all that a guesser needs.
func (PasswordHash) String() string { return "[redacted]" }

// GoString is String.
func (PasswordHash) GoString() string { return "[redacted]" }

// A hasher is the one place where passwords are hashed and compared.
type hasher struct {
	waiting chan struct{}
	running chan struct{}
	params  *argon2id.Params
	// check is argon2id.CheckHash; a test counts its calls.
	check func(password, hash string) (bool, *argon2id.Params, error)
	// nobody is the hash of a password that nobody has. A name that does not
	// exist is compared with it, so that it takes as long as one that does.
	nobody string
}

func newHasher(p *argon2id.Params) *hasher {
	return &hasher{
		waiting: make(chan struct{}, maxWaiting),
		running: make(chan struct{}, maxHashing),
		params:  p,
		check:   argon2id.CheckHash,
		nobody:  hashOfNobody(p),
	}
}

// hashOfNobody returns random bytes in the form of a hash. To compare a password
// with it costs as much as with any other, and to make it costs nothing, at a time
// when somebody waits for the server to start.
func hashOfNobody(p *argon2id.Params) string {
	random := make([]byte, p.SaltLength+p.KeyLength)
	_, _ = rand.Read(random) // never fails: see crypto/rand
	text := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.Memory, p.Iterations, p.Parallelism, text(random[:p.SaltLength]), text(random[p.SaltLength:]))
}

// turn waits until fewer than maxHashing others hash, and runs fn. Beyond
// maxWaiting it is Exhausted at once.
func (h *hasher) turn(ctx context.Context, fn func()) error {
	select {
	case h.waiting <- struct{}{}:
	default:
		return throttled(time.Second, "too many logins at once")
	}
	defer func() { <-h.waiting }()
	select {
	case h.running <- struct{}{}:
	case <-ctx.Done():
		return trust.Errorf(trust.Unavailable, "login: %w", context.Cause(ctx))
	}
	defer func() { <-h.running }()
	fn()
	return nil
}

func (h *hasher) hash(ctx context.Context, password string) (encoded string, err error) {
	turnErr := h.turn(ctx, func() { encoded, err = argon2id.CreateHash(password, h.params) })
	if turnErr != nil {
		return "", turnErr
	}
	return encoded, err
}

// matches compares a password with a hash, and with one that it cannot be if
// encoded is empty: every call costs one hashing. stale says that the hash is of
// other params than today's.
func (h *hasher) matches(ctx context.Context, password, encoded string) (ok, stale bool, err error) {
	against := encoded
	if against == "" {
		against = h.nobody
	}
	var used *argon2id.Params
	turnErr := h.turn(ctx, func() {
		// A hash from a database that someone wrote to must not cost more
		// than one of ours.
		if used, _, _, err = argon2id.DecodeHash(against); err != nil {
			return
		}
		if used.Memory > 4*params.Memory || used.Iterations > 4*params.Iterations || used.Parallelism > 4*params.Parallelism {
			err = trust.Errorf(trust.Internal, "password hash asks for %d KiB and %d passes", used.Memory, used.Iterations)
			return
		}
		ok, used, err = h.check(password, against)
	})
	if turnErr != nil {
		return false, false, turnErr
	}
	if err != nil {
		return false, false, err
	}
	return ok && encoded != "", *used != *h.params, nil
}

// HashPassword returns a password as it is stored, or an Invalid error for one
// that is too short or too long. It takes a fraction of a second, may have to
// wait for its turn, and belongs before an Update, not into it.
func (d *Directory) HashPassword(ctx context.Context, password string) (PasswordHash, error) {
	if n := len([]rune(password)); n < minPassword || len(password) > maxPassword {
		return PasswordHash{}, trust.Errorf(trust.Invalid, "a password has %d characters at the least and %d bytes at the most", minPassword, maxPassword).WithField("password")
	}
	encoded, err := d.hasher.hash(ctx, password)
	return PasswordHash{encoded}, err
}
