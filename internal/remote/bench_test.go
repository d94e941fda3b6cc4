package remote

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
)

// What an operation costs the host, in milliseconds of its processors, and how that
// compares with the least that a durable replacement of a file can be: a shell that
// writes a file beside, syncs it, renames it and syncs the directory.
func BenchmarkOnHost(b *testing.B) {
	need.Root(b)
	v := variants(b)[0]
	text := strings.Repeat("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1sFqZ0QG5p2Sg6Mu2TgGYy3h6dD8b0l8y6Tn0e6g0d someone@somewhere\n", 20)
	floor := measure(b, func(path string, spent *time.Duration) {
		cmd := exec.Command("dash", "-c", `cat >"$1.new" && sync "$1.new" && mv "$1.new" "$1" && sync "$2"`, "sh", path, filepath.Dir(path))
		cmd.Stdin = strings.NewReader(text)
		must(b, cmd.Run())
		*spent += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}, text, 10)
	for name, do := range map[string]func(h *Host, path string) error{
		"hello": func(h *Host, _ string) error { return h.hello(b.Context(), self) },
		"files": func(h *Host, path string) error { _, err := h.Files(b.Context(), "nobody", []string{path}); return err },
		"edit": func(h *Host, path string) error {
			_, err := h.Edit(b.Context(), mine, "nobody", path, func(old []byte) ([]byte, error) { return append(old, "x\n"...), nil })
			return err
		},
		"edit and release": func(h *Host, path string) error {
			_, err := h.Edit(b.Context(), mine, "nobody", path, func(old []byte) ([]byte, error) { return append(old, "x\n"...), nil })
			if err == nil {
				err = h.Release(b.Context(), mine, "nobody", path)
			}
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			var spent time.Duration
			v := v
			v.spent = &spent
			h := v.host(b, nil)
			_, path := home(b, "nobody", text)
			must(b, do(h, path)) // reads the account once
			spent = 0
			for b.Loop() {
				must(b, do(h, path))
			}
			each := spent.Seconds() * 1000 / float64(b.N)
			b.ReportMetric(each, "cpu-ms/op")
			b.ReportMetric(each/floor, "x-floor")
		})
	}
}

// measure returns the processor time of do, in milliseconds.
func measure(b *testing.B, do func(path string, spent *time.Duration), text string, n int) float64 {
	_, path := home(b, "nobody", text)
	var spent time.Duration
	for range n {
		do(path, &spent)
	}
	return spent.Seconds() * 1000 / float64(n)
}
