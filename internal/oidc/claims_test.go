package oidc

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// A claim is what it says at its place, as text, and nothing where there is none.
func TestValues(t *testing.T) {
	d := json.NewDecoder(strings.NewReader(`{
		"groups": ["a", "b", 3, null, ["c"]], "name": "alice", "verified": true, "id": 12345678901234567890, "none": null,
		"realm": {"roles": ["x"], "a/b": {"~": "y"}}, "https://example.com/groups": ["z"], "": "empty", "/odd": "no pointer"
	}`))
	d.UseNumber()
	var c Claims
	if err := d.Decode(&c.values); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"groups": {"a", "b", "3"}, "name": {"alice"}, "verified": {"true"}, "id": {"12345678901234567890"}, "none": nil, "missing": nil,
		"realm": nil, "/realm/roles": {"x"}, "/realm/a~1b/~0": {"y"}, "/realm/roles/x": nil, "/name": {"alice"}, "https://example.com/groups": {"z"},
		"": {"empty"}, "/": {"empty"}, "/odd": nil,
	} {
		if got := c.Values(name); !slices.Equal(got, want) {
			t.Errorf("%q says %q, want %q", name, got, want)
		}
	}
}

// What travels to or from a provider does so over https, or on this machine.
func TestCheckURL(t *testing.T) {
	for _, good := range []string{"https://id.example.com", "https://id.example.com/realms/x?y=z", "http://127.0.0.1:8080", "http://[::1]:1/x", "http://localhost:3"} {
		if err := CheckURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "id.example.com", "http://id.example.com", "http://127.0.0.1.example.com", "http://10.0.0.1", "file:///etc/passwd", "javascript:alert(1)",
		"https://", "https://a:b@id.example.com", "https://id.example.com/#x", "https://" + strings.Repeat("x", 2048), "\x00",
	} {
		if err := CheckURL(bad); err == nil {
			t.Errorf("%.50q is taken", bad)
		}
	}
}
