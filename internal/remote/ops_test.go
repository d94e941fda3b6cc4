package remote

import (
	"strings"
	"testing"
)

// What ops.go promises of the text of every op.
func TestScriptsAreOneWord(t *testing.T) {
	scripts := map[string]string{"all of them": scriptOf(ops())}
	for _, o := range ops() {
		scripts[o.name] = o.script()
	}
	for name, script := range scripts {
		if strings.ContainsAny(script, "'!\n") || strings.Contains(script, `\\`) {
			t.Errorf("op %s: script contains a quote, an exclamation mark, a newline or a double backslash, which csh or fish would read", name)
		}
		if len(quote(script)) > 8000 && name != "all of them" {
			t.Errorf("op %s: script has %d bytes, and Dropbear takes no command over 9000", name, len(quote(script)))
		}
		t.Logf("op %s: %d bytes", name, len(quote(script)))
	}
}
