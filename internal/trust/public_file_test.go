package trust

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"keyturn/internal/need"
)

// asks runs a program, an oracle of this file, on a file of that content, which is
// the argument "FILE", and returns its output.
func asks(t *testing.T, content []byte, program string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range args {
		if args[i] == "FILE" {
			args[i] = path
		}
	}
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, content)
	}
	return string(out)
}

var (
	plainKinds  = []string{"ed25519", "ecdsa256", "ecdsa384", "ecdsa521", "rsa", "rsa16384"}
	publicKinds = append([]string{"sk-ed25519", "sk-ecdsa", "cert"}, plainKinds...)
)

// What we write, ssh-keygen reads as the same key, and openssl where it is its
// format; and so do we.
func TestPublicFilesAreReadByOthers(t *testing.T) {
	t.Parallel()
	keygen, openssl := need.Program(t, "ssh-keygen", "openssh-client"), need.Program(t, "openssl", "openssl")
	const comment = "alice: at home"
	for _, kind := range publicKinds {
		key := testKey(t, kind, "alice")
		for _, format := range PublicFormats {
			text, err := key.PublicFile(format, comment)
			if format == PublicPKCS8 && (strings.HasPrefix(kind, "sk-") || kind == "cert") {
				if KindOf(err) != Invalid || !strings.Contains(err.Error(), key.Type()) {
					t.Errorf("%s as %s: %v, want it refused by name", kind, format, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s as %s: %v", kind, format, err)
				continue
			}
			wantComment := comment
			if format == PublicPKCS8 {
				wantComment = ""
			}
			again, gotComment, gotFormat, err := ParsePublicFile(text)
			if err != nil || again != key || gotComment != wantComment || gotFormat != format {
				t.Errorf("%s as %s reads back as %s %q in %q, %v", kind, format, again, gotComment, gotFormat, err)
			}
			var got string
			switch {
			case format == PublicOpenSSH:
				got = asks(t, text, keygen, "-l", "-f", "FILE")
				if !strings.Contains(got, string(key.Plain().Fingerprint())+" "+comment+" ") {
					t.Errorf("%s: ssh-keygen -l says %q, want %s", kind, got, key.Plain().Fingerprint())
				}
				continue
			case format == PublicRFC4716:
				got = asks(t, text, keygen, "-i", "-f", "FILE")
			case kind == "ed25519": // which ssh-keygen does not read so
				if same := asks(t, text, openssl, "pkey", "-pubin", "-in", "FILE", "-pubout"); same != string(text) {
					t.Errorf("openssl writes\n%s, we\n%s", same, text)
				}
				continue
			default:
				got = asks(t, text, keygen, "-i", "-m", "PKCS8", "-f", "FILE")
			}
			if strings.TrimSpace(got) != key.String() {
				t.Errorf("%s as %s: ssh-keygen -i says %s, want %s", kind, format, got, key)
			}
		}
	}
}

// What ssh-keygen and puttygen write, we read as the key that it was.
func TestReadsPublicFilesOfOthers(t *testing.T) {
	t.Parallel()
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	for _, kind := range publicKinds {
		key := testKey(t, kind, "alice")
		line := []byte(key.String() + " alice\n")
		for m, format := range map[string]PublicFormat{"RFC4716": PublicRFC4716, "PKCS8": PublicPKCS8} {
			if m == "PKCS8" && !strings.HasPrefix(kind, "rsa") && !strings.HasPrefix(kind, "ecdsa") {
				continue
			}
			text := asks(t, line, keygen, "-e", "-m", m, "-f", "FILE")
			got, comment, gotFormat, err := ParsePublicFile([]byte(text))
			if err != nil || got != key || gotFormat != format {
				t.Errorf("%s as %s: read %s in %q, %v", kind, m, got, gotFormat, err)
			}
			if m == "RFC4716" && !strings.Contains(comment, "converted by") {
				t.Errorf("%s as %s: comment %q, want ssh-keygen's", kind, m, comment)
			}
			if crlf := strings.ReplaceAll(text, "\n", "\r\n"); crlf != text {
				if got, _, _, err := ParsePublicFile([]byte("\ufeff" + crlf)); err != nil || got != key {
					t.Errorf("%s as %s with a mark and CR LF: read %s, %v", kind, m, got, err)
				}
			}
		}
	}

	// puttygen writes the whole comment into one line, however long.
	dir := t.TempDir()
	id, public := filepath.Join(dir, "id"), filepath.Join(dir, "id.public")
	long := strings.Repeat("a long comment: ", 12) + "end"
	for _, args := range [][]string{
		{keygen, "-q", "-t", "ed25519", "-N", "", "-C", long, "-f", id},
		{need.Program(t, "puttygen", "putty-tools"), id, "-O", "public", "-o", public},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	text, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(id + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if got, comment, _, err := ParsePublicFile(text); err != nil || got != mustKey(t, string(line)) || comment != long {
		t.Errorf("read %s %q, %v, want %s", got, comment, err, line)
	}
}

func TestParsePublicFileRefuses(t *testing.T) {
	t.Parallel()
	openssl := need.Program(t, "openssl", "openssl")
	key := testKey(t, "ed25519", "alice")
	rfc4716, err := key.PublicFile(PublicRFC4716, "alice")
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := key.PublicFile(PublicPKCS8, "")
	if err != nil {
		t.Fatal(err)
	}
	spki := func(args ...string) string {
		private, err := exec.Command(openssl, args...).Output()
		if err != nil {
			t.Fatalf("openssl %q: %v", args, err)
		}
		return asks(t, private, openssl, "pkey", "-in", "FILE", "-pubout")
	}
	small, err := testKey(t, "rsa768", "alice").PublicFile(PublicRFC4716, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ file, want string }{
		"nothing":         {"", "not of the form"},
		"words":           {"hello there\n", "not base64"},
		"two keys":        {key.String() + "\n" + key.String() + "\n", "more than one line"},
		"too large":       {strings.Repeat("x", MaxPublicFile+1), "larger than"},
		"no end":          {string(rfc4716[:len(rfc4716)-5]), "at its end"},
		"no base64":       {strings.Replace(string(rfc4716), "\nAAAA", "\n!!!!", 1), "not base64"},
		"no body":         {rfc4716Begin + "\n" + rfc4716End, "does not start with a key type"},
		"cut pem":         {string(pkcs8[:len(pkcs8)-10]), "damaged"},
		"damaged pem":     {strings.Replace(string(pkcs8), "MCo", "MCp", 1), "asn1"},
		"small rsa":       {string(small), "768 bits"},
		"short key":       {testKey(t, "short", "alice").String(), "malformed"},
		"off the curve":   {testKey(t, "offcurve", "alice").String(), "malformed"},
		"ed448":           {spki("genpkey", "-algorithm", "ed448"), "public key algorithm"},
		"x25519":          {spki("genpkey", "-algorithm", "x25519"), "SSH does not use"},
		"p-224":           {spki("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"), "SSH does not use"},
		"private instead": {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "public key"},
	} {
		if got, _, _, err := ParsePublicFile([]byte(c.file)); KindOf(err) != Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s, %v, want %q of kind invalid", name, got, err, c.want)
		}
	}
	for _, comment := range []string{"two\nlines", "a bell \a", "\xff"} {
		if text, err := key.PublicFile(PublicOpenSSH, comment); KindOf(err) != Invalid {
			t.Errorf("comment %q: %q, %v, want an error of kind invalid", comment, text, err)
		}
	}
	if text, err := (PublicKey{}).PublicFile(PublicOpenSSH, ""); KindOf(err) != Invalid {
		t.Errorf("no key: %q, %v, want an error of kind invalid", text, err)
	}
	if text, err := key.PublicFile("pem", ""); KindOf(err) != Invalid {
		t.Errorf("no format: %q, %v, want an error of kind invalid", text, err)
	}
}

// A comment that does not fit into its line is cut where a character ends.
func TestRFC4716Comment(t *testing.T) {
	key := testKey(t, "ed25519", "alice")
	for n := range 80 {
		comment := strings.Repeat("x", n) + strings.Repeat("\u00fc", 10)
		text, err := key.PublicFile(PublicRFC4716, comment)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if len(strings.TrimSuffix(line, "\n")) > 72 {
				t.Errorf("line %q is longer than 72 bytes", line)
			}
		}
		got, gotComment, _, err := ParsePublicFile(text)
		if err != nil || got != key || !strings.HasPrefix(comment, gotComment) || !utf8.ValidString(gotComment) || len(gotComment) < min(len(comment), 59) {
			t.Errorf("comment %q is read as %q, %v", comment, gotComment, err)
		}
	}
	for header, want := range map[string]string{
		"comment: no quotes":               "no quotes",
		`Comment: "one quote`:              `"one quote`,
		"Comment: \"folded \\\nhere\\\n\"": "folded here",
		"Subject: alice\nx-a: b":           "",
		"Comment:":                         "",
	} {
		text := strings.Replace(rfc4716Begin+"\n"+header+"\nBLOB\n"+rfc4716End, "BLOB", strings.Fields(key.String())[1], 1)
		if got, comment, _, err := ParsePublicFile([]byte(text)); err != nil || got != key || comment != want {
			t.Errorf("%q: read %s with comment %q, %v, want %q", header, got, comment, err, want)
		}
	}
}

// What is read as a key is written so that it is read as the same key.
func FuzzPublicFile(f *testing.F) {
	for _, kind := range publicKinds {
		for _, format := range PublicFormats {
			if text, err := testKey(f, kind, "alice").PublicFile(format, "alice"); err == nil {
				f.Add(text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		key, _, _, err := ParsePublicFile(file)
		if err != nil {
			if KindOf(err) != Invalid {
				t.Fatalf("%v is of kind %v", err, KindOf(err))
			}
			return
		}
		for _, format := range PublicFormats {
			text, err := key.PublicFile(format, "comment")
			if err != nil && format == PublicPKCS8 {
				continue // a type, or an exponent, that it is not used for here
			}
			if err != nil {
				t.Fatal(err)
			}
			if again, comment, _, err := ParsePublicFile(text); err != nil || again != key || format != PublicPKCS8 && comment != "comment" {
				t.Fatalf("%s reads back as %s %q, %v", key, again, comment, err)
			}
		}
	})
}
