package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/argon2"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Source is where a KEK comes from: File, Command, Passphrase or KMS. All of them
// end in 32 bytes, of which newKEK makes the KEK.
type Source interface {
	// String names the source to people, in logs and in the event of a change. There is
	// nothing secret in it.
	String() string
	// load returns the KEK for a database with this root keyset: for one that has
	// none yet the KEK to begin with, which is made where the source can make one;
	// otherwise the one that the source holds. Whether that is the right one is for
	// the caller to see, by name.
	load(ctx context.Context, r root) (KEK, error)
	// next returns the KEK that comes after that of r, durable where the source
	// keeps it. It has the name of r's if there is no other yet.
	next(ctx context.Context, r root) (KEK, error)
	// settle makes the KEK of that name, to which the database has changed, the one
	// that the source holds. It may run twice. What it leaves that is of no use it says.
	settle(name string) (left string, err error)
}

// patience bounds how long a command or a KMS is waited for.
const patience = 30 * time.Second

// Start opens the keyring in s as a node that starts does: with the KEK that the database
// is sealed under, as source has it or, where it is given, was, from which it changes the
// database over to source. The KEK of neither is refused, with a Denied error that names
// the one expected and the one given.
//
// Another node may make or change the root keyset meanwhile, as one that starts at the
// same time with the same sources does. Then what failed is tried again, with what that
// node left: of a passphrase or a KMS, only the database has what makes the KEK again.
func Start(ctx context.Context, s *store.Store, source, was Source) (*Keyring, error) {
	r, err := readRoot(ctx, s)
	for err == nil {
		k, why := begin(ctx, s, r, source, was)
		if why == nil {
			return k, nil
		}
		tried := r.name
		if r, err = readRoot(ctx, s); ctx.Err() != nil || err == nil && r.name == tried {
			return nil, why
		}
	}
	return nil, err
}

func begin(ctx context.Context, s *store.Store, r root, source, was Source) (*Keyring, error) {
	kek, err := find(ctx, r, source, was)
	if err != nil {
		return nil, err
	}
	k, err := Open(ctx, s, kek)
	if err != nil {
		return nil, err
	}
	return k, k.move(ctx, source)
}

// find loads the KEK of r: of source, or else, from which it is to be changed over, of was.
// That is asked second, so that it is not asked for once the change is made.
func find(ctx context.Context, r root, source, was Source) (KEK, error) {
	kek, err := fit(ctx, source, r)
	if err == nil || was == nil || r.name == "" {
		return kek, err
	}
	kek, wasErr := fit(ctx, was, r)
	if wasErr == nil {
		return kek, nil
	}
	return KEK{}, errors.Join(wasErr, err)
}

// fit loads the KEK of source, refuses one that is not that of r, and ends a change
// to it that a crash interrupted.
func fit(ctx context.Context, source Source, r root) (KEK, error) {
	kek, err := source.load(ctx, r)
	if err != nil {
		return KEK{}, err
	}
	if r.name != "" && kek.name != r.name {
		return KEK{}, r.wrong(kek)
	}
	kek.source = source
	kek.left, err = source.settle(kek.name)
	return kek, err
}

// wrong refuses a KEK that is not that of r.
func (r root) wrong(kek KEK) error {
	return trust.Errorf(trust.Denied, "the database is sealed under key-encryption key %q, but %s holds %q", r.name, kek.from, kek.name).
		WithHint("start with the key that was made together with this database, or with its copy; after keyturn kek rotate on another node, with a copy of that node's file; to change over from another source, name that with --kek-was")
}

// move changes the database over to the KEK of source, if it is sealed under that
// of another one.
func (k *Keyring) move(ctx context.Context, source Source) error {
	if k.source == source {
		return nil
	}
	r, err := readRoot(ctx, k.store)
	if err != nil {
		return err
	}
	kek, err := source.load(ctx, root{})
	if err != nil {
		return err
	}
	if kek.name == r.name {
		k.source = source
		return nil
	}
	kek.after = r.name
	err = k.store.Update(ctx, audit.Event{
		Tenant:  trust.Installation,
		Actor:   audit.Actor{Kind: "system"},
		Action:  "kek.rotate",
		Subject: "kek:" + kek.name,
	}, func(tx *store.Tx) error { return k.Rewrap(tx, kek) })
	if err != nil {
		return err
	}
	k.source = source
	return nil
}

