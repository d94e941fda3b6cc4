package rotation

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/trust"
)

// testKey returns an Ed25519 key that a name always stands for. Nobody has the
// private half.
func testKey(name string) trust.PublicKey {
	point := sha256.Sum256([]byte(name))
	blob := binary.BigEndian.AppendUint32(nil, 11)
	blob = append(blob, "ssh-ed25519"...)
	blob = binary.BigEndian.AppendUint32(blob, 32)
	key, err := trust.ParsePublicKeyBlob(append(blob, point[:]...))
	if err != nil {
		panic(err)
	}
	return key
}

var keyName = regexp.MustCompile(`\{\{(blob )?([a-z0-9-]+ )?([a-z0-9-]+)\}\}`)

// filled returns text with keys in the place of their names: {{old}} stands for
// "ssh-ed25519 AAAA...", {{blob old}} for the base64 alone. The corpus of package
// trust names kinds of keys as well; here all are of one kind.
func filled(text string) string {
	return keyName.ReplaceAllStringFunc(text, func(match string) string {
		m := keyName.FindStringSubmatch(match)
		key := testKey(m[3])
		if m[1] != "" {
			return base64.StdEncoding.EncodeToString(key.Blob())
		}
		return key.String()
	})
}

// What rows Authorize and Withdraw make of a file, and what undoing makes of
// that. Each edit may be done again to what it made.
func TestEdits(t *testing.T) {
	old, next := testKey("old"), testKey("next")
	for _, test := range []struct {
		name                  string
		before, during, after string
	}{
		{
			name:   "one line among others",
			before: "# ours\n{{old}} web\n\n{{other}} other\n",
			during: "# ours\n{{old}} web\n{{next}} web\n\n{{other}} other\n",
			after:  "# ours\n{{next}} web\n\n{{other}} other\n",
		},
		{
			name:   "no final newline",
			before: "{{other}}\n{{old}} web",
			during: "{{other}}\n{{old}} web\n{{next}} web",
			after:  "{{other}}\n{{next}} web",
		},
		{
			name:   "lines that end as on Windows",
			before: "# ours\r\n{{old}} web\r\n{{other}}\r\n",
			during: "# ours\r\n{{old}} web\r\n{{next}} web\r\n{{other}}\r\n",
			after:  "# ours\r\n{{next}} web\r\n{{other}}\r\n",
		},
		{
			name:   "as on Windows, no final newline",
			before: "# ours\r\n{{old}} web",
			during: "# ours\r\n{{old}} web\r\n{{next}} web",
			after:  "# ours\r\n{{next}} web",
		},
		{
			name:   "both kinds of endings",
			before: "{{old}} 1\r\n{{other}}\n{{old}} 2\n",
			during: "{{old}} 1\r\n{{next}} 1\r\n{{other}}\n{{old}} 2\n{{next}} 2\n",
			after:  "{{next}} 1\r\n{{other}}\n{{next}} 2\n",
		},
		{
			name:   "a byte order mark hides the first line from every server",
			before: "\ufeff{{old}} web\n{{old}} web\n",
			during: "\ufeff{{old}} web\n{{old}} web\n{{next}} web\n",
			after:  "\ufeff{{old}} web\n{{next}} web\n",
		},
		{
			name:   "each line with its own options",
			before: "from=\"10.0.0.1\" {{old}} from one\n{{other}}\ncommand=\"backup --all\",no-pty {{old}} from all\n",
			during: "from=\"10.0.0.1\" {{old}} from one\nfrom=\"10.0.0.1\" {{next}} from one\n{{other}}\ncommand=\"backup --all\",no-pty {{old}} from all\ncommand=\"backup --all\",no-pty {{next}} from all\n",
			after:  "from=\"10.0.0.1\" {{next}} from one\n{{other}}\ncommand=\"backup --all\",no-pty {{next}} from all\n",
		},
		{
			name:   "options that no server knows are kept, too",
			before: "nonsense {{old}} web\n",
			during: "nonsense {{old}} web\nnonsense {{next}} web\n",
			after:  "nonsense {{next}} web\n",
		},
		{
			name:   "spaces are kept byte for byte",
			before: " \trestrict  ssh-ed25519\t{{blob old}}   a  b \n",
			during: " \trestrict  ssh-ed25519\t{{blob old}}   a  b \n \trestrict  ssh-ed25519\t{{blob next}}   a  b \n",
			after:  " \trestrict  ssh-ed25519\t{{blob next}}   a  b \n",
		},
		{
			name:   "one line twice",
			before: "{{old}} 1\n# between\n{{old}} 2\n",
			during: "{{old}} 1\n{{next}} 1\n# between\n{{old}} 2\n{{next}} 2\n",
			after:  "{{next}} 1\n# between\n{{next}} 2\n",
		},
		{
			name:   "the new key is there already, elsewhere",
			before: "{{next}} mine\n{{other}}\n{{old}} web\n",
			during: "{{next}} mine\n{{other}}\n{{old}} web\n",
			after:  "{{next}} mine\n{{other}}\n",
		},
		{
			name:   "the new key is there already, with other options",
			before: "restrict {{next}} mine\n{{old}} web\n",
			during: "restrict {{next}} mine\n{{old}} web\n{{next}} web\n",
			after:  "restrict {{next}} mine\n{{next}} web\n",
		},
		{
			name:   "the new key is there already, with options that amount to the same",
			before: "no-pty,no-X11-forwarding {{next}} mine\nno-x11-forwarding,no-pty {{old}} web\n",
			during: "no-pty,no-X11-forwarding {{next}} mine\nno-x11-forwarding,no-pty {{old}} web\n",
			after:  "no-pty,no-X11-forwarding {{next}} mine\n",
		},
		{
			name:   "a line that is commented out is none",
			before: "#{{old}} web\n{{old}} web\n",
			during: "#{{old}} web\n{{old}} web\n{{next}} web\n",
			after:  "#{{old}} web\n{{next}} web\n",
		},
		{
			name:   "a file without the key",
			before: "{{other}}\n# nothing of ours",
			during: "{{other}}\n# nothing of ours",
			after:  "{{other}}\n# nothing of ours",
		},
		{name: "an empty file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, during, after := filled(test.before), filled(test.during), filled(test.after)
			kept := textsOf([]byte(before), next)

			data, made, err := addSuccessors([]byte(before), old, next, nil)
			if err != nil || string(data) != during {
				t.Fatalf("added: got %q, %v; want %q", data, err, during)
			}
			again, madeAgain, err := addSuccessors(data, old, next, nil)
			if err != nil || string(again) != during {
				t.Errorf("added again: got %q, %v; want %q", again, err, during)
			}
			if !slices.Equal(madeAgain, made) {
				t.Errorf("added again, the file holds the successions\n%q, and when they were made it held\n%q", madeAgain, made)
			}
			var olds []string
			for _, s := range made {
				olds = append(olds, s.Old)
				if !strings.Contains(during, s.New) || !holds(s.New, next) {
					t.Errorf("succession %q is not in the file", s)
				}
			}
			if want := textsOf([]byte(before), old); !slices.Equal(olds, want) {
				t.Errorf("successions of lines %q, want one of each of %q", olds, want)
			}

			data, removed, err := withdraw([]byte(during), old, next, "/k")
			if err != nil || string(data) != after || !slices.Equal(removed, textsOf([]byte(before), old)) {
				t.Errorf("withdrawn: got %q, %q, %v; want %q", data, removed, err, after)
			}
			data, removed, err = withdraw([]byte(after), old, next, "/k")
			if err != nil || string(data) != after || len(removed) != 0 {
				t.Errorf("withdrawn again: got %q, %q, %v; want %q", data, removed, err, after)
			}

			for _, now := range []string{during, before} {
				data, err := undoAuthorize([]byte(now), next, kept)
				if err != nil || string(data) != before {
					t.Errorf("undone: got %q, %v; want %q", data, err, before)
				}
			}
		})
	}
}

