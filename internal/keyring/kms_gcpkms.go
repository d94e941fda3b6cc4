//go:build gcpkms

package keyring

import _ "gocloud.dev/secrets/gcpkms" // registers its URLs
