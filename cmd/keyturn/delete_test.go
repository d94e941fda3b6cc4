package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// A key is deleted only where it lies nowhere, and comes back as it was.
func TestDeleteAndRestoreKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	refused := func(says string, args ...string) {
		t.Helper()
		if code, out, errs := w.try(args...); code == 0 || !strings.Contains(errs, says) {
			t.Errorf("keyturn %s: exit %d, %s%s; want %q", strings.Join(args, " "), code, out, errs, says)
		}
	}
	states := func(args ...string) (list []string) {
		var keys []keyJSON
		w.json(&keys, append([]string{"key", "list"}, args...)...)
		for _, k := range keys {
			list = append(list, k.UUID+" "+k.State)
		}
		return list
	}

	var k, deleted keyJSON
	w.json(&k, "key", "generate")
	before := states()
	w.json(&[]keyJSON{}, "key", "delete", k.UUID)
	if now := states(); len(now) != len(before)-1 || strings.Contains(strings.Join(now, ","), k.UUID) {
		t.Errorf("a deleted key is listed: %q", now)
	}
	if now := states("--state", "deleted"); len(now) != 1 || now[0] != k.UUID+" deleted" {
		t.Errorf("the deleted keys are %q", now)
	}
	refused("is deleted, not active", "rotate", k.UUID)
	if out := w.ok("__complete", "key", "restore", ""); !strings.Contains(out, k.UUID) {
		t.Errorf("restore completes to\n%s", out)
	}
	w.json(&deleted, "key", "restore", k.UUID)
	if deleted.State != "active" || deleted.Custody != "held" {
		t.Errorf("restored as %+v", deleted)
	}
	refused("not deleted", "key", "restore", k.UUID)
	if out := w.ok("key", "delete", k.UUID); !strings.Contains(out, k.UUID+" is deleted, and can be restored until 20") {
		t.Errorf("delete says %q", out)
	}
	w.ok("key", "restore", k.UUID)

	// Of keys that lie somewhere it is said where.
	ops := w.key(w.parse(w.heldBy(w.ops)))
	refused("accepted in web1:root:"+w.authorized(0), "key", "delete", ops.UUID)
	in, identity := w.inPlace()
	refused("used from web1:root:"+identity, "key", "delete", in.UUID)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	held := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "")
	var r runJSON
	w.json(&r, "rotate", held.UUID, "--wait", "--soak", "0s")
	refused("is rotated, and is kept for going back", "key", "delete", held.UUID)
	next := r.Keys[0].New[0]
	w.json(&r, "rotate", next, "--soak", "1h")
	refused("is in run "+r.Run, "key", "delete", next)
	refused("there is no key", "key", "delete", someKey)
	refused("key delete", "retire", k.UUID)
}

// ssh-keygen reads back what is exported, in each format.
func TestExportKey(t *testing.T) {
	t.Parallel()
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	w := newWorld(t, 0)
	for _, spec := range [][]string{{"ed25519"}, {"ecdsa-p384"}, {"rsa", "--bits", "2048"}} {
		var k keyJSON
		w.json(&k, append([]string{"key", "generate", "--comment", "deploy key, of ci", "--type"}, spec...)...)
		for format, kind := range map[string]string{"openssh": "", "rfc4716": "RFC4716", "pkcs8": "PKCS8"} {
			file := filepath.Join(t.TempDir(), "key.pub")
			w.write(file, w.ok("key", "export", k.UUID, "--format", format))
			args := []string{"-lf", file}
			if kind != "" {
				args = []string{"-i", "-m", kind, "-f", file}
			}
			out, err := exec.Command(keygen, args...).CombinedOutput()
			switch {
			case format == "pkcs8" && k.Type == "ssh-ed25519" && err != nil: // ssh-keygen before 9.6
			case kind == "" && !strings.Contains(string(out), k.Fingerprint), kind != "" && !strings.Contains(string(out), k.PublicKey), err != nil:
				t.Errorf("%s as %s: ssh-keygen says %v %s", k.Type, format, err, out)
			}
		}
	}
}
