package trust

import (
	"strings"
	"testing"
)

func TestParseServerVersion(t *testing.T) {
	for banner, want := range map[string]ServerVersion{
		"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u6\r\n":                      {OpenSSH, 9, 2, 1, "OpenSSH_9.2p1", "Debian-2+deb12u6"},
		"SSH-2.0-OpenSSH_10.0\n":                                          {OpenSSH, 10, 0, 0, "OpenSSH_10.0", ""},
		"SSH-2.0-OpenSSH_8.4":                                             {OpenSSH, 8, 4, 0, "OpenSSH_8.4", ""},
		"SSH-1.99-OpenSSH_3.9p1":                                          {OpenSSH, 3, 9, 1, "OpenSSH_3.9p1", ""},
		"SSH-2.0-OpenSSH_6.6.1p1 Ubuntu-2ubuntu2":                         {OpenSSH, 6, 6, 1, "OpenSSH_6.6.1p1", "Ubuntu-2ubuntu2"},
		"SSH-2.0-OpenSSH_for_Windows_9.5":                                 {OpenSSH, 9, 5, 0, "OpenSSH_for_Windows_9.5", ""},
		"OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026":     {OpenSSH, 9, 2, 1, "OpenSSH_9.2p1", "Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026"},
		"OpenSSH_9.2, OpenSSL 3.0.19 27 Jan 2026":                         {OpenSSH, 9, 2, 0, "OpenSSH_9.2", "OpenSSL 3.0.19 27 Jan 2026"},
		"SSH-2.0-dropbear_2022.83":                                        {Dropbear, 2022, 83, 0, "dropbear_2022.83", ""},
		"Dropbear v2022.83":                                               {Dropbear, 2022, 83, 0, "dropbear_2022.83", ""},
		"SSH-2.0-dropbear":                                                {Dropbear, 0, 0, 0, "dropbear", ""},
		"SSH-2.0-tinyssh_20240101 RANDOM":                                 {TinySSH, 20240101, 0, 0, "tinyssh_20240101", "RANDOM"},
		"SSH-2.0-tinyssh_noversion":                                       {TinySSH, 0, 0, 0, "tinyssh_noversion", ""},
		"SSH-2.0-Cisco-1.25":                                              {OtherServer, 0, 0, 0, "Cisco-1.25", ""},
		"SSH-2.0-libssh_0.10.6":                                           {OtherServer, 0, 0, 0, "libssh_0.10.6", ""},
		"SSH-2.0-Go":                                                      {OtherServer, 0, 0, 0, "Go", ""},
		"SSH-2.0-OpenSSH_99999999999999999999.1":                          {OpenSSH, 999999999, 0, 0, "OpenSSH_99999999999999999999.1", ""},
		"SSH-2.0-OpenSSH_" + strings.Repeat("9", 3) + ".999999999999p1 x": {OpenSSH, 999, 999999999, 1, "OpenSSH_999.999999999999p1", "x"},
	} {
		if got, err := ParseServerVersion(banner); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", banner, got, err, want)
		}
	}
	for _, bad := range []string{"", "\r\n", "SSH-1.5-1.2.27", "SSH-2.0", "SSH-", "a\x00b", strings.Repeat("x", 256), "two\nlines"} {
		if got, err := ParseServerVersion(bad); KindOf(err) != Invalid {
			t.Errorf("%q: got %+v, %v", bad, got, err)
		}
	}
}

func TestServerVersionAtLeast(t *testing.T) {
	v := OpenSSHVersion(9, 2)
	for _, test := range []struct {
		major, minor int
		want         bool
	}{{9, 2, true}, {9, 1, true}, {8, 9, true}, {9, 3, false}, {10, 0, false}} {
		if got := v.AtLeast(test.major, test.minor); got != test.want {
			t.Errorf("9.2 at least %d.%d: %t", test.major, test.minor, got)
		}
	}
	if !(ServerVersion{Family: OpenSSH}).AtLeast(99, 0) {
		t.Error("a version that is not known does not count as the newest")
	}
}
