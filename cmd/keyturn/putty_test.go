package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// A key of PuTTY's is imported with its comment. One whose comment is in the code
// page of some Windows could not arrive as it is, and is not said to be damaged.
func TestImportPuTTYsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	program := need.Program(t, "puttygen", "putty-tools")
	puttygen := func(args ...string) string {
		out, err := exec.Command(program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("puttygen %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	ppk, passphrase := filepath.Join(w.dir, "deploy.ppk"), filepath.Join(w.dir, "passphrase")
	w.write(passphrase, "correct horse")
	puttygen("-t", "ed25519", "-q", "--random-device", "/dev/urandom", "-C", "deploy@windows", "--new-passphrase", passphrase, "--ppk-param", "memory=64,passes=1", "-o", ppk)

	if code, _, errs := w.try("key", "import", ppk); code == 0 || !strings.Contains(errs, "--passphrase-stdin") {
		t.Errorf("import without a passphrase: exit %d, %s", code, errs)
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), w.environ, []string{"key", "import", ppk, "--passphrase-stdin", "--json"}, strings.NewReader("correct horse\n"), &out, &errs); code != 0 {
		t.Fatalf("import: exit %d, %s", code, errs.String())
	}
	var k keyJSON
	if err := json.Unmarshal(out.Bytes(), &k); err != nil {
		t.Fatal(err)
	}
	if want := puttygen(ppk, "-O", "public-openssh"); k.PublicKey+" "+k.Comment != want || k.Custody != "held" {
		t.Errorf("imported as %+v, want %q", k, want)
	}

	w.write(ppk, strings.Replace(w.read(ppk), "windows", "w\xefndows", 1))
	if code, _, errs := w.try("key", "import", ppk); code == 0 || !strings.Contains(errs, "is not UTF-8") || !strings.Contains(errs, "hint: puttygen") {
		t.Errorf("import of a comment in ISO 8859-1: exit %d, %s", code, errs)
	}
}