// Next returns the KEK that the database is to change to: of a file a new one, which
// is durable beside it; of a command or a file with a passphrase the one that it has
// now; of a KMS a new one, encrypted with the present version of the key there. If
// that is the KEK of now, changed is false. Rewrap commits the change, and Settle
// ends it; whatever is left undone between them the next start or the next Next does.
func (k *Keyring) Next(ctx context.Context) (kek KEK, changed bool, err error) {
	r, err := readRoot(ctx, k.store)
	if err != nil {
		return KEK{}, false, err
	}
	kek, err = k.source.next(ctx, r)
	kek.after = r.name
	return kek, kek.name != r.name, err
}

// Rewrap wraps the root keyset with another KEK that Next returned, inside the
// Update whose event is the rotation of the KEK. Every process that runs goes on
// undisturbed; one that starts afterwards needs the new KEK. Backups made before
// need the old. If the KEK has been changed since Next, that is a Conflict.
func (k *Keyring) Rewrap(tx *store.Tx, kek KEK) error {
	if kek.aead == nil {
		return trust.Errorf(trust.Invalid, "no key-encryption key was given")
	}
	wrapped, err := wrapKeyset(k.handle, &sealer{*kek.aead}, binding{trust.Installation, kindRoot, kek.name})
	if err != nil {
		return err
	}
	n, err := updateRoot(tx, kek, wrapped)
	if err == nil && n == 0 {
		err = trust.Errorf(trust.Conflict, "the database is no longer sealed under key-encryption key %q: somebody else changed it", kek.after).WithHint("keyturn kek show")
	}
	tx.Note("from", kek.after)
	tx.Note("to", kek.name)
	tx.Note("source", kek.from)
	return err
}

// Settle ends the change to a KEK, after the Update of Rewrap has returned.
func (k *Keyring) Settle(kek KEK) error {
	k.close(func(binding, *opened) bool { return true })
	_, err := k.source.settle(kek.name)
	return err
}

// Left says what Start has found beside the KEK that is of no use, for people to read, or is
// empty.
func (k *Keyring) Left() string { return k.left }

// A KEKStatus is what is known of a database's KEK.
type KEKStatus struct {
	Name   string
	Source string // of the KEK of this node
	// Since is when the database was sealed under it, and DataSince when the
	// tenant of the View got the data key that seals now, or zero.
	Since, DataSince time.Time
}

// Status tells of the KEK, and of the data key of tenant.
func (k *Keyring) Status(ctx context.Context, tenant trust.TenantID) (KEKStatus, error) {
	r, err := readRoot(ctx, k.store)
	if err != nil {
		return KEKStatus{}, err
	}
	status := KEKStatus{Name: r.name, Source: k.source.String(), Since: r.since}
	err = k.store.View(ctx, tenant, func(tx *store.Tx) error {
		status.DataSince, err = selectDataSince(tx)
		return err
	})
	return status, err
}

// Command returns the source whose KEK is what a command prints: a key file's text,
// or base64 of 32 bytes. /bin/sh runs it in the environment env, for 30 seconds at
// the most. Neither it nor what it prints is shown anywhere, and what it says on standard error only
// in the error with which it fails.
func Command(command string, env []string) Source { return &commandSource{command, env} }

type commandSource struct {
	command string
	env     []string
}

// maxComplaint bounds, in bytes, what is shown of a command's standard error.
const maxComplaint = 4096

// String does not show the command: a token of what it asks, or the key, may be in it.
func (c *commandSource) String() string { return "the command that was given" }

func (c *commandSource) load(ctx context.Context, _ root) (KEK, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, complaint := limited{most: maxKEK}, limited{most: maxComplaint}
	defer func() { clear(out.kept.Bytes()) }()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.command)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env, &out, &complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // what it started, too
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return KEK{}, trust.Errorf(trust.Unavailable, "%s, which is to print the key-encryption key: %w%s", c, err, said(complaint.kept.String()))
	}
	if out.over {
		return KEK{}, trust.Errorf(trust.Invalid, "%s printed more than %d bytes, which is no key-encryption key", c, maxKEK)
	}
	text := bytes.TrimSpace(out.kept.Bytes())
	if bytes.HasPrefix(text, []byte(kekHeader)) || bytes.HasPrefix(text, []byte("#")) {
		return parseKEK(text, c.String())
	}
	key, err := base64.StdEncoding.Strict().DecodeString(string(text))
	defer clear(key)
	if err != nil || len(key) != kekSize {
		return KEK{}, trust.Errorf(trust.Invalid, "%s printed neither a key file's text nor base64 of %d bytes", c, kekSize).
			WithHint("head -c %d /dev/urandom | base64 makes a key", kekSize)
	}
	return newKEK(key, c.String())
}

