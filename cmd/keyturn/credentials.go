package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"keyturn/internal/trust"
)

// A savedLogin is what "keyturn login" got of one server.
type savedLogin struct {
	Token string     `json:"token"`
	User  string     `json:"user"`
	Until *time.Time `json:"until,omitempty"`
}

// savedLogins is the file of them, by the server's URL.
type savedLogins struct {
	Servers map[string]savedLogin `json:"servers"`
}

// credentialsPath is where logins are kept, in a file that nobody else can read.
func credentialsPath(env environ) (string, error) {
	dir := env("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // which the XDG Base Directory Specification has one ignore
		home := env("HOME")
		if !filepath.IsAbs(home) {
			return "", trust.Errorf(trust.Invalid, "there is no place to keep a login: neither XDG_CONFIG_HOME nor HOME is a directory")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "keyturn", "credentials.json"), nil
}

// maxCredentials bounds what is read of that file.
const maxCredentials = 1 << 20

// readLogins returns the logins that are kept. Where there is no place for any,
// there are none.
func readLogins(env environ) (savedLogins, error) {
	all := savedLogins{Servers: map[string]savedLogin{}}
	path, err := credentialsPath(env)
	if err != nil {
		return all, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, trust.Errorf(trust.Invalid, "%w", err)
	}
	if info.Mode().Perm()&0o077 != 0 || info.Size() > maxCredentials {
		return all, trust.Errorf(trust.Invalid, "%s can be read by others, or is none of ours: what it holds logs in", path).
			WithHint("chmod 600 %s, and keyturn login again if they may have", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return all, trust.Errorf(trust.Invalid, "%w", err)
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return all, trust.Errorf(trust.Invalid, "%s: %w", path, err).WithHint("remove it, and keyturn login")
	}
	if all.Servers == nil {
		all.Servers = map[string]savedLogin{}
	}
	return all, nil
}

// changeLogins changes the logins that are kept, whoever else does at the same time. The
// file is replaced whole, so that a crash leaves the old or the new one.
func changeLogins(env environ, change func(servers map[string]savedLogin)) error {
	path, err := credentialsPath(env)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return trust.Errorf(trust.Invalid, "%w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return trust.Errorf(trust.Invalid, "%w", err)
	}
	defer dir.Close() // which unlocks it
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return trust.Errorf(trust.Invalid, "%s cannot be locked: %w", dir.Name(), err)
	}
	all, err := readLogins(env)
	if err != nil {
		return err
	}
	change(all.Servers)
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(path, append(data, '\n')); err != nil {
		return trust.Errorf(trust.Invalid, "the login cannot be kept: %w", err)
	}
	return nil
}

// replacePublicFile writes a file that everybody may read, or whoever could read the one
// at path, and puts it in the place of that one, or of what that leads to.
func replacePublicFile(path string, data []byte) error {
	was, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is a symbolic link to what does not exist", path)
		}
	case err != nil:
		return err
	case !was.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	default:
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	return replaceFile(path, data, func(f *os.File) error {
		if was == nil {
			return f.Chmod(0o644)
		}
		if owner, ok := was.Sys().(*syscall.Stat_t); ok {
			_ = f.Chown(int(owner.Uid), int(owner.Gid)) // who may not is the owner of what is new
		}
		return f.Chmod(was.Mode().Perm())
	})
}

// replaceFile writes a file that only its owner can read, but for what dress makes of it,
// and puts it in the place of path.
func replaceFile(path string, data []byte, dress ...func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	for _, change := range dress {
		err = cmp.Or(err, change(f))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
