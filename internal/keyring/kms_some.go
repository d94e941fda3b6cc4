//go:build awskms || gcpkms || azurekeyvault || hashivault || localsecrets

package keyring

import (
	"context"

	"gocloud.dev/secrets"
)

// builtWith reports whether this program speaks to what has URLs of a scheme.
func builtWith(scheme string) bool { return secrets.DefaultURLMux().ValidKeeperScheme(scheme) }

func openKMS(ctx context.Context, address string) (kms, error) {
	return secrets.OpenKeeper(ctx, address)
}