// said is what a command said before it failed, for an error.
func said(text string) string {
	if text = strings.TrimSpace(text); text == "" {
		return ""
	}
	return ": " + text
}

// A limited is a buffer that drops what is too much, and remembers that.
type limited struct {
	kept bytes.Buffer // not embedded: io.Copy would fill it past Write
	most int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	room := l.most - l.kept.Len()
	l.over = l.over || len(p) > room
	l.kept.Write(p[:min(room, len(p))])
	return len(p), nil
}

func (c *commandSource) next(ctx context.Context, r root) (KEK, error) { return c.load(ctx, r) }
func (c *commandSource) settle(string) (string, error)                 { return "", nil }

// Passphrase returns the source whose KEK is derived from a passphrase that lies in
// a file, which is as private as a key file has to be. A newline at its end does not
// count.
func Passphrase(path, dataDir string) Source {
	return &passphraseSource{from: fmt.Sprintf("the passphrase in %q", path), again: true, read: func(context.Context, bool) ([]byte, error) {
		text, err := readPrivate(path, dataDir)
		return bytes.TrimRight(text, "\r\n"), err
	}}
}

// Typed returns the source whose KEK is derived from a passphrase that ask asks a
// person for. It is asked for at the start only.
// Fresh says that there is none yet.
func Typed(ask func(ctx context.Context, fresh bool) ([]byte, error)) Source {
	return &passphraseSource{from: "the passphrase that was typed", read: ask}
}

type passphraseSource struct {
	from  string
	read  func(ctx context.Context, fresh bool) ([]byte, error)
	again bool // can be read while the server runs
}

// The seed of a KEK of a passphrase is text: "argon2id:", and the salt in base64. A
// later one that costs more will begin otherwise.
const (
	passphraseSeed = "argon2id:"
	minPassphrase  = 12 // bytes
	maxPassphrase  = 1024
	saltSize       = 16
	// The cost is half a second of four cores and 256 MiB, once at a start: four
	// times the memory of RFC 9106's second choice, which passwords have here.
	kekPasses, kekMemory, kekLanes = 3, 256 << 10, 4
)

func (p *passphraseSource) String() string { return p.from }

func (p *passphraseSource) load(ctx context.Context, r root) (KEK, error) {
	if r.name != "" && !bytes.HasPrefix(r.seed, []byte(passphraseSeed)) { // before anybody is asked
		return KEK{}, trust.Errorf(trust.Denied, "the database is sealed under key-encryption key %q, which is not of a passphrase, but %s was given", r.name, p).
			WithHint("start with the source that it has, such as --kek-file; to change over from that to this, name it with --kek-was")
	}
	passphrase, err := p.read(ctx, r.name == "")
	if err != nil {
		return KEK{}, err
	}
	defer clear(passphrase)
	if len(passphrase) < minPassphrase || len(passphrase) > maxPassphrase {
		return KEK{}, trust.Errorf(trust.Invalid, "%s has %d bytes, not %d to %d", p, len(passphrase), minPassphrase, maxPassphrase)
	}
	seed := r.seed
	if r.name == "" {
		salt := make([]byte, saltSize)
		rand.Read(salt)
		seed = []byte(passphraseSeed + base64.StdEncoding.EncodeToString(salt))
	}
	return p.derive(passphrase, seed)
}

func (p *passphraseSource) derive(passphrase, seed []byte) (KEK, error) {
	salt, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(seed), passphraseSeed))
	if err != nil {
		return KEK{}, trust.Errorf(trust.Internal, "the salt of the passphrase is not base64: it was changed")
	}
	key := argon2.IDKey(passphrase, salt, kekPasses, kekMemory, kekLanes, kekSize)
	defer clear(key)
	kek, err := newKEK(key, p.from)
	kek.seed = seed
	return kek, err
}

func (p *passphraseSource) next(ctx context.Context, r root) (KEK, error) {
	if !p.again {
		return KEK{}, trust.Errorf(trust.Conflict, "the passphrase was typed when the server started, and cannot be asked for now").
			WithHint("start the server once with --kek-passphrase --kek-was passphrase, which asks for the new one and the old")
	}
	kek, err := p.load(ctx, r)
	if err != nil || kek.name == r.name {
		return kek, err
	}
	return p.load(ctx, root{}) // another passphrase, with a salt of its own
}

func (p *passphraseSource) settle(string) (string, error) { return "", nil }
