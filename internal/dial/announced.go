package dial

import (
	"encoding/binary"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// An announcement is the list of host keys that a server says it has.
type announcement struct {
	mu   sync.Mutex
	keys []trust.PublicKey
}

// maxAnnounced bounds the keys of one announcement.
const maxAnnounced = 64

// Announced returns the host keys that the server said it has by the global request
// hostkeys-00@openssh.com (OpenSSH's PROTOCOL, section 2.5), which are claims until
// they are proven. OpenSSH sends the list before it answers anything else, so it is
// complete once a command has been run.
func (c *Conn) Announced() []trust.PublicKey {
	c.announced.mu.Lock()
	defer c.announced.mu.Unlock()
	return slices.Clone(c.announced.keys)
}

// listen answers the server's global requests until the connection ends.
func (c *Conn) listen(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.Type == "hostkeys-00@openssh.com" {
			c.announced.mu.Lock()
			c.announced.keys = parseAnnounced(r.Payload)
			c.announced.mu.Unlock()
		}
		// The only thing that may be asked of us is whether we live, and no is
		// an answer to that.
		_ = r.Reply(false, nil)
	}
	close(c.broken)
}

// parseAnnounced reads a sequence of strings (RFC 4251, section 5), each a key
// blob. A malformed rest is dropped.
func parseAnnounced(b []byte) (keys []trust.PublicKey) {
	for len(b) >= 4 && len(keys) < maxAnnounced {
		n := binary.BigEndian.Uint32(b)
		if uint64(n) > uint64(len(b)-4) {
			break
		}
		if key, err := trust.ParsePublicKeyBlob(b[4 : 4+n]); err == nil {
			keys = append(keys, key)
		}
		b = b[4+n:]
	}
	return keys
}
