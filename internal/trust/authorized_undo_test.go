package trust

import (
	"slices"
	"testing"
)

func TestUndoKeepsWhatOthersWrote(t *testing.T) {
	c := testKey(t, "ed25519", "carol").String()
	add := func(text string) string {
		f := ParseAuthorizedKeys([]byte(text))
		f.AddSuccessor(mustKey(t, keyA), mustKey(t, keyB))
		return string(f.Bytes())
	}
	remove := func(text string) string {
		f := ParseAuthorizedKeys([]byte(text))
		f.RemoveKey(mustKey(t, keyA))
		return string(f.Bytes())
	}
	start := "# head\n" + keyA + " a\n\n" + c + " c\n"
	for _, test := range []struct {
		name, before, after, now, want string
		left                           []int
	}{
		{"nobody wrote", start, add(start), add(start), start, nil},
		{"nobody wrote, no final newline", keyA, add(keyA), add(keyA), keyA, nil},
		{"a line was appended", start, add(start), add(start) + "restrict " + c + "\n", start + "restrict " + c + "\n", nil},
		{"ours got another comment", start, add(start), "# head\n" + keyA + " a\n" + keyB + " renamed\n\n" + c + " c\n", start, nil},
		{"ours got other options", start, add(start), "# head\n" + keyA + " a\nrestrict " + keyB + " a\n", "# head\n" + keyA + " a\nrestrict " + keyB + " a\n", []int{2}},
		{"ours is gone already", start, add(start), start, start, nil},
		{"the same line was there before", keyA + "\n" + keyB + "\n", keyA + "\n" + keyB + "\n" + keyB + "\n", "#\n" + keyA + "\n" + keyB + "\n" + keyB + "\n", "#\n" + keyA + "\n" + keyB + "\n", nil},
		{"ours is gone, an older one has another comment", keyB + " old\n", keyB + " old\n" + keyB + " ours\n", "#\n" + keyB + " old\n", "#\n" + keyB + " old\n", nil},
		{"removed, and a line appended", start, remove(start), remove(start) + "# tail\n", start + "# tail\n", nil},
		{"removed, and others reordered", start, remove(start), c + " c\n# head\n", c + " c\n# head\n" + keyA + " a\n", nil},
		{"removed, and put back by someone", start, remove(start), start + "#\n", start + "#\n", nil},
		{"removed from the top", keyA + " a\n" + c + "\n", remove(keyA + " a\n" + c + "\n"), "\n\n" + c + "\n", "\n\n" + keyA + " a\n" + c + "\n", nil},
		{"removed, file emptied", keyA + " a\n", "", "\n", "\n" + keyA + " a\n", nil},
	} {
		u := UndoAuthorizedKeys([]byte(test.before), []byte(test.after), []byte(test.now))
		if got := string(u.File.Bytes()); got != test.want || !slices.Equal(u.Left, test.left) {
			t.Errorf("%s: got %q, left %v; want %q, left %v", test.name, got, u.Left, test.want, test.left)
		}
	}
}
