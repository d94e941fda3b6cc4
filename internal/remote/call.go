package remote

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyturn/internal/dial"
	"keyturn/internal/trust"
)

// Bounds of what a host may answer.
const (
	maxFile  = 1 << 20  // bytes of one file
	maxReply = 24 << 20 // bytes of one answer
)

// An actor is the account as which an op runs: "" is the one that is logged in,
// any other is reached through root.
type actor string

const (
	self actor = ""
	root actor = "root"
)

// A line is one line of an answer: a word and the rest, and for the word "content"
// the bytes of the block.
type line struct {
	word, rest string
	block      []byte
}

// A refusal is an op's "no".
type refusal struct{ word, detail string }

func (r *refusal) Error() string { return strings.TrimSpace(r.word + " " + r.detail) }

// A call is one execution of an op.
type call struct {
	op    op
	as    actor
	args  []string
	stdin []byte
	nonce string // of content blocks; made by run where it is empty
}

// newNonce returns what marks the end of a content block, and what names an
// attempt to change something.
func newNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}

// An answer is what an op said: the lines between the first and the last, and its
// refusal, if that is how it ended.
type answer struct {
	lines []line
	no    *refusal
}

// run executes an op and returns the lines of its answer. A *refusal comes back as it
// is; every other error is a *trust.Error. Unavailable means that it is not known what
// was done.
func (h *Host) run(ctx context.Context, c call) ([]line, error) {
	answers, err := h.runAll(ctx, c)
	if err != nil {
		return nil, err
	}
	if answers[0].no != nil {
		return answers[0].lines, answers[0].no
	}
	return answers[0].lines, nil
}

// runAll executes ops one after another, each whatever came of those before it, and
// in as few requests as their length allows. An error is as of run and never a
// *refusal: of none of the ops it is then known what they did.
func (h *Host) runAll(ctx context.Context, calls ...call) ([]answer, error) {
	if err := h.points(ctx, "before ", calls); err != nil {
		return nil, err
	}
	answers, err := h.exchange(ctx, calls)
	if err := h.points(ctx, "after ", calls); err != nil {
		return nil, err
	}
	return answers, err
}

