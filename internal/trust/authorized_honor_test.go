package trust

import (
	"strings"
	"testing"
	"time"
)

// The releases are those of upstream's tags in which an option or a type first
// appears in auth-options.c or sshkey.c.
func TestHonoredBy(t *testing.T) {
	key := testKey(t, "ed25519", "alice").String()
	dropbear := func(major, minor int) ServerVersion {
		return ServerVersion{Family: Dropbear, Major: major, Minor: minor, Software: "dropbear"}
	}
	tinyssh := ServerVersion{Family: TinySSH}
	for _, test := range []struct {
		line   string
		server ServerVersion
		want   string // part of the reason, or "" where it is honored
	}{
		{"restrict " + key, OpenSSHVersion(7, 1), "restrict"},
		{"restrict " + key, OpenSSHVersion(7, 2), ""},
		{"no-pty " + key, OpenSSHVersion(7, 1), ""},
		{"pty " + key, OpenSSHVersion(7, 1), "pty"},
		{`expiry-time="20990101" ` + key, OpenSSHVersion(7, 6), "expiry-time"},
		{`expiry-time="20990101" ` + key, OpenSSHVersion(7, 7), ""},
		{`expiry-time="20990101Z" ` + key, OpenSSHVersion(9, 0), "UTC"},
		{`expiry-time="20990101Z" ` + key, OpenSSHVersion(9, 1), ""},
		{`permitlisten="8080" ` + key, OpenSSHVersion(7, 7), "permitlisten"},
		{`permitlisten="8080" ` + key, OpenSSHVersion(7, 8), ""},
		{"no-touch-required " + testKey(t, "sk-ed25519", "a").String(), OpenSSHVersion(8, 1), "sk-ssh-ed25519"},
		{"no-touch-required " + testKey(t, "sk-ed25519", "a").String(), OpenSSHVersion(8, 2), ""},
		{"Verify-Required " + key, OpenSSHVersion(8, 3), "verify-required"},
		{"Verify-Required " + key, OpenSSHVersion(8, 4), ""},
		{key, OpenSSHVersion(6, 4), "ssh-ed25519"},
		{key, OpenSSHVersion(6, 5), ""},
		{testKey(t, "mldsa", "a").String(), OpenSSHVersion(10, 3), "mldsa"},
		{testKey(t, "mldsa", "a").String(), OpenSSHVersion(10, 4), ""},
		{testKey(t, "mldsa", "a").String(), OpenSSHVersion(10, 6), "mldsa"},
		{testKey(t, "mldsa-new", "a").String(), OpenSSHVersion(10, 5), "mldsa"},
		{testKey(t, "mldsa-new", "a").String(), OpenSSHVersion(10, 6), ""},
		{testKey(t, "dsa", "a").String(), OpenSSHVersion(10, 0), ""},
		{testKey(t, "dsa", "a").String(), OpenSSHVersion(10, 1), "ssh-dss"},
		{strings.Replace(key, " ", "\t", 1), OpenSSHVersion(7, 6), "single space"},
		{strings.Replace(key, " ", "\t", 1), OpenSSHVersion(7, 7), ""},
		{key + strings.Repeat(" long", 4000), OpenSSHVersion(7, 7), "lines of more than"},
		{key + strings.Repeat(" long", 4000), OpenSSHVersion(7, 8), ""},
		{"nonsense " + key, OpenSSHVersion(9, 9), "nonsense"},
		{"# " + key, OpenSSHVersion(9, 9), "comment"},
		{"\ufeff" + key, OpenSSHVersion(9, 9), "byte order mark"},
		{testKey(t, "cert", "bob").String(), OpenSSHVersion(9, 9), "certificate"},
		{key, ServerVersion{Family: OtherServer}, ""},

		{key, dropbear(2019, 78), ""},
		{" " + key, dropbear(2022, 83), "no key"},
		{"restrict " + key, dropbear(2020, 81), "restrict"},
		{"restrict " + key, dropbear(2022, 82), ""},
		{"restrict  " + key, dropbear(2022, 82), "no key"},
		{`permitlisten="8080" ` + key, dropbear(2025, 89), "permitlisten"},
		{`permitlisten="8080" ` + key, dropbear(2026, 90), ""},
		{`permitlisten="localhost:8080" ` + key, dropbear(2026, 92), "only a port"},
		{`from="10.0.0.1" ` + key, dropbear(2026, 94), "from"},
		{key + strings.Repeat(" long", 700), dropbear(2026, 91), ""},
		{key + strings.Repeat(" long", 700), dropbear(2026, 92), "too long"},

		{key, tinyssh, ""},
		{key + " comment", tinyssh, ""},
		{key + "\tcomment", tinyssh, "space"},
		{" " + key, tinyssh, "blanks"},
		{"restrict " + key, tinyssh, "options"},
		{testKey(t, "rsa", "a").String(), tinyssh, "ssh-rsa"},
	} {
		l := ParseAuthorizedKeys([]byte(test.line + "\n")).Line(0)
		err := l.HonoredBy(test.server)
		if test.want == "" && err != nil {
			t.Errorf("%.60q is not honored by %s: %v", test.line, test.server, err)
		}
		if test.want != "" && test.want != "ssh-rsa" && (KindOf(err) != Invalid || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%.60q by %s: got %v, want %q", test.line, test.server, err, test.want)
		}
		if test.want == "ssh-rsa" && err == nil {
			t.Errorf("%.60q is honored by %s", test.line, test.server)
		}
	}
}

