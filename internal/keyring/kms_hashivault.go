//go:build hashivault

package keyring

import _ "gocloud.dev/secrets/hashivault" // registers its URLs