// A rotation that is taken back puts the very text back that an earlier run
// noted, even where nobody could make it anew from the line that is there.
func TestSuccessorIsTheKnownText(t *testing.T) {
	old, next, other := testKey("old"), testKey("next"), testKey("other")
	line := "restrict " + old.String() + " was web"
	for _, test := range []struct {
		name  string
		known []Succession
		want  string
	}{
		{"nothing is known", nil, "restrict " + next.String() + " was web"},
		{"this line succeeded another", []Succession{{Old: "restrict  " + next.String() + "\tweb", New: line}}, "restrict  " + next.String() + "\tweb"},
		{"another line did", []Succession{{Old: "restrict  " + next.String(), New: line + "!"}}, "restrict " + next.String() + " was web"},
		{"what is known is of another key", []Succession{{Old: "restrict  " + other.String(), New: line}}, "restrict " + next.String() + " was web"},
		{"what is known is no line", []Succession{{Old: next.String() + "\n" + next.String(), New: line}}, "restrict " + next.String() + " was web"},
	} {
		data, made, err := addSuccessors([]byte(line+"\n"), old, next, test.known)
		if want := line + "\n" + test.want + "\n"; err != nil || string(data) != want {
			t.Errorf("%s: got %q, %v; want %q", test.name, data, err, want)
		}
		if want := []Succession{{Old: line, New: test.want}}; !slices.Equal(made, want) {
			t.Errorf("%s: noted %q, want %q", test.name, made, want)
		}
	}
}