func TestDropbearReadsOnlyTheFirst300Lines(t *testing.T) {
	key := testKey(t, "ed25519", "alice")
	for _, test := range []struct {
		before string
		minor  int
		want   bool
	}{
		{strings.Repeat("#\n", 299), 92, true},
		{strings.Repeat("#\n", 300), 92, false},
		{strings.Repeat("#\n", 300), 91, true},
		{strings.Repeat("#\r\n", 149), 92, true},
		{strings.Repeat("#\r\n", 150), 92, false}, // each "\r\n" ends two lines
	} {
		f := ParseAuthorizedKeys([]byte(test.before + key.String() + "\n"))
		v := WouldAccept([]*AuthorizedKeys{f}, Attempt{Key: key, Time: time.Unix(1e9, 0), Server: ServerVersion{Family: Dropbear, Major: 2026, Minor: test.minor}})
		if v.Accepted != test.want {
			t.Errorf("behind %d bytes, 2026.%d: %+v", len(test.before), test.minor, v)
		}
	}
}

func TestSameOptions(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"restrict,pty", "restrict,pty", true},
		{"restrict,pty", "RESTRICT,PTY", true},
		{"restrict,pty", "pty,restrict", false}, // the second takes the pty away again
		{"no-pty,no-user-rc", "no-user-rc,no-pty", true},
		{"restrict", "no-pty,no-user-rc,no-agent-forwarding,no-port-forwarding,no-X11-forwarding", false},
		{"", "no-pty", false},
		{`from="10.0.0.1"`, `from="10.0.0.2"`, false},
		{`command="a",restrict`, `restrict,command="a"`, true},
		{`command="a"`, `command=""`, false},
		{"", `command=""`, false},
		{"nonsense", "nonsense", true},
		{"nonsense", "", false},
		{`environment="A=1",environment="A=2"`, `environment="A=1"`, true},
		{"cert-authority", "", false},
	} {
		line := func(options string) AuthorizedLine {
			return ParseAuthorizedKeys([]byte(strings.TrimSpace(options + " " + keyA))).Line(0)
		}
		if got := SameOptions(line(test.a), line(test.b)); got != test.want {
			t.Errorf("%q and %q: %t", test.a, test.b, got)
		}
	}
}

func TestOptionsOfALine(t *testing.T) {
	f := ParseAuthorizedKeys([]byte(`Command="echo \"a,b\"",no-pty,bogus="x,y",from="10.0.0.0/8" ` + keyA + " the comment\r\n"))
	l := f.Line(0)
	want := []KeyOption{{"Command", `echo "a,b"`, true}, {"no-pty", "", false}, {"bogus", "x,y", true}, {"from", "10.0.0.0/8", true}}
	got := l.Options()
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("option %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
	if _, err := l.Grant(); KindOf(err) != Invalid || !strings.Contains(err.Error(), "bogus") {
		t.Errorf("Grant: %v", err)
	}
	if l.Comment() != "the comment" || l.Ending() != "\r\n" {
		t.Errorf("comment %q, ending %q", l.Comment(), l.Ending())
	}
	good := ParseAuthorizedKeys([]byte(`command="x",from="10.0.0.0/8",expiry-time="20300102",expiry-time="202912312359Z" ` + keyA)).Line(0)
	g, err := good.Grant()
	if err != nil || !g.HasForcedCommand || g.ForcedCommand != "x" || g.SourceRestriction != "10.0.0.0/8" || !g.PTY {
		t.Errorf("Grant: %+v, %v", g, err)
	}
	if end, ok := g.Expires(time.FixedZone("", 3600)); !ok || !end.Equal(time.Date(2029, 12, 31, 23, 59, 0, 0, time.UTC)) {
		t.Errorf("expires at %v, %t", end, ok)
	}
}
