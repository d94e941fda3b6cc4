package job

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawTable makes a table with groups, waves and empty lists, of which some
// targets go with the one before them.
func drawTable(t *rapid.T) (table, map[List][]Target) {
	lists := []List{Once, "a", "b"}
	tb := table{
		Canary: rapid.IntRange(0, 4).Draw(t, "canary"),
		Wave:   rapid.IntRange(0, 4).Draw(t, "wave"),
		Lists:  map[List]int{Once: 1, "a": rapid.IntRange(0, 12).Draw(t, "a"), "b": rapid.IntRange(0, 3).Draw(t, "b")},
	}
	for g := range rapid.IntRange(1, 5).Draw(t, "blocks") {
		on := rapid.SampledFrom(lists).Draw(t, "on")
		n, group := rapid.IntRange(1, 3).Draw(t, "rows"), ""
		if n > 1 || rapid.Bool().Draw(t, "grouped") {
			group = string(rune('A' + g))
		}
		for i := range n {
			tb.Rows = append(tb.Rows, row{Name: string(rune('a'+g)) + string(rune('0'+i)), On: on, Group: group})
		}
	}
	targets := map[List][]Target{}
	for l, n := range tb.Lists {
		for range n {
			targets[l] = append(targets[l], Target{With: rapid.IntRange(0, 4).Draw(t, "with") == 0})
		}
		tb.keepTogether(l, targets[l])
	}
	return tb, targets
}

// Every target goes through every row of its list exactly once, in an order in
// which no row begins before the row above is complete but inside a group, and
// there no wave before the one before it is complete. The way back is that
// order reversed.
func TestOrderOfStages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tb, targets := drawTable(t)
		var order []stage
		for s := tb.next(top, Forward); s != bottom; s = tb.next(s, Forward) {
			order = append(order, s)
			if len(order) > 1000 {
				t.Fatal("stages do not end")
			}
		}
		type cell struct{ row, n int }
		seen := map[cell]bool{}
		for _, s := range order {
			lo, hi := tb.span(s)
			if lo >= hi {
				t.Fatalf("stage %v is empty", s)
			}
			first, last := tb.block(s.row)
			for r := range tb.Rows {
				on := tb.Rows[r].On
				for n := range tb.Lists[on] {
					wave := tb.wave(on, n)
					before := r < first || (r >= first && r <= last && (wave < s.wave || wave == s.wave && r < s.row))
					if before != seen[cell{r, n}] {
						t.Fatalf("when stage %v begins, row %d of target %d: done %v, want %v", s, r, n, seen[cell{r, n}], before)
					}
				}
			}
			for n := lo; n < hi; n++ {
				if wave := tb.wave(tb.Rows[s.row].On, n); wave != s.wave {
					t.Fatalf("target %d is in wave %d, not in stage %v", n, wave, s)
				}
				seen[cell{s.row, n}] = true
			}
		}
		var back []stage
		for s := tb.next(bottom, Backward); s != top; s = tb.next(s, Backward) {
			back = append(back, s)
		}
		slices.Reverse(back)
		if !slices.Equal(back, order) {
			t.Fatalf("forward %v, back from the end %v", order, back)
		}
		// Waves end where the counts say, or behind those that go with the last
		// one.
		counts := table{Canary: tb.Canary, Wave: tb.Wave, Lists: tb.Lists}
		for l, list := range targets {
			for n := 1; n < len(list); n++ {
				apart := counts.wave(l, n) != counts.wave(l, n-1)
				switch ends := tb.wave(l, n) != tb.wave(l, n-1); {
				case ends && list[n].With:
					t.Fatalf("target %d of %q does not go with the one before it", n, l)
				case apart && !ends && !list[n].With:
					t.Fatalf("the wave of %q does not end before target %d", l, n)
				}
			}
		}
	})
}
