//go:build azurekeyvault

package keyring

import _ "gocloud.dev/secrets/azurekeyvault" // registers its URLs
