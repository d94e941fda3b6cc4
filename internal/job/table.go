package job

import (
	"slices"
)

// A table is what a run keeps of its procedure and its plan, so that a run is
// carried on only by the table it was planned for, and can be shown without
// it. It is stored as JSON.
//
// A table defines one order of stages. A stage is a row and a wave: all
// targets of that wave go through that row, and only when all have (or were
// left) does the next stage begin. Neighbouring rows of a group are a block,
// and so is every other row by itself; blocks follow each other from the top,
// within a block waves follow each other, and within a wave the rows of the
// block. The way back is the same order read from its end.
type table struct {
	Rows   []row        `json:"rows"`
	Turn   string       `json:"turn,omitempty"`
	Canary int          `json:"canary,omitempty"`
	Wave   int          `json:"wave,omitempty"`
	Lists  map[List]int `json:"lists"` // how many targets each list has
	// Starts are the first targets of the waves of a list whose waves Canary and
	// Wave do not tell, because targets of it are to go together.
	Starts map[List][]int `json:"starts,omitempty"`
	// Exclusive are the names of which the run is to be the only one.
	Exclusive []string `json:"exclusive,omitempty"`
}

type row struct {
	Name  string `json:"name"`
	On    List   `json:"on"`
	Group string `json:"group,omitempty"`
	Final bool   `json:"final,omitempty"`
	Undo  bool   `json:"undo,omitempty"`
}

// A stage is a row and a wave of a table, or one of its two ends.
type stage struct{ row, wave int }

var (
	top    = stage{-1, 0}        // before the first stage
	bottom = stage{1<<31 - 1, 0} // after the last one
)

// tableOf returns the table of a run of p, without lists.
func tableOf(p Procedure) table {
	t := table{Turn: p.Turn, Lists: map[List]int{}}
	for _, s := range p.Steps {
		t.Rows = append(t.Rows, row{Name: s.Name, On: s.On, Group: s.Group, Final: s.Final, Undo: s.Undo != nil})
	}
	return t
}

// sameRows reports whether a run planned by t can be carried on by u.
func (t table) sameRows(u table) bool {
	return t.Turn == u.Turn && slices.Equal(t.Rows, u.Rows)
}

// index returns the number of the row of that name, or -1.
func (t table) index(name string) int {
	return slices.IndexFunc(t.Rows, func(r row) bool { return r.Name == name })
}

// waves returns how many waves a list has: none if it is empty.
func (t table) waves(l List) int {
	if starts := t.Starts[l]; starts != nil {
		return len(starts)
	}
	n := t.Lists[l]
	if n == 0 {
		return 0
	}
	canary := min(t.Canary, n)
	waves, rest := 0, n-canary
	if canary > 0 {
		waves = 1
	}
	switch {
	case rest > 0 && t.Wave > 0:
		waves += (rest + t.Wave - 1) / t.Wave
	case rest > 0:
		waves++
	}
	return waves
}

// wave returns the wave of the n-th target of a list.
func (t table) wave(l List, n int) int {
	if starts := t.Starts[l]; starts != nil {
		w, first := slices.BinarySearch(starts, n)
		if !first {
			w--
		}
		return w
	}
	switch {
	case n < t.Canary:
		return 0
	case t.Wave == 0 && t.Canary == 0:
		return 0
	case t.Wave == 0:
		return 1
	case t.Canary == 0:
		return n / t.Wave
	}
	return 1 + (n-t.Canary)/t.Wave
}

// span returns the targets of a stage: those from lo up to, not including, hi.
func (t table) span(s stage) (lo, hi int) {
	list := t.Rows[s.row].On
	n := t.Lists[list]
	if starts := t.Starts[list]; starts != nil {
		if s.wave+1 < len(starts) {
			n = starts[s.wave+1]
		}
		return starts[s.wave], n
	}
	canary := min(t.Canary, n)
	wave := s.wave
	if canary > 0 {
		if wave == 0 {
			return 0, canary
		}
		wave--
	}
	if t.Wave == 0 {
		return canary, n
	}
	return min(canary+wave*t.Wave, n), min(canary+(wave+1)*t.Wave, n)
}

// keepTogether moves the ends of waves behind targets that go with the one before
// them.
func (t *table) keepTogether(l List, targets []Target) {
	starts := []int{0}
	moved := false
	for n := 1; n < len(targets); n++ {
		// A wave ends where it would have, or as soon after that as it can.
		due := t.wave(l, n) > t.wave(l, starts[len(starts)-1]) // both by Canary and Wave
		switch {
		case due && !targets[n].With:
			starts = append(starts, n)
		case due:
			moved = true
		}
	}
	if !moved {
		return
	}
	if t.Starts == nil {
		t.Starts = map[List][]int{}
	}
	t.Starts[l] = starts
}

// block returns the first and the last row of the block that a row is in.
func (t table) block(row int) (first, last int) {
	first, last = row, row
	if g := t.Rows[row].Group; g != "" {
		for first > 0 && t.Rows[first-1].Group == g {
			first--
		}
		for last+1 < len(t.Rows) && t.Rows[last+1].Group == g {
			last++
		}
	}
	return first, last
}

// next returns the stage after s in the given direction, or bottom or top.
func (t table) next(s stage, d Direction) stage {
	if d == Backward {
		return t.previous(s)
	}
	at := 0
	if s != top {
		first, last := t.block(s.row)
		if s.row < last {
			return stage{s.row + 1, s.wave}
		}
		if s.wave+1 < t.waves(t.Rows[s.row].On) {
			return stage{first, s.wave + 1}
		}
		at = last + 1
	}
	for ; at < len(t.Rows); at++ {
		if t.waves(t.Rows[at].On) > 0 {
			return stage{at, 0}
		}
	}
	return bottom
}

func (t table) previous(s stage) stage {
	at := len(t.Rows) - 1
	if s != bottom {
		first, last := t.block(s.row)
		if s.row > first {
			return stage{s.row - 1, s.wave}
		}
		if s.wave > 0 {
			return stage{last, s.wave - 1}
		}
		at = first - 1
	}
	for ; at >= 0; at-- {
		if n := t.waves(t.Rows[at].On); n > 0 {
			return stage{at, n - 1}
		}
	}
	return top
}

// passed returns how many targets of a row, from the first on, belong to waves
// that were through it before stage s began.
func (t table) passed(s stage, row int) int {
	switch s {
	case top:
		return 0
	case bottom:
		return t.Lists[t.Rows[row].On]
	}
	first, last := t.block(s.row)
	switch {
	case row < first:
		return t.Lists[t.Rows[row].On]
	case row > last:
		return 0
	}
	lo, hi := t.span(stage{row, s.wave})
	if row < s.row {
		return hi
	}
	return lo
}
