package trust

import "slices"

// Insert makes text, the exact text of a line without its ending, line number
// at (0 is the first, Len() behind the last). The line ends as the one before
// it; see textLine for the rule. A text that contains a newline is Invalid.
func (f *AuthorizedKeys) Insert(at int, text string) error {
	if at < 0 || at > len(f.lines) {
		return Errorf(Invalid, "no line %d in a file of %d lines", at, len(f.lines))
	}
	if err := checkLine(text); err != nil {
		return err
	}
	f.lines = insertLine(f.lines, at, parseAuthorizedLine(textLine{text: text}))
	return nil
}

// Append makes text the last line of the file. Where the file has no final
// newline, the line before is given one and the new last line has none.
func (f *AuthorizedKeys) Append(text string) error { return f.Insert(len(f.lines), text) }

// RemoveLine takes line i out of the file.
func (f *AuthorizedKeys) RemoveLine(i int) { f.lines = removeLine(f.lines, i) }

// RemoveKey takes every line of key out of the file, honored or not, and returns
// their texts in order. Copies that only Dropbear or TinySSH would find, in
// files whose lines end in "\r" or NUL, it does not see: WouldAccept does.
func (f *AuthorizedKeys) RemoveKey(key PublicKey) []string {
	var texts []string
	for _, i := range slices.Backward(f.Find(key)) {
		texts = append(texts, f.lines[i].text)
		f.RemoveLine(i)
	}
	slices.Reverse(texts)
	return texts
}

// AddSuccessor adds, after each line of old, a line of next with the same
// options byte for byte, the same ending and old's comment. A line of old is
// passed over where a line of next with the same options was in the file
// before, so that doing it again changes nothing. It returns the numbers that
// the added lines have now.
//
// A line of next with other options that stands before old's is left alone, and
// may decide instead of the added one: the first line that grants does.
func (f *AuthorizedKeys) AddSuccessor(old, next PublicKey) []int {
	var present []AuthorizedLine
	for _, i := range f.Find(next) {
		present = append(present, f.lines[i])
	}
	var added []int
	if old == next {
		return nil
	}
	for i := 0; i < len(f.lines); i++ {
		l := f.lines[i]
		if l.kind != KeyLine || l.key != old || slices.ContainsFunc(present, func(p AuthorizedLine) bool { return SameOptions(p, l) }) {
			continue
		}
		i++
		f.lines = insertLine(f.lines, i, parseAuthorizedLine(textLine{text: l.With(next)}))
		added = append(added, i)
	}
	return added
}
