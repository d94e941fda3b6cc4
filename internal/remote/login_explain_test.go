package remote

import (
	"strings"
	"testing"

	"keyturn/internal/trust"
)

// Who reads why a login was not seen to work learns how far it came.
func TestExplainLogin(t *testing.T) {
	for name, c := range map[string]struct {
		log  []string
		want string
	}{
		"refused":       {[]string{"debug1: x", "bob@h: Permission denied (publickey)."}, "Permission denied"},
		"out of time":   {[]string{"OpenSSH_9.2p1", "debug1: Connecting to h port 22.", "debug1: Connection established.", ""}, "the last that it said is debug1: Connection established."},
		"not reachable": {[]string{"debug1: Connecting to h port 22.", "ssh: connect to host h port 22: Connection refused", "debug1: x"}, "Connection refused"},
		"silence":       {nil, "it said nothing"},
	} {
		detail, err := explainLogin("h1", "bob", "h:22", c.log)
		if !strings.Contains(detail, c.want) || name == "refused" != (err == nil) || err != nil && trust.KindOf(err) != trust.Unavailable {
			t.Errorf("%s: %q, %v; want %q", name, detail, err, c.want)
		}
	}
}
