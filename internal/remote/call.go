package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

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

// run executes an op and returns the lines of its answer without the first and the
// last. A *refusal comes back as it is; every other error is a *trust.Error.
// Unavailable means that it is not known what was done.
func (h *Host) run(ctx context.Context, c call) ([]line, error) {
	if c.op.changes && h.hook != nil {
		if err := h.hook(ctx, "before "+c.op.name); err != nil {
			return nil, err
		}
	}
	lines, err := h.exchange(ctx, c)
	if c.op.changes && h.hook != nil {
		if err := h.hook(ctx, "after "+c.op.name); err != nil {
			return nil, err
		}
	}
	return lines, err
}

func (h *Host) exchange(ctx context.Context, c call) ([]line, error) {
	command, err := h.command(ctx, c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.op.time, trust.Errorf(trust.Unavailable, "%s took longer than %v", c.op.name, c.op.time))
	defer cancel()
	result, err := h.exec(ctx, command, c.stdin, maxReply)
	if err != nil {
		return nil, h.named(err)
	}
	lines, err := parseReply(result.Stdout, c.op.name, c.nonce)
	if err != nil {
		return nil, h.explain(c, result, err)
	}
	return lines, nil
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
func (h *Host) command(ctx context.Context, c call) (string, error) {
	shell := "sh -c"
	var prefix []string
	if c.as != self {
		switch h.become {
		case Sudo:
			prefix = append(prefix, "sudo -n")
		case Doas:
			prefix = append(prefix, "doas -n")
		}
		if c.as != root {
			account, err := h.account(ctx, string(c.as))
			if err != nil {
				return "", err
			}
			switch h.drop {
			case "setpriv":
				prefix = append(prefix, fmt.Sprintf("setpriv --reuid=%d --regid=%d --init-groups", account.UID, account.GID))
			case "runuser":
				prefix = append(prefix, "runuser -u "+quote(account.User)+" --")
			case "su":
				shell = "su -s /bin/sh " + quote(account.User) + " -c"
			default:
				return "", trust.Errorf(trust.Conflict, "%s has neither setpriv nor runuser nor su, so that Keyturn cannot act as %q there", h.name, c.as)
			}
		}
	}
	words := append(prefix, shell, quote(c.op.script()), "keyturn."+c.op.name)
	for _, a := range c.args {
		if strings.ContainsAny(a, "\x00\n") {
			return "", trust.Errorf(trust.Invalid, "%q cannot be an argument on %s", a, h.name)
		}
		words = append(words, quote(a))
	}
	if c.op.name == opHello.name {
		words = append(words, `"$SSH_CONNECTION" "$HOME"`)
	}
	return strings.Join(words, " "), nil
}

// quote returns s as one word for any shell: what a backslash or a quote means within
// quotes is not the same in all of them, so both stand outside.
func quote(s string) string {
	var b strings.Builder
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

// parseReply reads an answer. What stands before its first line was said by the
// login shell's start-up files.
func parseReply(out []byte, name, nonce string) ([]line, error) {
	first := []byte("keyturn " + name + " 1\n")
	if !bytes.HasPrefix(out, first) {
		at := bytes.Index(out, append([]byte("\n"), first...))
		if at < 0 {
			return nil, errCutOff
		}
		out = out[at+1:]
	}
	out = out[len(first):]
	var lines []line
	for {
		text, rest, ok := bytes.Cut(out, []byte("\n"))
		if !ok {
			return nil, errCutOff
		}
		out = rest
		word, detail, _ := strings.Cut(string(text), " ")
		switch word {
		case "ok":
			return lines, nil
		case "no":
			word, detail, _ = strings.Cut(detail, " ")
			return lines, &refusal{word, strings.TrimSpace(detail)}
		case "content":
			if nonce == "" {
				return nil, errCutOff
			}
			block, rest, ok := bytes.Cut(out, []byte("\n"+nonce+"\n"))
			if !ok {
				return nil, errCutOff
			}
			out = rest
			lines = append(lines, line{word: word, block: block})
		default:
			lines = append(lines, line{word: word, rest: detail})
		}
	}
}

// explain says what an answer without an end means.
func (h *Host) explain(c call, result dial.Result, err error) error {
	if _, ok := err.(*refusal); ok {
		return err
	}
	said := firstLine(result.Stderr)
	if said == "" {
		said = firstLine(result.Stdout)
	}
	began := bytes.Contains(result.Stdout, []byte("keyturn "+c.op.name+" 1\n"))
	switch {
	case began || result.Exit == -1:
		return trust.Errorf(trust.Unavailable, "%s: what Keyturn ran there (%s) was cut off: %s", h.name, c.op.name, said)
	case c.as != self && h.become != None:
		return trust.Errorf(trust.Denied, "%s: %s does not let %q act as root without a password: %s", h.name, h.become, h.login, said).
			WithHint("in sudoers: %s ALL=(ALL) NOPASSWD: ALL; in doas.conf: permit nopass %s", h.login, h.login)
	}
	return trust.Errorf(trust.Denied, "%s: %q has no shell there that runs commands (status %d): %s", h.name, h.login, result.Exit, said)
}

// firstLine returns the first line of a program's output, in printable form.
func firstLine(b []byte) string {
	text := strings.TrimSpace(string(b[:min(len(b), 400)]))
	text, _, _ = strings.Cut(text, "\n")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, text))
}
