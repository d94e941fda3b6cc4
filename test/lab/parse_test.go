//go:build linux

package lab

import "testing"

func TestArchiveOf(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"one line", "# deb http://no.example bookworm main\ndeb http://a.example/debian bookworm main\n", "http://a.example/debian"},
		{"options", "deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian bookworm main\n", "http://a.example/debian"},
		{"another's archive first", "deb http://vendor.example stable main\ndeb http://a.example/debian bookworm main\n", "http://a.example/debian"},
		{"only sources", "deb-src http://a.example/debian bookworm main\n", ""},
		{"deb822", "Types: deb\n# URIs: http://no.example\nURIs: http://a.example/debian http://b.example\nSuites: bookworm bookworm-updates\n", "http://a.example/debian"},
		{"deb822, second stanza", "URIs: http://vendor.example\nSuites: nodistro\n\nURIs: http://a.example/debian\nSuites: bookworm\n", "http://a.example/debian"},
		{"security alone", "URIs: http://a.example/security\nSuites: bookworm-security\n", ""},
		{"cut short", "deb\ndeb \ndeb [\ndeb [x] \nURIs:\nSuites: bookworm\n", ""},
	} {
		if got := archiveOf(c.text, "bookworm"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSyslogLine(t *testing.T) {
	for message, want := range map[string]string{
		"<38>Nov 22 01:02:03 sshd[12]: Server listening on :: port 22.": "sshd[12]: Server listening on :: port 22.",
		"<30>Nov  2 01:02:03 systemd[1]: Started.\n":                    "systemd[1]: Started.",
		"<38>sudo: alice : COMMAND=/bin/true\x00":                       "sudo: alice : COMMAND=/bin/true",
	} {
		if got, ok := syslogLine([]byte(message)); !ok || got != want {
			t.Errorf("%q: %q, %v, want %q", message, got, ok, want)
		}
	}
	if got, ok := syslogLine([]byte("no header")); ok {
		t.Errorf("%q is taken for a message", got)
	}
}
