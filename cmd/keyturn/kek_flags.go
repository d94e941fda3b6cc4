package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"keyturn/internal/keyring"
	"keyturn/internal/trust"
)

// kekFlags say where the key-encryption key comes from: one of the first five, or
// none for the file at kekPath.
type kekFlags struct {
	file, command, passphraseFile, url string
	passphrase                         bool
	was                                string
}

// sources returns the source that the flags name, and the one before it or nil.
func (k kekFlags) sources(dataDir string) (source, was keyring.Source, err error) {
	given := map[string]string{"file": k.file, "command": k.command, "passphrase-file": k.passphraseFile, "url": k.url}
	var chosen []string
	for kind, value := range given {
		if value != "" {
			chosen = append(chosen, kind+":"+value)
		}
	}
	if k.passphrase {
		chosen = append(chosen, "passphrase")
	}
	switch len(chosen) {
	case 0:
		path, err := kekPath()
		if err != nil {
			return nil, nil, err
		}
		chosen = []string{"file:" + path}
	case 1:
	default:
		return nil, nil, errors.New("--kek-file, --kek-command, --kek-passphrase-file, --kek-passphrase and --kek-url are several sources of one key: give one")
	}
	if k.was == "" {
		source, err = parseSource(chosen[0], dataDir, "")
		return source, nil, err
	}
	if source, err = parseSource(chosen[0], dataDir, " from now on"); err != nil {
		return nil, nil, err
	}
	was, err = parseSource(k.was, dataDir, " until now")
	return source, was, err
}

// parseSource reads a source as --kek-was has it. When says, to who is asked for it at the
// terminal, when it is the one, where there are two.
func parseSource(text, dataDir, when string) (keyring.Source, error) {
	kind, value, _ := strings.Cut(text, ":")
	switch {
	case text == "passphrase":
		return keyring.Typed(func(ctx context.Context, fresh bool) ([]byte, error) { return typePassphrase(ctx, when, fresh) }), nil
	case value == "":
	case kind == "file":
		return keyring.File(value, dataDir), nil
	case kind == "command":
		return keyring.Command(value, withoutOurs(os.Environ())), nil
	case kind == "passphrase-file":
		return keyring.Passphrase(value, dataDir), nil
	case kind == "url":
		return keyring.KMS(value)
	}
	// What was given is not repeated: it may have a token in it.
	return nil, errors.New("--kek-was is none of file:PATH, command:CMD, passphrase-file:PATH, passphrase, url:URL")
}

// withoutOurs returns an environment without what is Keyturn's: a command that
// fetches a key has no use for the password of admin.
func withoutOurs(environment []string) (rest []string) {
	for _, e := range environment {
		if !strings.HasPrefix(e, "KEYTURN_") {
			rest = append(rest, e)
		}
	}
	return rest
}

// typePassphrase asks for the passphrase at the terminal; for a fresh one twice.
func typePassphrase(ctx context.Context, when string, fresh bool) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, trust.Errorf(trust.Unavailable, "there is no terminal to ask for the passphrase of the key-encryption key: %w", err).
			WithHint("--kek-passphrase-file reads it from a file")
	}
	defer tty.Close()
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(tty, prompt)
		defer fmt.Fprintln(tty)
		typed, err := readPassword(ctx, tty)
		if err != nil {
			return nil, trust.Errorf(trust.Unavailable, "the passphrase of the key-encryption key was not typed: %w", err)
		}
		return typed, nil
	}
	if !fresh {
		return ask("Passphrase of the key-encryption key" + when + ": ")
	}
	first, err := ask("New passphrase of the key-encryption key: ")
	if err != nil {
		return nil, err
	}
	second, err := ask("Once more: ")
	if err != nil {
		return nil, err
	}
	defer clear(second)
	if !bytes.Equal(first, second) {
		return nil, trust.Errorf(trust.Invalid, "the two passphrases are not the same")
	}
	return first, nil
}

// kekPath is where the key-encryption key lies by default: never in the data
// directory, so that a copy of that is worth nothing.
func kekPath() (string, error) {
	if os.Geteuid() == 0 && os.Getenv("XDG_CONFIG_HOME") == "" {
		return "/etc/keyturn/kek", nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", trust.Errorf(trust.Invalid, "there is no place for the key-encryption key: %w", err).WithHint("name a file with --kek-file")
	}
	return filepath.Join(dir, "keyturn", "kek"), nil
}
