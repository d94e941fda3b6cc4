package sim

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// A process is one command that runs on a host.
type process struct {
	host *Host
	subject
	user   string // that is logged in
	env    map[string]string
	stdin  []byte
	stdout bytes.Buffer
}

// A refusal is the last line "no WORD DETAIL" of an op.
type refusal struct{ word, detail string }

func no(word, format string, args ...any) *refusal {
	return &refusal{word, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")}
}

// failed is the refusal of an op to which a system call failed.
func failed(word string, err error) *refusal { return no(word, "%s", err) }

// say writes one line of the answer.
func (p *process) say(format string, args ...any) { fmt.Fprintf(&p.stdout, format+"\n", args...) }

// give writes a content block.
func (p *process) give(data []byte, limit int, nonce string) {
	p.say("content")
	p.stdout.Write(data[:min(len(data), limit+1)])
	p.say("\n%s", nonce)
}

// run executes a command line of internal/remote, which is one command or several,
// and returns the exit status of the last and what goes to stderr.
func (p *process) run(line string) (status int, stderr string) {
	commands, ok := split(line, p.env)
	if !ok {
		return 2, "sh: Syntax error: Unterminated quoted string"
	}
	login := p.subject
	for _, words := range commands {
		p.subject = login
		var said string
		status, said = p.runOne(words)
		stderr += said
	}
	return status, stderr
}

func (p *process) runOne(words []string) (status int, stderr string) {
	if name, ok := strings.CutPrefix(firstWord(words), function); ok {
		return p.runOp(name, words[1:])
	}
	words, stderr = p.become(words)
	if stderr != "" {
		return 1, stderr
	}
	if len(words) < 4 || words[0] != "sh" || words[1] != "-c" || !strings.HasPrefix(words[3], "keyturn.") {
		return 127, "sh: 1: " + firstWord(words) + ": not found"
	}
	names, args := opsOf(words[3]), words[4:]
	if len(names) == 1 {
		return p.runOp(names[0], args)
	}
	for _, name := range names {
		n, err := strconv.Atoi(firstWord(args))
		if err != nil || n < 0 || n >= len(args) {
			return 2, "sh: 1: shift: can't shift that many"
		}
		if status, stderr := p.runOp(name, args[1:1+n]); status != 0 {
			return status, stderr
		}
		args = args[1+n:]
	}
	return 0, ""
}

// function is what the name of an op follows in a shell that stays.
const function = "keyturn_"

// opsOf returns the ops that a script is of, by the name that it is given.
func opsOf(name string) []string { return strings.Split(strings.TrimPrefix(name, "keyturn."), "+") }

// runOp runs one op.
func (p *process) runOp(name string, args []string) (status int, stderr string) {
	op, ok := p.ops()[name]
	if !ok {
		return 127, "sh: 1: keyturn." + name + ": not found"
	}
	p.say("keyturn %s 1", name)
	if len(args) < op.args {
		return 2, "sh: 1: parameter not set"
	}
	if r := op.do(args); r != nil {
		p.say("%s", strings.TrimRight("no "+r.word+" "+r.detail, " "))
	} else {
		p.say("ok")
	}
	return 0, ""
}

// become takes what stands before "sh -c" away and acts as it says.
func (p *process) become(words []string) (rest []string, stderr string) {
	if len(words) > 1 && words[0] == "sudo" && words[1] == "-n" {
		if a, ok := p.host.accounts[p.user]; !ok || !a.Sudo {
			return nil, "sudo: a password is required"
		}
		p.subject, words = subject{}, words[2:]
	}
	if len(words) > 3 && words[0] == "setpriv" {
		uid, err := strconv.Atoi(strings.TrimPrefix(words[1], "--reuid="))
		gid, err2 := strconv.Atoi(strings.TrimPrefix(words[2], "--regid="))
		if err != nil || err2 != nil || p.uid != 0 {
			return nil, "setpriv: setresuid failed: Operation not permitted"
		}
		p.subject, words = subject{uid, gid}, words[4:]
	}
	return words, ""
}

// split breaks a command line into commands, and these into words, as a shell does:
// a semicolon, single quotes, a backslash outside of them, and variables within
// double quotes.
func split(line string, env map[string]string) (commands [][]string, ok bool) {
	var words []string
	var word strings.Builder
	inside := false // a word has begun
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', ';':
			if inside {
				words = append(words, word.String())
			}
			word.Reset()
			inside = false
			if c == ';' {
				commands, words = append(commands, words), nil
			}
			continue
		case '\'', '"':
			end := strings.IndexByte(line[i+1:], c)
			if end < 0 {
				return nil, false
			}
			text := line[i+1 : i+1+end]
			if name, isVariable := strings.CutPrefix(text, "$"); c == '"' && isVariable {
				text = env[name]
			}
			word.WriteString(text)
			i += 1 + end
		case '\\':
			if i++; i < len(line) {
				word.WriteByte(line[i])
			}
		default:
			word.WriteByte(c)
		}
		inside = true
	}
	if inside {
		words = append(words, word.String())
	}
	return append(commands, words), true
}

func firstWord(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[0]
}
