package remote

import (
	"os"
	"strings"
)

// A systemdUnit is what systemctl(1) shows of the unit that starts a server.
type systemdUnit struct {
	name string
	// exec is the value of ExecStart, as in
	// "{ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -i $SSHD_OPTS ; ...", and
	// environment that of Environment.
	exec, environment string
	files             []string // the text of each file of EnvironmentFile=, in order
	unread            []string // those of them that could not be read
}

// argv returns the command line of the unit, its variables expanded as
// systemd.service(5), "Command lines", says.
func (u systemdUnit) argv() (argv []string) {
	_, rest, ok := strings.Cut(u.exec, "argv[]=")
	if !ok {
		return nil
	}
	line, _, _ := strings.Cut(rest, " ; ")
	values := map[string]string{}
	for _, assignment := range splitQuoted(u.environment) {
		name, value, _ := strings.Cut(assignment, "=")
		values[name] = value
	}
	for _, text := range u.files {
		readEnvironment(text, values)
	}
	for _, word := range strings.Fields(line) {
		// $NAME as a word of its own is any number of words, elsewhere and with
		// braces it is a part of one. What is not set is empty.
		if name, ok := strings.CutPrefix(word, "$"); ok && !strings.ContainsAny(name, "{$") {
			argv = append(argv, splitQuoted(values[name])...)
			continue
		}
		argv = append(argv, os.Expand(word, func(name string) string {
			if name == "$" {
				return "$"
			}
			return values[name]
		}))
	}
	return argv
}

// splitQuoted splits at blanks that are in no quotes, and removes the quotes.
func splitQuoted(s string) (words []string) {
	var word strings.Builder
	var quote byte
	inWord := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			word.WriteByte(s[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case quote == 0 && strings.IndexByte(" \t\n\r", c) >= 0:
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

// readEnvironment sets values to what an environment file assigns, in the syntax of
// systemd.exec(5), EnvironmentFile=. Of two assignments the later one holds.
func readEnvironment(text string, values map[string]string) {
	for text != "" {
		text = strings.TrimLeft(text, " \t\r\n")
		if text == "" {
			return
		}
		comment := text[0] == '#' || text[0] == ';'
		end := strings.IndexAny(text, "=\n")
		if comment || end < 0 || text[end] == '\n' {
			text = afterLine(text, comment)
			continue
		}
		name := strings.TrimSpace(text[:end])
		values[name], text = readValue(text[end+1:])
	}
}

// afterLine returns what follows a line that assigns nothing. A backslash makes a
// comment go on.
func afterLine(text string, comment bool) string {
	for i := 0; i < len(text); i++ {
		switch {
		case comment && text[i] == '\\':
			i++
		case text[i] == '\n':
			return text[i+1:]
		}
	}
	return ""
}

// readValue reads a value up to the end of its line. Blanks around it count only
// within quotes, which may begin where it begins or where others end.
func readValue(text string) (value, rest string) {
	var b strings.Builder
	kept := 0 // bytes that are not blanks to be cut off
	begins := true
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\n':
			return b.String()[:kept], text[i+1:]
		case begins && (c == '"' || c == '\''):
			var quoted string
			quoted, i = readQuoted(text, i)
			b.WriteString(quoted)
			kept = b.Len()
		case begins && strings.IndexByte(" \t\r", c) >= 0:
		case c == '\\':
			if begins = false; i+1 < len(text) && text[i+1] != '\n' {
				b.WriteByte(text[i+1])
				kept = b.Len()
			}
			i++
		default:
			begins = false
			b.WriteByte(c)
			if strings.IndexByte(" \t\r", c) < 0 {
				kept = b.Len()
			}
		}
	}
	return b.String()[:kept], ""
}

// readQuoted returns what is between the quote at text[i] and the next one, and where
// that is. Within double quotes a backslash keeps ", \, ` and $ from meaning anything
// and joins two lines.
func readQuoted(text string, i int) (quoted string, end int) {
	var b strings.Builder
	quote := text[i]
	for i++; i < len(text) && text[i] != quote; i++ {
		if quote == '"' && text[i] == '\\' && i+1 < len(text) {
			i++
			switch {
			case text[i] == '\n':
				continue
			case strings.IndexByte("\"\\`$", text[i]) < 0:
				b.WriteByte('\\')
			}
		}
		b.WriteByte(text[i])
	}
	return b.String(), i
}
