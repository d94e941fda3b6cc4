package trust

import (
	"slices"
	"strings"
)

// configSpace is what separates words in sshd_config.
const configSpace = " \t\r\n"

// A delimited text is read word by word the way of strdelim: words are
// separated by blanks or one "="; quotes keep blanks in a word.
type delimited struct {
	rest  string
	ended bool
}

// next returns the next word. There is none behind the last word, or where a
// quote is never closed.
func (d *delimited) next() (string, bool) {
	if d.ended {
		return "", false
	}
	at := strings.IndexAny(d.rest, configSpace+`"=`)
	if at < 0 {
		d.ended = true
		return d.rest, true
	}
	word, rest := d.rest[:at], d.rest[at+1:]
	if d.rest[at] == '"' {
		quoted, after, closed := strings.Cut(rest, `"`)
		if !closed {
			d.ended = true
			return "", false
		}
		d.rest = strings.TrimLeft(after, configSpace)
		return word + quoted, true
	}
	equals := d.rest[at] == '='
	rest = strings.TrimLeft(rest, configSpace)
	if !equals && strings.HasPrefix(rest, "=") {
		rest = strings.TrimLeft(rest[1:], configSpace)
	}
	d.rest = rest
	return word, true
}

// splitArguments cuts what follows a keyword into words. From 8.7 on, quotes and
// backslashes are read as by a shell and a "#" starts a comment (argv_split);
// before, words are read one by one (strdelim), and comments are cut off before.
func splitArguments(s string, v ServerVersion) ([]string, error) {
	if !v.AtLeast(8, 7) {
		var args []string
		d := delimited{rest: s}
		for word, ok := d.next(); ok && word != ""; word, ok = d.next() {
			args = append(args, word)
		}
		return args, nil
	}
	var args []string
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' || s[i] == '\t' {
			continue
		}
		if s[i] == '#' {
			break
		}
		var word strings.Builder
		quote := byte(0)
		for ; i < len(s); i++ {
			c, next := s[i], byte(0)
			if i+1 < len(s) {
				next = s[i+1]
			}
			switch {
			case c == '\\' && (next == '\'' || next == '"' || next == '\\' || quote == 0 && next == ' '):
				i++
				word.WriteByte(next)
				continue
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
				continue
			case quote != 0 && c == quote:
				quote = 0
				continue
			}
			if quote == 0 && (c == ' ' || c == '\t') {
				break
			}
			word.WriteByte(c)
		}
		if quote != 0 {
			return nil, Errorf(Invalid, "invalid quotes in %q", abbreviate(s))
		}
		args = append(args, word.String())
	}
	return args, nil
}

// match evaluates the criteria of a Match line, all of which must hold
// (match_cfg_line). Without a connection only "all" does.
func (e *evaluator) match(rest string, args []string) (bool, error) {
	criteria := args
	if !e.version.AtLeast(9, 9) {
		// Older releases read the line by strdelim even where other lines
		// are read as by a shell.
		criteria = nil
		d := delimited{rest: rest}
		for word, ok := d.next(); ok && word != ""; word, ok = d.next() {
			criteria = append(criteria, word)
		}
	}
	conn := e.conn
	if e.neverMatch {
		conn = nil
	}
	result, count := true, 0
	for len(criteria) > 0 && !strings.HasPrefix(criteria[0], "#") {
		name, argument, joined := strings.Cut(criteria[0], "=")
		if !e.version.AtLeast(9, 9) {
			name, argument, joined = criteria[0], "", false
		}
		name = lowerASCII(name)
		criteria = criteria[1:]
		count++
		switch name {
		case "all":
			if count > 1 || len(criteria) > 0 && criteria[0] != "" && criteria[0][0] != '#' {
				return false, Errorf(Invalid, "Match all cannot be combined with other criteria")
			}
			return true, nil
		case "invalid-user":
			result = result && conn != nil && conn.InvalidUser
			continue
		}
		if !joined && len(criteria) > 0 {
			argument, criteria = criteria[0], criteria[1:]
		}
		if argument == "" || argument[0] == '#' {
			return false, Errorf(Invalid, "Match %s lacks an argument", name)
		}
		holds, err := e.criterion(name, argument, conn)
		if err != nil {
			return false, err
		}
		result = result && holds
	}
	if count == 0 {
		return false, Errorf(Invalid, "Match lacks criteria")
	}
	return result, nil
}

// criterion evaluates one criterion of Match.
func (e *evaluator) criterion(name, argument string, conn *SSHDConnection) (bool, error) {
	if name == "version" {
		return matchPatternList(e.version.Software, argument, false) == matchYes, nil
	}
	e.origin = e.origin || slices.Contains([]string{"host", "address", "localaddress", "localport", "rdomain"}, name)
	if conn == nil {
		if !slices.Contains([]string{"user", "group", "host", "address", "localaddress", "localport", "rdomain"}, name) {
			return false, unknownCriterion(name)
		}
		return false, nil
	}
	switch name {
	case "user":
		return matchPatternList(conn.User, argument, false) == matchYes, nil
	case "group":
		found := false
		for _, g := range conn.Groups {
			switch matchPatternList(g, argument, false) {
			case matchNegated:
				return false, nil
			case matchYes:
				found = true
			}
		}
		return found, nil
	case "host":
		return matchPatternList(lowerASCII(conn.Host), argument, true) == matchYes, nil
	case "address", "localaddress":
		addr := conn.Addr
		if name == "localaddress" {
			addr = conn.LocalAddr
		}
		switch matchAddressList(addr, argument) {
		case matchYes:
			return true, nil
		case matchInvalid:
			return false, Errorf(Invalid, "Match %s %q is not a list of addresses", name, argument)
		}
		return false, nil
	case "localport":
		port, ok := strtonum(argument, 0, 65535)
		if !ok {
			return false, Errorf(Invalid, "Match localport %q is not a port", argument)
		}
		return int(port) == conn.LocalPort, nil
	case "rdomain":
		return matchPatternList(conn.RDomain, argument, false) == matchYes, nil
	}
	return false, unknownCriterion(name)
}

func unknownCriterion(name string) error {
	return Errorf(Invalid, "Match %s is not a criterion that can be evaluated here", abbreviate(name))
}