// The old key leaves a file only where a line of the new one, with the same
// options, is in the very bytes that are replaced.
func TestWithdrawNeedsAnHeir(t *testing.T) {
	old, next := testKey("old"), testKey("next")
	for _, test := range []struct {
		name, file string
		refused    bool
	}{
		{"an heir", "{{old}}\n{{next}}\n", false},
		{"an heir that stands before", "{{next}}\n{{old}}\n", false},
		{"one heir of two lines", "{{old}} 1\n{{old}} 2\n{{next}}\n", false},
		{"no heir", "{{old}}\n{{other}}\n", true},
		{"an heir that is commented out", "{{old}}\n#{{next}}\n", true},
		{"an heir that may less", "{{old}}\nrestrict {{next}}\n", true},
		{"an heir that may more", "restrict {{old}}\n{{next}}\n", true},
		{"an heir from elsewhere", "from=\"10.0.0.1\" {{old}}\nfrom=\"10.0.0.2\" {{next}}\n", true},
		{"an heir of one line of two", "{{old}}\nrestrict {{old}}\nrestrict {{next}}\n", true},
		{"an heir that is an authority", "{{old}}\ncert-authority {{next}}\n", true},
	} {
		file := filled(test.file)
		data, removed, err := withdraw([]byte(file), old, next, "/home/web/.ssh/authorized_keys")
		switch {
		case test.refused && (trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), "/home/web/.ssh/authorized_keys") || data != nil || removed != nil):
			t.Errorf("%s: got %q and error %v, want a Conflict that names the file, and no bytes", test.name, data, err)
		case !test.refused && (err != nil || len(textsOf(data, old)) != 0 || len(textsOf(data, next)) == 0):
			t.Errorf("%s: got %q and error %v", test.name, data, err)
		}
	}
	if data, removed, err := withdraw([]byte(filled("{{old}} 1\n{{other}}\nrestrict {{old}} 2\n")), old, trust.PublicKey{}, "/k"); err != nil ||
		string(data) != filled("{{other}}\n") || len(removed) != 2 {
		t.Errorf("retired: got %q, %q, %v", data, removed, err)
	}
}

// Undoing takes away what the run added and nothing else, whatever others have
// done to the file since.
func TestUndoAuthorizeKeepsWhatWasThere(t *testing.T) {
	next := testKey("next")
	for _, test := range []struct{ name, before, now, want string }{
		{"nobody wrote", "{{old}}\n", "{{old}}\n{{next}}\n", "{{old}}\n"},
		{"someone appended a line", "{{old}}\n", "{{old}}\n{{next}}\n{{other}}\n", "{{old}}\n{{other}}\n"},
		{"someone moved ours", "{{old}}\n", "{{next}}\n{{other}}\n{{old}}\n", "{{other}}\n{{old}}\n"},
		{"someone copied ours", "{{old}}\n", "{{old}}\n{{next}}\n{{next}}\n", "{{old}}\n"},
		{"someone gave ours other options", "{{old}}\n", "{{old}}\nrestrict {{next}}\n", "{{old}}\n"},
		{"a line of the new key was there before", "restrict {{next}} mine\n{{old}}\n", "restrict {{next}} mine\n{{old}}\n{{next}}\n", "restrict {{next}} mine\n{{old}}\n"},
		{"it was there twice", "{{next}}\n{{next}}\n{{old}}\n", "{{next}}\n{{next}}\n{{old}}\n", "{{next}}\n{{next}}\n{{old}}\n"},
		{"it was there once, and someone doubled it", "{{next}}\n{{old}}\n", "{{next}}\n{{next}}\n{{old}}\n", "{{next}}\n{{old}}\n"},
		{"someone took it away since", "restrict {{next}} mine\n{{old}}\n", "{{old}}\n{{next}}\n", "{{old}}\n"},
		{"the old key is gone", "{{old}}\n", "# empty\n{{next}}\n", "# empty\n"},
	} {
		kept := textsOf([]byte(filled(test.before)), next)
		got, err := undoAuthorize([]byte(filled(test.now)), next, kept)
		if err != nil || string(got) != filled(test.want) {
			t.Errorf("%s: got %q, %v; want %q", test.name, got, err, filled(test.want))
		}
	}
}

