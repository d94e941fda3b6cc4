package rotation

import (
	"slices"
	"testing"

	"keyturn/internal/remote"
)

// A person is told of every address that no known copy explains, once: what they
// were told before, they have decided on.
func TestUnexplainedUses(t *testing.T) {
	uses := []remote.Use{{Source: "192.0.2.1"}, {Source: "192.0.2.7"}, {Source: "192.0.2.8"}, {Source: "192.0.2.7"}}
	known := []string{"192.0.2.1"}
	told := unexplained(uses, known)
	if !slices.Equal(told, []string{"192.0.2.7", "192.0.2.8"}) {
		t.Errorf("a person is told of %q", told)
	}
	if again := unexplained(uses, append(known, told...)); len(again) != 0 {
		t.Errorf("a person is told again of %q", again)
	}
	later := append(uses, remote.Use{Source: "192.0.2.9"})
	if next := unexplained(later, append(known, told...)); !slices.Equal(next, []string{"192.0.2.9"}) {
		t.Errorf("after another use a person is told of %q", next)
	}
}
