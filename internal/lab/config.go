package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"keyturn/internal/trust"
)

// configText returns a server's sshd_config. The caller's lines come first,
// because the first value of a keyword counts (sshd_config(5)), except for Match
// blocks and what follows them, which would take our lines into the block.
func configText(s *Server, extra []string) string {
	before, after := extra, []string(nil)
	for i, line := range extra {
		if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.EqualFold(word, "match") {
			before, after = extra[:i], extra[i:]
			break
		}
	}
	host, port := s.endpoint()
	var b strings.Builder
	fmt.Fprintf(&b, "# Throw-away server %q.\n", s.name)
	fmt.Fprintf(&b, "Include %s\n", quote(filepath.Join(s.dir, "sshd_config.d", "*.conf")))
	for _, line := range before {
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, "ListenAddress %s\nPort %s\n", host, port)
	fmt.Fprintf(&b, "HostKey %s\n", quote(s.hostKeyPath))
	fmt.Fprintf(&b, "AuthorizedKeysFile%s\n", quotedList(s.authorized))
	// A session's "~" is this server's own home, see the package comment.
	fmt.Fprintf(&b, "SetEnv %s\n", quote("HOME="+s.home))
	yesNo := map[bool]string{true: "yes", false: "no"}
	fmt.Fprintf(&b, "StrictModes %s\n", yesNo[s.strictModes])
	// The hybrid with sntrup761, which clients from 8.5 to 9.8 prefer, takes an
	// eighth of a second of their processor and nothing that is tested.
	b.WriteString(`PidFile none
KexAlgorithms -sntrup761*
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
LogLevel VERBOSE
MaxStartups 1000
MaxSessions 100
UseDNS no
PrintMotd no
Subsystem sftp internal-sftp
`)
	if s.penaltiesOff {
		b.WriteString("PerSourcePenalties no\n")
	}
	for _, line := range after {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// quote returns s as one argument of sshd_config.
func quote(s string) string { return `"` + s + `"` }

// quotedList returns paths as arguments of AuthorizedKeysFile, where "%" begins
// a token.
func quotedList(paths []string) string {
	var b strings.Builder
	for _, path := range paths {
		b.WriteString(" " + quote(strings.ReplaceAll(path, "%", "%%")))
	}
	return b.String()
}

// checkPath refuses what quote cannot express.
func checkPath(path string) error {
	if strings.ContainsAny(path, "\"\\\r\n\x00") {
		return trust.Errorf(trust.Invalid, "directory %q cannot be written in sshd_config: it contains a quote, a backslash or a line break", path)
	}
	return nil
}

// writeFile writes a new file, or a file anew, by rename: sshd never reads half
// of it.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
