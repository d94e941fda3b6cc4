package keyring

import (
	"time"

	"keyturn/internal/trust"
)

// LendFor is how long a password is kept for the one login that it is for.
const LendFor = 15 * time.Minute

// maxLent and maxPassword bound what Lend keeps.
const (
	maxLent     = 10_000
	maxPassword = 1024
)

// A loan names a password that is kept: whose it is, and what it is for.
type loan struct {
	tenant trust.TenantID
	id     string
}

// Lend keeps a password in the memory of this process, for the one Take that it
// is for: it is never sealed, never written, and forgotten after LendFor. Another
// process does not have it, and neither does this one when it is started again.
func (k *Keyring) Lend(tenant trust.TenantID, id, password string) error {
	if password == "" || len(password) > maxPassword {
		return trust.Errorf(trust.Invalid, "a password of %d bytes is not 1 to %d", len(password), maxPassword).WithField("password")
	}
	name := loan{tenant, id}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.lent) >= maxLent {
		return trust.Errorf(trust.Exhausted, "%d passwords are waiting to be used", len(k.lent)).WithHint("keyturn run list --open")
	}
	k.lent[name] = lent{password, time.AfterFunc(LendFor, func() { k.Take(tenant, id) })}
	return nil
}

// A lent password, and what forgets it.
type lent struct {
	password string
	forget   *time.Timer
}

// Take returns a password that Lend keeps, once: from then on it is kept no more.
func (k *Keyring) Take(tenant trust.TenantID, id string) (password string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l, ok := k.lent[loan{tenant, id}]
	if ok {
		l.forget.Stop()
		delete(k.lent, loan{tenant, id})
	}
	return l.password, ok
}