// A retired key's lines come back where they stood, or, where somebody has
// written the file since, at its end; and never more often than they stood there.
func TestPutBack(t *testing.T) {
	first, second := filled("{{old}} 1"), filled("restrict {{old}} 2")
	lines := []Removed{{At: 1, Text: first, End: "\n"}, {At: 3, Text: second, End: "\n"}}
	twice := []Removed{{At: 0, Text: first, End: "\n"}, {At: 2, Text: first, End: "\n"}}
	for _, test := range []struct {
		name, now string
		lines     []Removed
		want      string
	}{
		{"touched", "# a\n# b\n# c\n", lines, "# a\n# b\n# c\n{{old}} 1\nrestrict {{old}} 2\n"},
		{"one is back already", "# a\n# b\nrestrict {{old}} 2\n", lines, "# a\n# b\nrestrict {{old}} 2\n{{old}} 1\n"},
		{"both are back already", "{{old}} 1\nrestrict {{old}} 2\n", lines, "{{old}} 1\nrestrict {{old}} 2\n"},
		{"it stood twice, and one is back", "{{old}} 1\n# a\n# c\n", twice, "{{old}} 1\n# a\n# c\n{{old}} 1\n"},
		{"no final newline", "# a\r\n# b", lines[:1], "# a\r\n# b\r\n{{old}} 1"},
		{"a line number that cannot be", "# a\n", []Removed{{At: 7, Text: first}}, "# a\n{{old}} 1\n"},
	} {
		for _, untouched := range []bool{false, true} { // a record that is not true of the file
			k := Taken{Lines: test.lines, Before: sum([]byte("another"))}
			if untouched {
				k.SHA256 = sum([]byte(filled(test.now)))
			}
			got, err := putBack([]byte(filled(test.now)), k)
			if err != nil || string(got) != filled(test.want) {
				t.Errorf("%s: got %q, %v; want %q", test.name, got, err, filled(test.want))
			}
			again, err := putBack(got, k)
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("%s: again: got %q, %v; want %q", test.name, again, err, got)
			}
		}
	}
	// Where nobody wrote since, the file is what it was, to the byte.
	for _, before := range []string{
		"# a\n{{old}} 1\n# b\nrestrict {{old}} 2\n", "{{old}}", "{{old}}\n", "{{old}}\r\n", "# a\r\n{{old}}", "# a\r\n# b\n{{old}}", "# a\n{{old}}\r\n# b\n", "# a\n{{old}}\r\n",
		"# a\r\n{{old}}\n# b\r\n", "{{old}}\r\n# b\n", "{{old}}\n{{old}}", "{{old}}\r", "\n\n{{old}}", "{{old}}\r\n\n{{old}} 1\n# b\r\n{{old}} 2", "# b\r", "",
	} {
		whole := []byte(filled(before))
		after, k := takeOut(whole, testKey("old"))
		if got, err := putBack(after, k); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("out of %q came %q, and back %q, %v", whole, after, got, err)
		}
	}
}

