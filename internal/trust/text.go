package trust

import (
	"slices"
	"strings"
)

// A textLine is one line of a text file: its text and how it ends ("\n",
// "\r\n", or "" for a last line without a newline).
//
// The rules of this file make adding and removing exact inverses:
//
//   - A file keeps its state at the end: one whose last line has no newline has
//     none after an edit either. A line added behind such a last line gives it
//     the newline that it lacks and is itself without one; removing a last line
//     without a newline takes the newline of the line before it away again.
//   - An added line ends as the line that it follows; in front of the first
//     line, as the first line; behind a last line without an ending, that last
//     line takes the ending of the line before it, or "\n".
//   - A text that itself ends in "\r" is only ever ended by "\r\n", since "\r"
//     and "\n" side by side would be read back as one ending.
type textLine struct {
	text, end string
}

// Text returns the line without its ending, byte for byte.
func (l *textLine) Text() string { return l.text }

// Ending returns how the line ends: "\n", "\r\n", or "" for a last line without
// a newline.
func (l *textLine) Ending() string { return l.end }

func (l *textLine) line() *textLine { return l }

// A lineOf is a pointer to a kind of line that embeds textLine.
type lineOf[L any] interface {
	*L
	line() *textLine
}

// splitLines cuts data into lines, of which joinLines makes data again.
func splitLines(data []byte) []textLine {
	var lines []textLine
	for rest := string(data); rest != ""; {
		text, after, found := strings.Cut(rest, "\n")
		end := ""
		if found {
			end = "\n"
			if strings.HasSuffix(text, "\r") {
				text, end = text[:len(text)-1], "\r\n"
			}
		}
		lines = append(lines, textLine{text, end})
		rest = after
	}
	return lines
}

func joinLines[L any, P lineOf[L]](lines []L) []byte {
	size := 0
	for i := range lines {
		l := P(&lines[i]).line()
		size += len(l.text) + len(l.end)
	}
	data := make([]byte, 0, size)
	for i := range lines {
		l := P(&lines[i]).line()
		data = append(data, l.text...)
		data = append(data, l.end...)
	}
	return data
}

// insertLine returns lines, which it may change, with added as line number at,
// counted from 0.
func insertLine[L any, P lineOf[L]](lines []L, at int, added L) []L {
	a := P(&added).line()
	switch {
	case len(lines) == 0:
		a.end = endingFor(a.text, "\n")
	case at == 0:
		a.end = endingFor(a.text, P(&lines[0]).line().end)
	default:
		before := P(&lines[at-1]).line()
		if before.end != "" {
			a.end = endingFor(a.text, before.end)
			break
		}
		// before is the last line and lacks its newline.
		style := "\n"
		if at > 1 {
			style = P(&lines[at-2]).line().end
		}
		before.end = endingFor(before.text, style)
		a.end = ""
	}
	return slices.Insert(lines, at, added)
}

// removeLine returns lines, which it may change, without line number at.
func removeLine[L any, P lineOf[L]](lines []L, at int) []L {
	if at > 0 && P(&lines[at]).line().end == "" {
		P(&lines[at-1]).line().end = ""
	}
	return slices.Delete(lines, at, at+1)
}

// endingFor returns style, or what must stand in its place after text.
func endingFor(text, style string) string {
	if style == "" {
		style = "\n"
	}
	if strings.HasSuffix(text, "\r") {
		return "\r\n"
	}
	return style
}

// checkLine refuses text that would not be read back as one line.
func checkLine(text string) error {
	if strings.Contains(text, "\n") {
		return Errorf(Invalid, "line %q contains a newline", abbreviate(text))
	}
	return nil
}
