package trust

import (
	"slices"
	"strings"
)

// Insert makes text, the exact text of a line without its ending, line number
// at. The rules of endings are those of AuthorizedKeys.Insert.
func (f *KnownHosts) Insert(at int, text string) error {
	if at < 0 || at > len(f.lines) {
		return Errorf(Invalid, "no line %d in a file of %d lines", at, len(f.lines))
	}
	if err := checkLine(text); err != nil {
		return err
	}
	f.lines = insertLine(f.lines, at, parseKnownHostLine(textLine{text: text}))
	return nil
}

// Append makes text the last line of the file.
func (f *KnownHosts) Append(text string) error { return f.Insert(len(f.lines), text) }

// RemoveLine takes line i out of the file.
func (f *KnownHosts) RemoveLine(i int) { f.lines = removeLine(f.lines, i) }

// AddSuccessor adds, after each line that gives a host of this name the key old,
// the same line with next, and returns the numbers that the added lines have
// now. Lines with a marker are passed over, and so are those whose names have
// next already, so that doing it again changes nothing.
func (f *KnownHosts) AddSuccessor(name string, old, next PublicKey) []int {
	if old == next {
		return nil
	}
	var present []string
	for _, i := range f.FindKey(next) {
		if f.lines[i].marker == NoMarker {
			present = append(present, f.lines[i].Hosts())
		}
	}
	var added []int
	for i := 0; i < len(f.lines); i++ {
		l := f.lines[i]
		if l.key != old || l.marker != NoMarker || !l.Matches(name) || slices.Contains(present, l.Hosts()) {
			continue
		}
		i++
		f.lines = insertLine(f.lines, i, parseKnownHostLine(textLine{text: l.With(next)}))
		added = append(added, i)
	}
	return added
}

// RemoveKey takes the key away from the host of this name. A line that names
// only this host goes; of a line that names others too only the name goes.
// It returns the texts of the lines as they were, in order. Lines that have a
// marker, or that hold the host by a pattern, stay: left are their numbers.
func (f *KnownHosts) RemoveKey(name string, key PublicKey) (changed []string, left []int) {
	for i := len(f.lines) - 1; i >= 0; i-- {
		l := f.lines[i]
		if l.key != key || !l.Matches(name) {
			continue
		}
		if l.marker != NoMarker || !l.names(name) {
			continue
		}
		changed = append(changed, l.text)
		others := slices.DeleteFunc(strings.Split(l.Hosts(), ","), func(h string) bool { return lowerASCII(h) == lowerASCII(name) })
		if l.Hashed() || !slices.ContainsFunc(others, func(h string) bool { return h != "" && !strings.HasPrefix(h, "!") }) {
			f.RemoveLine(i)
			continue
		}
		text := l.text[:l.hostsAt] + strings.Join(others, ",") + l.text[l.hostsEnd:]
		f.lines[i] = parseKnownHostLine(textLine{text, l.end})
	}
	slices.Reverse(changed)
	for i, l := range f.lines {
		if l.key == key && l.Matches(name) {
			left = append(left, i)
		}
	}
	return changed, left
}

// Replace puts next in the place of old for the host of this name: in each line
// that names the host, all else byte for byte. For a line that names others too,
// that changes what is known of them. It returns the texts of the lines as they
// were. Lines with a marker and lines that hold the host by a pattern stay.
func (f *KnownHosts) Replace(name string, old, next PublicKey) []string {
	var changed []string
	for i, l := range f.lines {
		if l.key == old && l.marker == NoMarker && l.names(name) {
			changed = append(changed, l.text)
			f.lines[i] = parseKnownHostLine(textLine{l.With(next), l.end})
		}
	}
	return changed
}
