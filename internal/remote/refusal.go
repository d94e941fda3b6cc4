package remote

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"keyturn/internal/trust"
)

// Refusal says why the server that serves us lets nobody in to user's account with
// a key, as far as its configuration and the account itself tell: what somebody has
// decided, and not what happens to be wrong. It is empty where they let it in.
func (h *Host) Refusal(ctx context.Context, user string, key trust.PublicKey) (string, error) {
	c, err := h.AccountConfig(ctx, user)
	if err != nil {
		return "", err
	}
	a, err := h.account(ctx, user)
	if err != nil {
		return "", err
	}
	if err := c.Config.AcceptsKey(key); err != nil {
		return err.Error(), nil
	}
	config := c.Config
	config.AllowGroups = nil // which groups the account is in was not asked
	from, _ := netip.ParseAddr(h.ClientAddress())
	if err := config.AllowsAccount(trust.Account{User: a.User, UID: a.UID, Home: a.Home}, "", from, true); err != nil {
		return err.Error(), nil
	}
	switch {
	case a.Password == PasswordLocked && !config.UsePAM:
		return fmt.Sprintf("the account %s is locked", user), nil
	case !a.Expires.IsZero() && time.Now().After(a.Expires):
		return fmt.Sprintf("the account %s has expired", user), nil
	case !a.Runs:
		return fmt.Sprintf("the account %s has no shell that runs", user), nil
	}
	return "", nil
}
