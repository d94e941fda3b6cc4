package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyturn/internal/job"
	"keyturn/internal/lab"
	"keyturn/internal/lab/sim"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// A wardHost is a host of a ward: a real server, or a simulated one.
type wardHost interface {
	Name() string
	Address() string
	User() string // to log in as
	Home() string
	HostKey() trust.PublicKey
	// read returns a file and its mode.
	read(path string) (data []byte, mode string, err error)
	write(path, text string) error
	// files returns everything in ~/.ssh, with modes.
	files() (map[string]string, error)
}

// keysFile returns the file of a host's authorized keys.
func keysFile(h wardHost) string { return filepath.Join(h.Home(), ".ssh", "authorized_keys") }

type labHost struct{ *lab.Server }

func (h labHost) read(path string) ([]byte, string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", err
	}
	return data, info.Mode().String(), nil
}

func (h labHost) write(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

func (h labHost) files() (map[string]string, error) {
	all := map[string]string{}
	return all, filepath.WalkDir(filepath.Join(h.Home(), ".ssh"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data := []byte{}
		if info.Mode().IsRegular() {
			if data, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		all[path] = fmt.Sprintf("%s %s", info.Mode(), data)
		return nil
	})
}

type simHost struct{ *sim.Host }

func (h simHost) User() string { return "deploy" }

func (h simHost) Home() string { return "/home/deploy" }

func (h simHost) read(path string) ([]byte, string, error) {
	data, mode, err := h.Read(path)
	return data, fmt.Sprintf("%o", mode), err
}

func (h simHost) write(path, text string) error { return h.Write(h.User(), path, []byte(text), 0o600) }

func (h simHost) files() (map[string]string, error) { return h.Files(h.Home() + "/.ssh"), nil }

// labWard makes a ward of two real servers.
func labWard(t *testing.T, alter func([]job.Procedure)) *ward {
	t.Helper()
	w := &ward{world: newWorld(t, 2)}
	for _, s := range w.servers {
		w.hosts = append(w.hosts, labHost{s})
	}
	return newWard(w, alter)
}

// simWard makes a ward of n simulated hosts.
func simWard(t *testing.T, n int, alter func([]job.Procedure)) *ward {
	t.Helper()
	need.Within(t, 15*time.Minute) // hundreds of crashes
	w := &ward{world: &world{t: t, dir: memoryDir(t), workers: 8}}
	fleet, err := sim.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	ops := w.opsKey()
	w.start()
	var hosts []*sim.Host
	for i := range n {
		h, err := fleet.Add(sim.Options{Name: fmt.Sprintf("web%d", i+1)})
		if err == nil {
			err = h.Authorize("deploy", ops, "")
		}
		if err != nil {
			t.Fatal(err)
		}
		hosts, w.hosts = append(hosts, h), append(w.hosts, simHost{h})
	}
	w.enrolFleet(w.client, hosts)
	return newWard(w, alter)
}

// memoryDir returns a directory of the test's that lies in memory where there is
// one: the crashes here are the program's, not the machine's, and hundreds of
// them need not wait for a disk.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "keyturn-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
