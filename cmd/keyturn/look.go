package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"keyturn/internal/trust"
)

// Bounds of what look reads.
const (
	lookFileSize = 1 << 20
	lookFiles    = 10_000
	lookDepth    = 6
)

func lookCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "look [PATH ...]",
		Short: "Read trust that lies in local files, and say what is wrong with it; changes nothing",
		Long: `Read the keys in local files, with no server and no database, and say what is
wrong with them, by file and line: authorized_keys, known_hosts, private keys.
Directories are gone through. Without a path, ~/.ssh and /etc/ssh are read.

Findings do not fail the command.`,
		Example: "  keyturn look\n  keyturn look /home /root --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				if home, err := os.UserHomeDir(); err == nil {
					args = append(args, filepath.Join(home, ".ssh"))
				}
				args = append(args, "/etc/ssh")
			} else if err := exist(args); err != nil {
				return err
			}
			l := look{}
			for _, path := range args {
				l.path(path, 0)
			}
			l.judge()
			return show(cmd, l.report, func(w io.Writer) error { return printLook(w, l.report) })
		},
	}
}

func exist(paths []string) error {
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return trust.Errorf(trust.NotFound, "%w", err)
		}
		if !info.Mode().IsRegular() && !info.IsDir() {
			return trust.Errorf(trust.Invalid, "%s is neither a file nor a directory, and is not read", p)
		}
	}
	return nil
}

// A lookReport is what look prints.
type lookReport struct {
	Files    []lookFile    `json:"files"`
	Findings []lookFinding `json:"findings"`
}

// A lookFile is a file with keys in it.
type lookFile struct {
	Path string    `json:"path"`
	Kind string    `json:"kind"` // "authorized_keys", "known_hosts", "private_key"
	Keys []lookKey `json:"keys"`
}

type lookKey struct {
	Line        int    `json:"line,omitempty"`
	Type        string `json:"type"`
	Bits        int    `json:"bits,omitempty"`
	Fingerprint string `json:"fingerprint"`
	Options     string `json:"options,omitempty"`
	Comment     string `json:"comment,omitempty"`

	key trust.PublicKey
}

type lookFinding struct {
	Kind string `json:"kind"`
	Path string `json:"path"`
	Line int    `json:"line,omitempty"`
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
}

// A look is one reading.
type look struct {
	report lookReport
	read   int
}

func (l *look) find(kind, path string, line int, key trust.PublicKey, format string, args ...any) {
	f := lookFinding{Kind: kind, Path: path, Line: line, Text: fmt.Sprintf(format, args...)}
	if !key.IsZero() {
		f.Key = string(key.Fingerprint())
	}
	l.report.Findings = append(l.report.Findings, f)
}

// path reads a file, or what lies below a directory. Links are followed only
// where they were named.
func (l *look) path(path string, depth int) {
	info, err := os.Lstat(path)
	if depth == 0 {
		info, err = os.Stat(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		l.find("unread", path, 0, trust.PublicKey{}, "cannot be looked at: %v", errors.Unwrap(err))
	case info.IsDir() && depth > lookDepth:
		l.find("unread", path, 0, trust.PublicKey{}, "lies more than %d directories deep", lookDepth)
	case info.IsDir():
		entries, err := os.ReadDir(path)
		if err != nil {
			l.find("unread", path, 0, trust.PublicKey{}, "cannot be listed: %v", errors.Unwrap(err))
		}
		for _, e := range entries {
			l.path(filepath.Join(path, e.Name()), depth+1)
		}
	case info.Mode().IsRegular():
		l.file(path, info)
	}
}

func (l *look) file(path string, info fs.FileInfo) {
	if l.read++; l.read > lookFiles {
		if l.read == lookFiles+1 {
			l.find("unread", path, 0, trust.PublicKey{}, "this and what follows is more than %d files", lookFiles)
		}
		return
	}
	name := filepath.Base(path)
	wanted := strings.HasPrefix(name, "authorized_keys") || strings.HasPrefix(name, "known_hosts") || strings.HasPrefix(name, "ssh_known_hosts")
	if info.Size() > lookFileSize {
		if wanted {
			l.find("unread", path, 0, trust.PublicKey{}, "is longer than %d bytes", lookFileSize)
		}
		return
	}
	data, err := os.ReadFile(path)
	if err != nil {
		l.find("unread", path, 0, trust.PublicKey{}, "cannot be read: %v", errors.Unwrap(err))
		return
	}
	switch private, ok := trust.RecognizePrivateKey(data); {
	case ok:
		l.privateKey(path, info, private)
	case strings.HasPrefix(name, "authorized_keys"):
		l.authorizedKeys(path, data)
	case wanted:
		l.knownHosts(path, data)
	}
}

func (l *look) authorizedKeys(path string, data []byte) {
	f := lookFile{Path: path, Kind: "authorized_keys", Keys: []lookKey{}}
	parsed := trust.ParseAuthorizedKeys(data)
	seen := map[trust.PublicKey]int{}
	for i, line := range parsed.Lines() {
		n := i + 1
		switch line.Kind() {
		case trust.UnknownLine:
			l.find("ignored", path, n, trust.PublicKey{}, "sshd finds no key in this line: %s", line.Reason())
			continue
		case trust.KeyLine:
		default:
			continue
		}
		key := line.Key()
		f.Keys = append(f.Keys, keyOf(n, key, line.OptionsText(), line.Comment()))
		grant, err := line.Grant()
		if err != nil {
			l.find("ignored", path, n, key, "sshd ignores this line: %v", err)
		}
		if first, ok := seen[key]; ok {
			l.find("duplicate", path, n, key, "the same key stands in line %d: removing one leaves the other", first)
		}
		seen[key] = n
		l.weak(path, n, key)
		if rootFile(path) && err == nil && !grant.HasSource && !grant.HasForcedCommand && !grant.CertAuthority {
			l.find("unrestricted", path, n, key, "opens root from anywhere, to do anything")
		}
	}
	if n := parsed.Len(); n > 0 {
		last := parsed.Line(n - 1)
		if last.Ending() == "" {
			l.find("unterminated", path, n, trust.PublicKey{}, "the last line has no newline: what a script appends becomes part of it")
		}
	}
	l.report.Files = append(l.report.Files, f)
}

// rootFile reports whether a file lets in root, as far as its path tells.
func rootFile(path string) bool {
	return filepath.Base(filepath.Dir(filepath.Dir(path))) == "root" && filepath.Base(filepath.Dir(path)) == ".ssh"
}

func (l *look) knownHosts(path string, data []byte) {
	f := lookFile{Path: path, Kind: "known_hosts", Keys: []lookKey{}}
	for i, line := range trust.ParseKnownHosts(data).Lines() {
		switch line.Kind() {
		case trust.KeyLine:
			f.Keys = append(f.Keys, keyOf(i+1, line.Key(), "", line.Comment()))
			l.weak(path, i+1, line.Key())
		case trust.UnknownLine:
			l.find("ignored", path, i+1, trust.PublicKey{}, "ssh finds no key in this line: %s", line.Reason())
		}
	}
	l.report.Files = append(l.report.Files, f)
}

func (l *look) privateKey(path string, info fs.FileInfo, p trust.PrivateFile) {
	f := lookFile{Path: path, Kind: "private_key", Keys: []lookKey{}}
	if !p.Public.IsZero() {
		f.Keys = append(f.Keys, keyOf(0, p.Public, "", ""))
		l.weak(path, 0, p.Public)
	}
	l.report.Files = append(l.report.Files, f)
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		l.find("exposed", path, 0, p.Public, "is a private key that others may read or write (mode %04o)", mode)
	}
	host := strings.HasPrefix(filepath.Base(path), "ssh_host_")
	if !p.Encrypted && !host {
		l.find("unencrypted", path, 0, p.Public, "is a private key without a passphrase")
	}
}

