package remote

import (
	"strings"
	"testing"
)

// What ops.go promises of the text of every op.
func TestScriptsAreOneWord(t *testing.T) {
	scripts := map[string]string{"all of them": scriptOf(ops()), "the shell that stays": shellScript()}
	for _, o := range ops() {
		scripts[o.name] = o.script()
	}
	for name, script := range scripts {
		if strings.ContainsAny(script, "'!\n") || strings.Contains(script, `\\`) {
			t.Errorf("op %s: script contains a quote, an exclamation mark, a newline or a double backslash, which csh or fish would read", name)
		}
		t.Logf("op %s: %d bytes", name, len(quote(script)))
	}
	for _, o := range ops() {
		if n := len(quote(o.script())); n > 8000 {
			t.Errorf("op %s: script has %d bytes, and Dropbear takes no command over 9000", o.name, n)
		}
	}
}