// What was put back is taken away again, and nothing else of the same key.
func TestTakeBack(t *testing.T) {
	lines := []Removed{{At: 1, Text: filled("{{old}} 1")}, {At: 3, Text: filled("restrict {{old}} 2")}}
	for _, test := range []struct{ name, before, now, want string }{
		{"nobody wrote", "# a\n", "# a\n{{old}} 1\nrestrict {{old}} 2\n", "# a\n"},
		{"someone added another line of the key", "", "{{old}} 1\nno-pty {{old}} 3\nrestrict {{old}} 2\n", "no-pty {{old}} 3\n"},
		{"one was there before", "{{old}} 1\n", "{{old}} 1\nrestrict {{old}} 2\n", "{{old}} 1\n"},
		{"someone doubled ours", "", "{{old}} 1\n{{old}} 1\n", ""},
		{"it was done already", "{{old}} 1\n", "{{old}} 1\n", "{{old}} 1\n"},
		{"one of ours was there before", "{{old}} 1\n# a\n", "{{old}} 1\n# a\n{{old}} 1\nrestrict {{old}} 2\n", "{{old}} 1\n# a\n"},
	} {
		kept := textsOf([]byte(filled(test.before)), testKey("old"))
		if got := takeBack([]byte(filled(test.now)), lines, kept); string(got) != filled(test.want) {
			t.Errorf("%s: got %q; want %q", test.name, got, filled(test.want))
		}
	}
}

// Whatever a file holds: undoing gives it back byte for byte, adding again adds
// nothing, a rotation and the way back of it leave every line of others where it
// stands, and what a retirement took out comes back byte for byte.
func FuzzEdits(f *testing.F) {
	corpus := filepath.Join("..", "trust", "testdata", "corpus", "authorized_keys")
	entries, err := os.ReadDir(corpus)
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(corpus, e.Name()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(filled(string(text))))
	}
	next := testKey("next")
	f.Fuzz(func(t *testing.T, before []byte) {
		for _, old := range keysIn(before) {
			if old == next {
				continue
			}
			during, made, err := addSuccessors(before, old, next, nil)
			if err != nil {
				t.Fatal(err)
			}
			if again, madeAgain, err := addSuccessors(during, old, next, nil); err != nil || !bytes.Equal(again, during) || !slices.Equal(made, madeAgain) {
				t.Fatalf("added again: got %q, %q, %v; want %q, %q", again, madeAgain, err, during, made)
			}
			undone, err := undoAuthorize(during, next, textsOf(before, next))
			if err != nil || !bytes.Equal(undone, before) {
				t.Fatalf("undone: got %q, %v; want %q", undone, err, before)
			}
			after, removed, err := withdraw(during, old, next, "/k")
			if err != nil || !slices.Equal(removed, textsOf(before, old)) {
				t.Fatalf("withdrawn: got %q, %v", removed, err)
			}
			if got, want := foreign(after, old, next), foreign(before, old, next); !slices.Equal(got, want) {
				t.Fatalf("the lines of others are %q, and were %q", got, want)
			}
			retired, taken := takeOut(before, old)
			restored, err := putBack(retired, taken)
			if err != nil || !bytes.Equal(restored, before) || !bytes.Equal(takeBack(restored, taken.Lines, nil), retired) {
				t.Fatalf("restored: got %q, %v; want %q", restored, err, before)
			}
			if len(textsOf(before, next)) > 0 {
				continue // the way back would take that key's own lines, too
			}
			back, _, err := addSuccessors(after, next, old, made)
			if err != nil {
				t.Fatal(err)
			}
			if back, _, err = withdraw(back, next, old, "/k"); err != nil || !bytes.Equal(back, before) {
				t.Fatalf("there and back: got %q, %v; want %q", back, err, before)
			}
		}
	})
}

// keysIn returns the keys of a file, once each.
func keysIn(data []byte) []trust.PublicKey {
	var keys []trust.PublicKey
	f := trust.ParseAuthorizedKeys(data)
	for _, l := range f.Lines() {
		if l.Kind() == trust.KeyLine && !slices.Contains(keys, l.Key()) {
			keys = append(keys, l.Key())
		}
	}
	return keys
}

// foreign returns the texts of all lines but those of the keys.
func foreign(data []byte, keys ...trust.PublicKey) []string {
	var texts []string
	f := trust.ParseAuthorizedKeys(data)
	for _, l := range f.Lines() {
		if l.Kind() != trust.KeyLine || !slices.Contains(keys, l.Key()) {
			texts = append(texts, l.Text())
		}
	}
	return texts
}