// points calls the hook for each of the calls that changes something.
func (h *Host) points(ctx context.Context, when string, calls []call) error {
	for _, c := range calls {
		if c.op.changes && h.hook != nil {
			if err := h.hook(ctx, when+c.op.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxCommand is what Dropbear takes in one exec request, with some room.
const maxCommand = 8900

// exchange executes calls: by shells that stay, else by as few requests as can be.
func (h *Host) exchange(ctx context.Context, calls []call) (answers []answer, err error) {
	for len(calls) > 0 {
		some, err := h.byShell(ctx, calls)
		if err == nil && some == nil {
			some, err = h.byRequest(ctx, calls)
		}
		if err != nil {
			return nil, err
		}
		answers, calls = append(answers, some...), calls[len(some):]
	}
	return answers, nil
}

// byRequest makes one exec request for as many of the calls as it may be long. What the
// first of them reads is all that there is to read.
func (h *Host) byRequest(ctx context.Context, calls []call) ([]answer, error) {
	command, n := "", 0
	for n < len(calls) {
		longer, err := h.command(ctx, calls[:n+1])
		if err != nil {
			return nil, err
		}
		if n > 0 && len(longer) > maxCommand {
			break
		}
		command, n = longer, n+1
	}
	return h.answers(ctx, calls[:n], func(ctx context.Context) (dial.Result, error) {
		result, err := h.exec(ctx, command, calls[0].stdin, maxReply)
		if trust.KindOf(err) == trust.Denied && h.shells.end(ctx) {
			// The server allows fewer sessions than that (MaxSessions).
			return h.exec(ctx, command, calls[0].stdin, maxReply)
		}
		return result, err
	})
}

// ErrTookLonger is in the tree of what is said of an op that was cut off because it took
// longer than it may: a file or a file system hangs, while the host may be well.
var ErrTookLonger = errors.New("took longer")

// answers has calls executed, within their time, and reads what they answer.
func (h *Host) answers(ctx context.Context, calls []call, do func(context.Context) (dial.Result, error)) (answers []answer, err error) {
	var limit time.Duration
	for _, c := range calls {
		limit += c.op.time
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, trust.Errorf(trust.Unavailable, "%s %w than %v", calls[0].op.name, ErrTookLonger, limit))
	defer cancel()
	result, err := do(ctx)
	if err != nil {
		return nil, h.named(err)
	}
	out := result.Stdout
	for i, c := range calls {
		var a answer
		if a, out, err = parseReply(out, c.op.name, c.nonce); err != nil {
			return nil, h.explain(c, i > 0 && calls[i-1].as == c.as, result)
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// named says which host an error of its connection is about: that knows only the
// address.
func (h *Host) named(err error) error {
	var e *trust.Error
	if !errors.As(err, &e) {
		return err
	}
	named := *e
	named.Message, named.Err = h.name+": "+e.Message, err
	return &named
}

// command returns the text of the exec request, as ops.go describes it.
func (h *Host) command(ctx context.Context, calls []call) (string, error) {
	var commands []string
	for len(calls) > 0 {
		shell, err := h.shellAs(ctx, calls[0].as)
		if err != nil {
			return "", err
		}
		n := 1
		for ; n < len(calls); n++ {
			if other, err := h.shellAs(ctx, calls[n].as); err != nil || other != shell {
				break // an error comes back when it is the first one's turn
			}
		}
		var list []op
		var names, words []string
		for _, c := range calls[:n] {
			args, err := h.arguments(c)
			if err != nil {
				return "", err
			}
			if n > 1 {
				words = append(words, strconv.Itoa(len(args)))
			}
			list, names, words = append(list, c.op), append(names, c.op.name), append(words, args...)
		}
		words = append([]string{shell, scriptWord(list), "keyturn." + strings.Join(names, "+")}, words...)
		commands, calls = append(commands, strings.Join(words, " ")), calls[n:]
	}
	return strings.Join(commands, " ; "), nil
}

// shellAs returns what starts a shell that acts as an account: all that stands before
// its script.
func (h *Host) shellAs(ctx context.Context, as actor) (string, error) {
	shell := "sh -c"
	if as == self {
		return shell, nil
	}
	become := map[Become]string{Sudo: "sudo -n ", Doas: "doas -n "}[h.become]
	if as == root {
		return become + shell, nil
	}
	account, err := h.account(ctx, string(as))
	if err != nil {
		return "", err
	}
	switch h.drop {
	case "setpriv":
		return fmt.Sprintf("%ssetpriv --reuid=%d --regid=%d --init-groups %s", become, account.UID, account.GID, shell), nil
	case "runuser":
		return become + "runuser -u " + quote(account.User) + " -- " + shell, nil
	case "su":
		return become + "su -s /bin/sh " + quote(account.User) + " -c", nil
	}
	return "", trust.Errorf(trust.Conflict, "%s has neither setpriv nor runuser nor su, so that Keyturn cannot act as %q there", h.name, as)
}

// arguments returns the arguments of a call, each as one word for any shell.
func (h *Host) arguments(c call) ([]string, error) {
	if c.op.name == opHello.name {
		return []string{`"$SSH_CONNECTION"`, `"$HOME"`}, nil
	}
	var words []string
	for _, a := range c.args {
		if strings.ContainsAny(a, "\x00\n") {
			return nil, trust.Errorf(trust.Invalid, "%q cannot be an argument on %s", a, h.name)
		}
		words = append(words, quote(a))
	}
	return words, nil
}

// scripts holds the script of each op, by its name, and that of the shell that stays, as
// one word for any shell. They are the same for every host.
var scripts = sync.OnceValue(func() map[string]string {
	words := make(map[string]string)
	for _, o := range ops() {
		words[o.name] = quote(o.script())
	}
	words["shell"] = quote(shellScript())
	return words
})

// scriptWord returns the script of one op or of several, as one word for any shell.
func scriptWord(list []op) string {
	if len(list) == 1 {
		return scripts()[list[0].name]
	}
	return quote(scriptOf(list))
}

// quote returns s as one word for any shell: what a backslash or a quote means within
// quotes is not the same in all of them, so both stand outside.
func quote(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('\'')
	for _, c := range []byte(s) {
		if c == '\'' || c == '\\' {
			b.WriteString(`'\`)
			b.WriteByte(c)
			c = '\''
		}
		b.WriteByte(c)
	}
	b.WriteByte('\'')
	return b.String()
}

// errCutOff says that an answer has no end.
var errCutOff = trust.Errorf(trust.Unavailable, "the answer was cut off")

// parseReply reads an answer and returns what comes after it. What stands before its
// first line was said by the login shell's start-up files.
func parseReply(out []byte, name, nonce string) (a answer, rest []byte, err error) {
	// What a start-up file printed comes before, and need not end its line.
	_, out, ok := bytes.Cut(out, []byte("keyturn "+name+" 1\n"))
	if !ok {
		return answer{}, nil, errCutOff
	}
	for {
		text, rest, ok := bytes.Cut(out, []byte("\n"))
		if !ok {
			return answer{}, nil, errCutOff
		}
		out = rest
		word, detail, _ := strings.Cut(string(text), " ")
		switch word {
		case "ok":
			return a, out, nil
		case "no":
			word, detail, _ = strings.Cut(detail, " ")
			a.no = &refusal{word, strings.TrimSpace(detail)}
			return a, out, nil
		case "content":
			if nonce == "" {
				return answer{}, nil, errCutOff
			}
			block, rest, ok := bytes.Cut(out, []byte("\n"+nonce+"\n"))
			if !ok {
				return answer{}, nil, errCutOff
			}
			out = rest
			a.lines = append(a.lines, line{word: word, block: block})
		default:
			a.lines = append(a.lines, line{word: word, rest: detail})
		}
	}
}

// explain says what an answer without an end means. ran says that another op just
// ran in the same way.
func (h *Host) explain(c call, ran bool, result dial.Result) error {
	said := firstLine(result.Stderr)
	if said == "" {
		said = firstLine(result.Stdout)
	}
	began := bytes.Contains(result.Stdout, []byte("keyturn "+c.op.name+" 1\n"))
	switch {
	case began || ran || result.Exit == -1:
		return trust.Errorf(trust.Unavailable, "%s: what Keyturn ran there (%s) was cut off: %s", h.name, c.op.name, said)
	case c.as != self && h.become != None:
		// sudo may warn of something else before it says why it refuses.
		said = cmp.Or(lastLine(result.Stderr), said)
		if strings.Contains(said, "tty") { // "sorry, you must have a tty to run sudo"
			return trust.Errorf(trust.Denied, "%s: %s wants a terminal of %q, and programs have none: %s", h.name, h.become, h.login, said).
				WithHint("in sudoers: Defaults:%s !requiretty", h.login)
		}
		return trust.Errorf(trust.Denied, "%s: %s does not let %q act as root without a password: %s", h.name, h.become, h.login, said).
			WithHint("in sudoers: %s ALL=(ALL) NOPASSWD: ALL; in doas.conf: permit nopass %s", h.login, h.login)
	}
	return trust.Errorf(trust.Denied, "%s: %q has no shell there that runs commands (status %d): %s", h.name, h.login, result.Exit, said).
		WithHint("look for command= before its key, ForceCommand in sshd_config, and its shell in passwd")
}

// firstLine returns the first line of a program's output, in printable form.
func firstLine(b []byte) string {
	text := strings.TrimSpace(string(b[:min(len(b), 400)]))
	text, _, _ = strings.Cut(text, "\n")
	return printable(text)
}

// lastLine is firstLine of the last one.
func lastLine(b []byte) string {
	text := strings.TrimSpace(string(b[max(0, len(b)-400):]))
	return printable(text[strings.LastIndexByte(text, '\n')+1:])
}

func printable(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, text))
}
