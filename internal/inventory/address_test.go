package inventory_test

import (
	"strings"
	"testing"

	"keyturn/internal/inventory"
	"keyturn/internal/trust"
)

func TestParseAddress(t *testing.T) {
	long := strings.Repeat("a23456789.", 26) + "com"
	for in, want := range map[string]string{
		"web1.Example.COM:22":                  "web1.example.com:22",
		"web1.example.com.:022":                "web1.example.com:22",
		"web1":                                 "web1:22",
		"under_score:65535":                    "under_score:65535",
		"192.0.2.7:2222":                       "192.0.2.7:2222",
		"192.0.2.7":                            "192.0.2.7:22",
		"[2001:DB8::0:1]:22":                   "[2001:db8::1]:22",
		"[2001:db8::1]":                        "[2001:db8::1]:22",
		"2001:db8::1":                          "[2001:db8::1]:22",
		"[::ffff:192.0.2.7]:22":                "192.0.2.7:22",
		"xn--bcher-kva.test:22":                "xn--bcher-kva.test:22",
		"":                                     "",
		":22":                                  "",
		"web1:":                                "",
		"web1:0":                               "",
		"web1:65536":                           "",
		"web1:+22":                             "",
		"web1:ssh":                             "",
		"web1:22:22":                           "",
		"web1 :22":                             "",
		"web1\n:22":                            "",
		"web1\x00:22":                          "",
		"bücher.test:22":                       "",
		"-web1:22":                             "",
		"web1-:22":                             "",
		"web..1:22":                            "",
		"[web1]:22":                            "",
		"[192.0.2.7]:22":                       "",
		"[fe80::1%eth0]:22":                    "",
		"fe80::1%eth0":                         "",
		"0.0.0.0:22":                           "",
		"[::]:22":                              "",
		"[ff02::1]:22":                         "",
		"127.1:22":                             "",
		"0x7f000001:22":                        "",
		"010.0.0.1:22":                         "",
		"2130706433:22":                        "",
		"user@web1:22":                         "",
		"ssh://web1:22":                        "",
		long + ":22":                           "",
		strings.Repeat("a", 64):                "",
		"a." + strings.Repeat("a", 63) + ":22": "a." + strings.Repeat("a", 63) + ":22",
	} {
		got, err := inventory.ParseAddress(in)
		if want == "" {
			if trust.KindOf(err) != trust.Invalid {
				t.Errorf("ParseAddress(%q) = %q, %v; want it refused as invalid", in, got, err)
			}
			continue
		}
		if got != want || err != nil {
			t.Errorf("ParseAddress(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"web1:22", "[::1]:22", "::ffff:1.2.3.4", "WEB.:1", "1.2.3.4", "a:b:c", "[a]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		address, err := inventory.ParseAddress(s)
		if err != nil {
			return
		}
		again, err := inventory.ParseAddress(address)
		if err != nil || again != address {
			t.Fatalf("%q is %q, which is %q, %v", s, address, again, err)
		}
		if strings.ToLower(address) != address || strings.ContainsAny(address, " \t\r\n\x00/@") {
			t.Fatalf("%q is %q", s, address)
		}
	})
}

func TestParseName(t *testing.T) {
	for in, want := range map[string]string{
		"web1":                                 "web1",
		"Web1.Example.com":                     "web1.example.com",
		"192.0.2.7":                            "192.0.2.7",
		"db_1":                                 "db_1",
		strings.Repeat("a", 63):                strings.Repeat("a", 63),
		"":                                     "",
		".":                                    "",
		"web1.":                                "",
		"-web1":                                "",
		"web1-.com":                            "",
		"web 1":                                "",
		"web1\t":                               "",
		"web1\x7f":                             "",
		"wéb":                                  "",
		"web*":                                 "",
		"web/1":                                "",
		strings.Repeat("a", 64):                "",
		strings.Repeat("a.", 126) + "ab":       "",
		"0c4d5bb5-62fd-4b0e-9a43-7e6f6c2d9f1e": "",
		"0C4D5BB562FD4B0E9A437E6F6C2D9F1E":     "",
	} {
		got, err := inventory.ParseName(in)
		if (want == "") != (trust.KindOf(err) == trust.Invalid && err != nil) || got != want {
			t.Errorf("ParseName(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseUser(t *testing.T) {
	for _, good := range []string{"root", "alice", `EXAMPLE\alice`, "alice@example.com", "www-data", "müller", strings.Repeat("u", 255)} {
		if got, err := inventory.ParseUser(good); got != good || err != nil {
			t.Errorf("ParseUser(%q) = %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{"", "-oProxyCommand=x", "a b", "a\nb", "a:b", "../root", "a\xff", "a\u202eb", strings.Repeat("u", 256)} {
		if got, err := inventory.ParseUser(bad); trust.KindOf(err) != trust.Invalid {
			t.Errorf("ParseUser(%q) = %q, %v; want it refused as invalid", bad, got, err)
		}
	}
}

func TestKeyID(t *testing.T) {
	const tenant = "0123456789abcdef0123456789abcdef"
	k, _, err := trust.ParsePublicKey("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk2o9ZSFPpC5rVEUHrOMVJPGGJw9tKdUtpxmJFtPxHf")
	if err != nil {
		t.Fatal(err)
	}
	// Ids are in databases and in other people's scripts: they never change.
	const want = "5dd8cc12-9718-5311-bd4e-79d43949f1bb"
	if got := inventory.KeyIDOf(tenant, inventory.UserKey, k); got != want {
		t.Errorf("id of a user key = %s, want %s", got, want)
	}
	if inventory.KeyIDOf(tenant, inventory.HostKey, k) == want {
		t.Error("a host key has the id of the user key with the same blob")
	}
	if inventory.KeyIDOf("fedcba9876543210fedcba9876543210", inventory.UserKey, k) == want {
		t.Error("two tenants have one id")
	}
	if id, err := inventory.ParseKeyID(strings.ToUpper(want)); id != want || err != nil {
		t.Errorf("ParseKeyID of the upper case = %s, %v", id, err)
	}
	if _, err := inventory.ParseKeyID("web1"); trust.KindOf(err) != trust.Invalid {
		t.Errorf("ParseKeyID(web1): %v", err)
	}
}
