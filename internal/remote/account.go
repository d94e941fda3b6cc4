package remote

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/trust"
)

// A Password is what the shadow database says of an account's password, as far as
// it bears on logins by key: without PAM, sshd refuses an account that is locked.
type Password string

// What a password can be.
const (
	PasswordUnknown Password = ""       // the shadow database may not be read
	PasswordSet     Password = "set"    // there is one
	PasswordNone    Password = "none"   // none fits ("*")
	PasswordEmpty   Password = "empty"  // anybody gets in where empty ones are allowed
	PasswordLocked  Password = "locked" // the account is locked ("!")
)

// An Account is an account of the host.
type Account struct {
	User     string
	UID, GID int
	Home     string
	Shell    string
	// Runs says that the shell is there and can be executed.
	Runs     bool
	Password Password
	// Expires is when the account expires (shadow(5)), zero if never or unknown.
	Expires time.Time
}

// Accounts returns the accounts of the host that the login may see, in the order of
// its database, and those that it does not list, and whose homes lie in /home.
func (h *Host) Accounts(ctx context.Context) ([]Account, error) {
	answers, err := h.runAll(ctx, h.listing(), call{op: opHomes, as: h.strongest()})
	if err != nil {
		return nil, err
	}
	accounts, err := h.readAccounts(answers[0])
	if err != nil {
		return nil, err
	}
	owners, err := h.readAccounts(answers[1])
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	for _, a := range accounts {
		listed[a.User] = true
	}
	accounts = append(accounts, slices.DeleteFunc(owners, func(a Account) bool { return listed[a.User] })...)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range accounts {
		h.accounts[a.User] = a
	}
	return accounts, nil
}

// account returns one account, from memory if it was read on this connection.
func (h *Host) account(ctx context.Context, user string) (Account, error) {
	h.mu.Lock()
	a, ok := h.accounts[user]
	h.mu.Unlock()
	if ok {
		return a, nil
	}
	if err := checkUser(user); err != nil {
		return Account{}, err
	}
	answers, err := h.runAll(ctx, h.listing(user))
	if err != nil {
		return Account{}, err
	}
	return h.readAccount(answers[0], user)
}

// checkUser refuses what is no name of an account.
func checkUser(user string) error {
	if user == "" || strings.HasPrefix(user, "-") || strings.ContainsAny(user, "/:\x00\n ") {
		return trust.Errorf(trust.Invalid, "%q cannot be an account", user)
	}
	return nil
}

// readAccount finds an account in the answer of op accounts, and remembers it.
func (h *Host) readAccount(a answer, user string) (Account, error) {
	accounts, err := h.readAccounts(a)
	if err != nil {
		return Account{}, err
	}
	for _, a := range accounts {
		if a.User == user {
			h.mu.Lock()
			h.accounts[user] = a
			h.mu.Unlock()
			return a, nil
		}
	}
	return Account{}, trust.Errorf(trust.NotFound, "%w", &NoAccountError{h.name, user})
}

// A NoAccountError says that a host knows no account of a name, now: it was removed, or
// what the host asks for accounts, such as LDAP, does not answer.
type NoAccountError struct{ Host, User string }

func (e *NoAccountError) Error() string { return fmt.Sprintf("%s has no account %q", e.Host, e.User) }

// listing is a call of op accounts.
func (h *Host) listing(name ...string) call {
	return call{op: opAccounts, as: h.strongest(), args: name}
}

// readAccounts reads the answer of op accounts.
func (h *Host) readAccounts(a answer) ([]Account, error) {
	if a.no != nil {
		return nil, h.fail(a.no, "")
	}
	var accounts []Account
	index := map[string]int{}
	for _, l := range a.lines {
		f := strings.Split(l.rest, ":")
		switch {
		case l.word == "account" && len(f) == 6:
			a := Account{User: f[0], Runs: f[3] == "x", Home: f[4], Shell: f[5]}
			var errUID, errGID error
			a.UID, errUID = strconv.Atoi(f[1])
			a.GID, errGID = strconv.Atoi(f[2])
			if errUID != nil || errGID != nil || a.User == "" {
				continue // "+::::::" of NIS and what else is no account
			}
			index[a.User] = len(accounts)
			accounts = append(accounts, a)
		case l.word == "shadow" && len(f) == 6:
			i, ok := index[f[0]]
			if !ok {
				continue
			}
			accounts[i].Password = Password(f[1])
			if days, err := strconv.Atoi(f[5]); err == nil {
				accounts[i].Expires = time.Unix(0, 0).UTC().AddDate(0, 0, days)
			}
		}
	}
	return accounts, nil
}
