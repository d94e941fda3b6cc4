package rotation

import (
	"net/netip"
	"testing"
	"time"

	"keyturn/internal/remote"
	"keyturn/internal/trust"
)

// Where a from= keeps us from asking the server, the file is read as that
// release of OpenSSH reads it.
func TestAcceptsElsewhere(t *testing.T) {
	const blob = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk2o9ZSFPpC5rVEUHrOMVJPGGJw9tKdUtpxmJFtPxHf"
	key, _, err := trust.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		options  string
		old, now bool // as OpenSSH 8.4 and 9.2 would
	}{
		{`from="10.0.0.1"`, true, true},
		{`from="10.0.0.1",expiry-time="20990101"`, true, true},
		{`from="10.0.0.1",expiry-time="20990101Z"`, false, true},
		{`from="10.0.0.1",nonsense`, false, false},
		{`no-pty`, false, false}, // that server would have let us in
	} {
		files := []remote.File{{Content: []byte("# ours\n" + c.options + " " + blob + "\n")}}
		if _, got := grants(files, trust.Attempt{Key: key, Server: trust.OpenSSHVersion(8, 4)}); got != c.old {
			t.Errorf("%s: OpenSSH 8.4 accepts it elsewhere: %v", c.options, got)
		}
		if _, got := grants(files, trust.Attempt{Key: key, Server: trust.OpenSSHVersion(9, 2)}); got != c.now {
			t.Errorf("%s: OpenSSH 9.2 accepts it elsewhere: %v", c.options, got)
		}
	}
}

// A host that refuses what its files grant to us is not excused by a from=.
func TestRefusalIsExplainedByWhereWeAre(t *testing.T) {
	const blob = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk2o9ZSFPpC5rVEUHrOMVJPGGJw9tKdUtpxmJFtPxHf"
	key, _, err := trust.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		`from="10.0.0.0/8" ` + blob:                        true,
		`from="192.0.2.0/24" ` + blob:                      false,
		`from="10.0.0.0/8" ` + blob + "\n" + blob:          false,
		`from="10.0.0.0/8" ` + blob + "\nnonsense " + blob: true,
		`from="*.example.com" ` + blob:                     true, // it may know us by name, and not by that one
		blob:                                               false,
	} {
		a := trust.Attempt{Key: key, User: "deploy", Addr: netip.MustParseAddr("192.0.2.7"), Time: time.Now(), Server: trust.OpenSSHVersion(9, 2)}
		if _, got := grants([]remote.File{{Content: []byte(text + "\n")}}, a); got != want {
			t.Errorf("%q: a refusal is explained: %v", text, got)
		}
	}
}
