package remote

import (
	"context"
	"strings"
)

// systemKnownHosts are ssh's GlobalKnownHostsFile by default (ssh_config(5)).
var systemKnownHosts = []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}

// KnownHosts returns the known_hosts files that ssh(1) reads for user by default,
// as Files does; with an empty user, those of the whole host.
//
// BUG(remote): a UserKnownHostsFile or GlobalKnownHostsFile of ssh_config(5) that
// names others is not followed.
func (h *Host) KnownHosts(ctx context.Context, user string) ([]File, error) {
	if user == "" {
		return h.Files(ctx, h.login, systemKnownHosts)
	}
	a, err := h.account(ctx, user)
	if err != nil || !strings.HasPrefix(a.Home, "/") {
		return nil, err
	}
	home := strings.TrimRight(a.Home, "/")
	return h.Files(ctx, user, []string{home + "/.ssh/known_hosts", home + "/.ssh/known_hosts2"})
}
