package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The main job, on real servers: a key that several accounts accept, with
// options, is rotated, and rolled back byte for byte.
func TestRotateAndRollBack(t *testing.T) {
	w := newWorld(t, 3)
	deploy := w.keyFile(w.dir+"/deploy", "deploy@ci")
	_, stranger := w.dir, w.keyFile(w.dir+"/stranger", "stranger@elsewhere")
	before := make([]string, len(w.servers))
	for i, s := range w.servers {
		f, err := os.OpenFile(w.authorized(i), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "# kept\n%s  two  blanks\nno-pty,command=\"echo \\\"hi\\\"\"  %s deploy@ci\r\n%s last", stranger, deploy, stranger)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		before[i] = w.read(w.authorized(i))
		_ = s
	}
	w.ok("key", "import", w.dir+"/deploy")
	w.ok("scan", "--wait")
	old := w.key(deploy)
	if len(old.Authorized) != 3 || old.Custody != "held" {
		t.Fatalf("the scan found %+v", old)
	}
	preview := w.ok("rotate", old.UUID, "--dry-run")
	if !strings.Contains(preview, "(new key)") || strings.Count(preview, "\n-no-pty") != 3 {
		t.Errorf("dry run printed\n%s", preview)
	}
	for i := range w.servers {
		if w.read(w.authorized(i)) != before[i] {
			t.Fatal("a dry run changed a file")
		}
	}

	var done struct {
		Run, State string
		Keys       []struct {
			Old string
			New []string
		}
		Left []string
	}
	w.json(&done, "rotate", old.UUID, "--wait", "--soak", "0s")
	if done.State != "done" || len(done.Keys) != 1 || len(done.Keys[0].New) != 1 || len(done.Left) != 0 {
		t.Fatalf("rotated: %+v", done)
	}
	var next keyJSON
	w.json(&next, "key", "show", done.Keys[0].New[0])
	for i := range w.servers {
		now := w.read(w.authorized(i))
		want := strings.Replace(before[i], deploy.String(), next.PublicKey, 1)
		if now != want {
			t.Errorf("web%d holds\n%q\nwant\n%q", i+1, now, want)
		}
		w.nothingLeft(i)
	}
	if k := w.key(deploy); k.State != "rotated" || len(k.Authorized) != 0 || len(k.ReplacedBy) != 1 {
		t.Errorf("the old key is %+v", k)
	}

	w.json(&done, "rollback", old.UUID, "--wait")
	if done.State != "done" {
		t.Fatalf("rolled back: %+v", done)
	}
	for i := range w.servers {
		if now := w.read(w.authorized(i)); now != before[i] {
			t.Errorf("web%d holds\n%q\nwant as before\n%q", i+1, now, before[i])
		}
		w.nothingLeft(i)
	}
	if k := w.key(deploy); k.State != "active" || len(k.Authorized) != 3 {
		t.Errorf("the key that came back is %+v", k)
	}
}

// nothingLeft checks that no lock or temporary file lies beside a server's keys.
func (w *world) nothingLeft(i int) {
	w.t.Helper()
	entries, err := os.ReadDir(strings.TrimSuffix(w.authorized(i), "/authorized_keys"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "keyturn") {
			w.t.Errorf("web%d has %s left beside its keys", i+1, e.Name())
		}
	}
}
