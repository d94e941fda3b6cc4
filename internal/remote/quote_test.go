package remote

import (
	"os/exec"
	"path/filepath"
	"testing"

	"keyturn/internal/need"
)

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "it's", `b\s`, `b\\s`, `\'`, `'\''`, "$HOME `x` !! \"q\" *", "\t;&|<>"} {
		for _, v := range variants(t) {
			out, err := exec.Command(v.sh, "-c", "printf %s "+quote(s)).Output()
			if err != nil || string(out) != s {
				t.Errorf("%s reads %q as %q, %v", v.name, s, out, err)
			}
		}
	}
}

// Login shells that are no POSIX shells pass ops on as they are.
func TestLoginShells(t *testing.T) {
	need.Root(t)
	v := variants(t)[0]
	for _, name := range []string{"tcsh", "fish", "zsh", "ksh", "mksh"} {
		t.Run(name, func(t *testing.T) {
			shell, err := exec.LookPath(name)
			if err != nil {
				need.Optional(t, "%s is not installed", name)
			}
			v := v
			v.sh = shell
			h := v.host(t, nil, "SSH_CONNECTION=192.0.2.7 4000 192.0.2.1 22")
			dir, _ := home(t, "nobody", "absent")
			for _, name := range []string{"it's", "wow!", `b\\s`, "$HOME `x`"} {
				path := filepath.Join(dir, ".ssh", name)
				_, err := h.Edit(t.Context(), mine, "nobody", path, add("line"))
				must(t, err)
				if got := content(t, path); got != "line\n" {
					t.Errorf("%q", got)
				}
				must(t, h.Release(t.Context(), mine, "nobody", path))
			}
		})
	}
}
