//go:build localsecrets

package keyring

import _ "gocloud.dev/secrets/localsecrets" // registers its URLs
