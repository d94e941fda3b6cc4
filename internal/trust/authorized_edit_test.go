package trust

import (
	"strings"
	"testing"
)

const (
	keyA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
	keyB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP/+/fz7+vn49/b19PPy8fDv7u3s6+rp6Ofm5eTj4uHg"
)

func mustKey(t testing.TB, line string) PublicKey {
	t.Helper()
	key, _, err := ParsePublicKey(line)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAddSuccessorThenRemoveGivesTheFileBack(t *testing.T) {
	a, b := mustKey(t, keyA), mustKey(t, keyB)
	for _, test := range []struct{ name, before, after string }{
		{"plain", keyA + " a\n", keyA + " a\n" + keyB + " a\n"},
		{"no final newline", keyA + " a", keyA + " a\n" + keyB + " a"},
		{"CRLF", "# x\r\n" + keyA + "\r\n", "# x\r\n" + keyA + "\r\n" + keyB + "\r\n"},
		{"CRLF, no final newline", "# x\r\n" + keyA, "# x\r\n" + keyA + "\r\n" + keyB},
		{"bare CR at the end", keyA + " a\r", keyA + " a\r\r\n" + keyB + " a\r"},
		{"duplicates", keyA + "\n#\n" + keyA + " 2", keyA + "\n" + keyB + "\n#\n" + keyA + " 2\n" + keyB + " 2"},
		{
			"options and spacing", " \tcommand=\"echo \\\"hi, you\\\"\",no-pty \t" + strings.Replace(keyA, " ", "  ", 1) + "\t a b \n",
			" \tcommand=\"echo \\\"hi, you\\\"\",no-pty \t" + strings.Replace(keyA, " ", "  ", 1) + "\t a b \n" +
				" \tcommand=\"echo \\\"hi, you\\\"\",no-pty \t" + strings.Replace(keyB, " ", "  ", 1) + "\t a b \n",
		},
		{"NUL in the comment", keyA + " a\x00b\n", keyA + " a\x00b\n" + keyB + " a\x00b\n"},
		{"absent", "# nothing\n", "# nothing\n"},
		{"BOM hides the key", "\ufeff" + keyA + "\n", "\ufeff" + keyA + "\n"},
		{"empty", "", ""},
	} {
		f := ParseAuthorizedKeys([]byte(test.before))
		added := f.AddSuccessor(a, b)
		if got := string(f.Bytes()); got != test.after {
			t.Errorf("%s: added: got %q, want %q", test.name, got, test.after)
		}
		f = ParseAuthorizedKeys(f.Bytes())
		if again := f.AddSuccessor(a, b); len(again) != 0 {
			t.Errorf("%s: a second AddSuccessor added %d lines", test.name, len(again))
		}
		if removed := f.RemoveKey(b); len(removed) != len(added) {
			t.Errorf("%s: removed %d lines, added %d", test.name, len(removed), len(added))
		}
		if got := string(f.Bytes()); got != test.before {
			t.Errorf("%s: removed: got %q, want %q", test.name, got, test.before)
		}
	}
}

func TestAppendThenRemoveGivesTheFileBack(t *testing.T) {
	b := mustKey(t, keyB)
	for before, after := range map[string]string{
		"":                   keyB + "\n",
		"\n":                 "\n" + keyB + "\n",
		"# a":                "# a\n" + keyB,
		"# a\r\n# b":         "# a\r\n# b\r\n" + keyB,
		"\ufeff":             "\ufeff\n" + keyB,
		keyA + "\rx\r":       keyA + "\rx\r\r\n" + keyB,
		"# a\n\n\n":          "# a\n\n\n" + keyB + "\n",
		"\x00\x00" + keyA:    "\x00\x00" + keyA + "\n" + keyB,
		keyA + "\r\n# b\n":   keyA + "\r\n# b\n" + keyB + "\n",
		keyA + "\n" + "\r\n": keyA + "\n" + "\r\n" + keyB + "\r\n",
	} {
		f := ParseAuthorizedKeys([]byte(before))
		if err := f.Append(keyB); err != nil {
			t.Fatal(err)
		}
		if got := string(f.Bytes()); got != after {
			t.Errorf("%q: appended: got %q, want %q", before, got, after)
		}
		f = ParseAuthorizedKeys(f.Bytes())
		f.RemoveKey(b)
		if got := string(f.Bytes()); got != before {
			t.Errorf("%q: removed: got %q", before, got)
		}
	}
}
