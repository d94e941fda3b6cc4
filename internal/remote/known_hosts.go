package remote

import (
	"context"
	"strings"
)

// SystemKnownHosts are the known_hosts files of a whole host: ssh's
// GlobalKnownHostsFile by default (ssh_config(5)).
var SystemKnownHosts = []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}

// KnownHosts returns the paths of the known_hosts files that ssh(1) reads for user
// by default, none where the account has no home.
//
// BUG(remote): a UserKnownHostsFile or GlobalKnownHostsFile of ssh_config(5) that
// names others is not followed.
func (h *Host) KnownHosts(ctx context.Context, user string) ([]string, error) {
	a, err := h.account(ctx, user)
	if err != nil || !strings.HasPrefix(a.Home, "/") {
		return nil, err
	}
	home := strings.TrimRight(a.Home, "/")
	return []string{home + "/.ssh/known_hosts", home + "/.ssh/known_hosts2"}, nil
}