// weak says what is wrong with the type or size of a key.
func (l *look) weak(path string, line int, key trust.PublicKey) {
	switch bits := key.Bits(); {
	case strings.HasPrefix(key.Type(), "ssh-dss"):
		l.find("weak", path, line, key, "is a DSA key, which no current server takes")
	case key.Type() == "ssh-rsa" && bits > 0 && bits < 2048:
		l.find("weak", path, line, key, "is an RSA key of %d bits, which is too short to hold", bits)
	}
}

// judge adds what follows from all files together, and puts all in order.
func (l *look) judge() {
	private := map[trust.PublicKey][]string{}
	for _, f := range l.report.Files {
		if f.Kind == "private_key" && len(f.Keys) == 1 {
			private[f.Keys[0].key] = append(private[f.Keys[0].key], f.Path)
		}
	}
	for _, f := range l.report.Files {
		for _, k := range f.Keys {
			places := private[k.key]
			switch {
			case f.Kind == "private_key" && len(places) > 1 && places[0] == f.Path:
				l.find("shared", f.Path, 0, k.key, "the same private key lies in %s, too", strings.Join(places[1:], ", "))
			case f.Kind == "authorized_keys" && len(places) == 0:
				l.find("unknown", f.Path, k.Line, k.key, "opens an account, and its private half is in none of the files that were read")
			}
		}
	}
	if l.report.Files == nil {
		l.report.Files = []lookFile{}
	}
	if l.report.Findings == nil {
		l.report.Findings = []lookFinding{}
	}
	slices.SortStableFunc(l.report.Findings, func(a, b lookFinding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line))
	})
}

func keyOf(line int, key trust.PublicKey, options, comment string) lookKey {
	return lookKey{
		Line: line, Type: key.Type(), Bits: key.Bits(), Fingerprint: string(key.Fingerprint()),
		Options: options, Comment: plain(comment), key: key,
	}
}

func printLook(w io.Writer, r lookReport) error {
	for _, f := range r.Files {
		if _, err := fmt.Fprintf(w, "%s  %s\n", plain(f.Path), f.Kind); err != nil {
			return err
		}
		for _, k := range f.Keys {
			line := ""
			if k.Line > 0 {
				line = fmt.Sprintf("line %d  ", k.Line)
			}
			if _, err := fmt.Fprintf(w, "    %s%s %s %s %s\n", line, k.Type, k.Fingerprint, plain(k.Options), k.Comment); err != nil {
				return err
			}
		}
	}
	if len(r.Findings) > 0 {
		if _, err := fmt.Fprintf(w, "\n%d findings\n", len(r.Findings)); err != nil {
			return err
		}
	}
	for _, f := range r.Findings {
		at := f.Path
		if f.Line > 0 {
			at = fmt.Sprintf("%s:%d", f.Path, f.Line)
		}
		if _, err := fmt.Fprintf(w, "%s: %s: %s\n", plain(at), f.Kind, plain(f.Text)); err != nil {
			return err
		}
	}
	return nil
}
