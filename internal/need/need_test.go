package need

import (
	"flag"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A share has as many cases as asked for, each once and in their order, is the same
// for the same seed and not always the same, and is all of them where the proof is to
// be made whole.
func TestShare(t *testing.T) {
	t.Setenv("KEYTURN_FULL", "")
	t.Setenv("KEYTURN_SOAK", "")
	cases := []int{1, 2, 3, 4, 5, 6, 7, 8, 9}
	drawn := map[int]bool{}
	for range 200 {
		share := Share(t, 3, cases...)
		if len(share) != 3 || !slices.IsSorted(share) || len(slices.Compact(slices.Clone(share))) != 3 {
			t.Fatalf("3 of %v are %v", cases, share)
		}
		for _, c := range share {
			drawn[c] = true
		}
	}
	if len(drawn) != len(cases) {
		t.Errorf("of %v only %v are ever drawn", cases, drawn)
	}
	t.Setenv("KEYTURN_SHARE_SEED", "7")
	if one, other := Share(t, 3, cases...), Share(t, 3, cases...); !slices.Equal(one, other) {
		t.Errorf("one seed draws %v and %v", one, other)
	}
	if share := Share(t, 20, cases...); len(share) != len(cases) {
		t.Errorf("20 of %v are %v", cases, share)
	}
	t.Setenv("KEYTURN_FULL", "1")
	if share := Share(t, 3, cases...); len(share) != len(cases) {
		t.Errorf("the whole of %v is %v", cases, share)
	}
}

// Of the long tests a plain run makes a part, another one each time, and the same for the
// same seed; a whole run makes all, and so does one that asks for a test by its name.
func TestLong(t *testing.T) {
	if testing.Short() {
		t.Skip("long tests are not made with -short")
	}
	t.Setenv("KEYTURN_FULL", "")
	t.Setenv("KEYTURN_SOAK", "")
	byName := flag.Lookup("test.run").Value
	was := byName.String()
	t.Cleanup(func() { _ = byName.Set(was) })
	made := func(pattern string) (names string) {
		t.Helper()
		_ = byName.Set(pattern)
		for i := range 100 {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				Long(t)
				names += t.Name() + " "
			})
		}
		return names
	}
	t.Setenv("KEYTURN_SHARE_SEED", "7")
	one := made("")
	if n := strings.Count(one, " "); n < 10 || n > 50 {
		t.Errorf("of 100 long tests %d are made, want one in %d", n, longShare)
	}
	t.Setenv("KEYTURN_SHARE_SEED", "8")
	if other := made(""); other == one {
		t.Errorf("two seeds have the same tests made: %s", one)
	}
	if n := strings.Count(made("Test"), " "); n != 100 {
		t.Errorf("of 100 long tests that are asked for, %d are made", n)
	}
	t.Setenv("KEYTURN_FULL", "1")
	if n := strings.Count(made(""), " "); n != 100 {
		t.Errorf("of 100 long tests, a whole run makes %d", n)
	}
}
