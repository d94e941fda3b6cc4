package trust

import "slices"

// An Undone is what UndoAuthorizedKeys made of a file.
type Undone struct {
	// File is the file as it should be now.
	File *AuthorizedKeys
	// Removed and Restored are the lines that were taken away and put back.
	Removed, Restored []string
	// Left are lines, by their number in File, that hold a key of ours but
	// that someone has given other options since. They were not touched.
	Left []int
}

// UndoAuthorizedKeys takes back in now what led from before to after, line by
// line, and keeps what others did since.
//
// A line that is in after more often than in before was added, and is taken
// away: the same text, or else a line with the same key and the same options
// whose comment was changed since. A line that is in before more often than in
// after was removed, and is put back unless someone did so already: behind the
// nearest line that preceded it and is still there, else in front of the nearest
// that followed, else at the end. Where now is after, the result is before, byte
// for byte.
func UndoAuthorizedKeys(before, after, now []byte) Undone {
	if string(now) == string(after) {
		was, is := ParseAuthorizedKeys(before), ParseAuthorizedKeys(after)
		return Undone{File: was, Removed: surplus(is, was), Restored: surplus(was, is)}
	}
	was, is, f := ParseAuthorizedKeys(before), ParseAuthorizedKeys(after), ParseAuthorizedKeys(now)
	u := Undone{File: f}
	for _, text := range surplus(is, was) {
		ours := parseAuthorizedLine(textLine{text: text})
		at := lastLine(f, func(l AuthorizedLine) bool { return l.text == text })
		if at < 0 && ours.kind == KeyLine {
			at = lastLine(f, func(l AuthorizedLine) bool {
				return l.kind == KeyLine && l.key == ours.key && l.OptionsText() == ours.OptionsText() && !holds(was, l.text)
			})
		}
		if at >= 0 {
			u.Removed = append(u.Removed, f.lines[at].text)
			f.RemoveLine(at)
		}
	}
	for _, text := range surplus(was, is) {
		if count(f, text) < count(was, text) {
			f.lines = insertLine(f.lines, homeOf(was, f, text), parseAuthorizedLine(textLine{text: text}))
			u.Restored = append(u.Restored, text)
		}
	}
	for _, text := range surplus(is, was) {
		ours := parseAuthorizedLine(textLine{text: text})
		for i, l := range f.lines {
			if ours.kind == KeyLine && l.kind == KeyLine && l.key == ours.key && !holds(was, l.text) && !slices.Contains(u.Left, i) {
				u.Left = append(u.Left, i)
			}
		}
	}
	slices.Sort(u.Left)
	return u
}

// surplus returns the texts of the lines that are in a more often than in b, in
// a's order: of equal lines the later ones.
func surplus(a, b *AuthorizedKeys) []string {
	have := map[string]int{}
	for _, l := range b.lines {
		have[l.text]++
	}
	var texts []string
	for _, l := range a.lines {
		if have[l.text]--; have[l.text] < 0 {
			texts = append(texts, l.text)
		}
	}
	return texts
}

// homeOf returns where in f the line text of was belongs. Only lines that f has
// once tell the place: blank lines do not.
func homeOf(was, f *AuthorizedKeys, text string) int {
	only := map[string]int{}
	for i, l := range f.lines {
		if _, again := only[l.text]; again {
			i = -1
		}
		only[l.text] = i
	}
	at := slices.IndexFunc(was.lines, func(l AuthorizedLine) bool { return l.text == text })
	for i := at - 1; i >= 0; i-- {
		if j, ok := only[was.lines[i].text]; ok && j >= 0 {
			return j + 1
		}
	}
	for i := at + 1; i < len(was.lines); i++ {
		if j, ok := only[was.lines[i].text]; ok && j >= 0 {
			return j
		}
	}
	return len(f.lines)
}

func holds(f *AuthorizedKeys, text string) bool { return count(f, text) > 0 }

func count(f *AuthorizedKeys, text string) int {
	n := 0
	for _, l := range f.lines {
		if l.text == text {
			n++
		}
	}
	return n
}

func lastLine(f *AuthorizedKeys, ok func(AuthorizedLine) bool) int {
	for i, l := range slices.Backward(f.lines) {
		if ok(l) {
			return i
		}
	}
	return -1
}
