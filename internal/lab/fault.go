package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"keyturn/internal/trust"
)

// Reload has the server read its configuration again, as "systemctl reload ssh"
// does, and returns when it listens again. Open sessions go on; for some
// milliseconds new connections are refused. With a configuration that is wrong
// sshd ends, as it does everywhere: the error then is of kind Unavailable.
func (s *Server) Reload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reload(ctx)
}

// reload sends SIGHUP. s.mu is held.
func (s *Server) reload(ctx context.Context) error {
	if !s.run.running() {
		return trust.Errorf(trust.Unavailable, "server %q is down", s.name)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	remove, err := s.plantLie()
	if err != nil {
		return err
	}
	defer remove()
	before := s.log.Seq()
	if err := s.run.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	if err := s.awaitListening(ctx, before); err != nil {
		return trust.Errorf(trust.Unavailable, "server %q does not reload: %w", s.name, err)
	}
	return nil
}

// Lie makes the server honor, from now on, the authorized keys of this moment,
// whatever is written to the files later: a host that takes a new line, shows
// it, and does not honor it, and that still honors a line which is gone. Its
// configuration looks as before, to a reader of the file and to sshd -T.
//
// The lie outlasts Restart and Reload, but not a SIGHUP from somebody else.
func (s *Server) Lie(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, path := range s.authorized {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(s.frozen(i))
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		} else if err == nil {
			err = os.MkdirAll(filepath.Dir(s.frozen(i)), 0o700)
			if err == nil {
				err = writeFile(s.frozen(i), text)
			}
		}
		if err != nil {
			return err
		}
	}
	s.lying = true
	return s.reload(ctx)
}

// Honest ends the lie.
func (s *Server) Honest(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lying = false
	return s.reload(ctx)
}

// frozen returns the path of the copy of the i-th authorized keys file that a
// lying server honors.
func (s *Server) frozen(i int) string {
	return filepath.Join(s.dir, "frozen", "authorized_keys."+strconv.Itoa(i))
}

// plantLie puts, if the server is to lie, a configuration file where sshd reads
// it before all else, and returns the function that takes it away once sshd has.
func (s *Server) plantLie() (remove func(), err error) {
	if !s.lying {
		return func() {}, nil
	}
	paths := make([]string, len(s.authorized))
	for i := range paths {
		paths[i] = s.frozen(i)
	}
	planted := filepath.Join(s.dir, "sshd_config.d", "00-frozen.conf")
	if err := writeFile(planted, []byte("AuthorizedKeysFile"+quotedList(paths)+"\n")); err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(planted) }, nil
}

// Freeze stops the listener where it stands: connections are accepted by the
// kernel and nothing is ever said on them. Open sessions go on.
func (s *Server) Freeze() error { return s.signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Server) Thaw() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.run.running() {
		return trust.Errorf(trust.Unavailable, "server %q is down", s.name)
	}
	return s.run.cmd.Process.Signal(sig)
}
