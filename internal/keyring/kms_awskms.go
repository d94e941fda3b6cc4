//go:build awskms

package keyring

import _ "gocloud.dev/secrets/awskms" // registers its URLs
