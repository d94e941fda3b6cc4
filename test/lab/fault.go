//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"keyturn/internal/trust"
)

// PowerCut takes the power away: everything on the host ends at once, connections
// without a word. What was written stays, also what was not yet synced: a memory
// disk loses nothing.
func (h *Host) PowerCut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut()
}

// PowerOn boots the host again from the files that it had, with the same host
// keys, at the same address, and returns when its server listens. It may be called
// from a hook; [Host.Reboot] is for tests.
func (h *Host) PowerOn() error { return h.powerOn() }

// Reboot is PowerCut and PowerOn.
func (h *Host) Reboot(t testing.TB) {
	t.Helper()
	h.PowerCut()
	if err := h.PowerOn(); err != nil {
		t.Fatal(err)
	}
}

// CutNetwork pulls the host's network cable: nothing gets in or out, and nobody is
// told.
func (h *Host) CutNetwork(t testing.TB) {
	t.Helper()
	h.plug(t, "nomaster")
}

// Heal puts the cable back.
func (h *Host) Heal(t testing.TB) {
	t.Helper()
	h.plug(t, "master br0")
}

func (h *Host) plug(t testing.TB, where string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.run == nil {
		t.Fatalf("host %q is off", h.name)
	}
	if err := ip("link set " + h.run.link + " " + where); err != nil {
		t.Fatal(err)
	}
}

// FillDisk fills the disk that the host's homes share: files can still be created
// there, but not one byte written.
func (h *Host) FillDisk(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile(h.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err = f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2] // down to the last byte
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// FreeDisk takes away what FillDisk wrote.
func (h *Host) FreeDisk(t testing.TB) {
	t.Helper()
	if err := os.Remove(h.filler()); err != nil {
		t.Fatal(err)
	}
}

func (h *Host) filler() string { return filepath.Join(h.dir, "home", ".filler") }

// Freeze stops every process of the host's SSH server where it stands: the kernel
// still accepts connections and what is sent on them, and nothing is answered.
func (h *Host) Freeze() error { return h.signalServer(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (h *Host) Thaw() error { return h.signalServer(syscall.SIGCONT) }

func (h *Host) signalServer(sig syscall.Signal) error {
	run, err := h.current()
	if err != nil {
		return err
	}
	pids, err := run.serverProcesses()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return trust.Errorf(trust.Unavailable, "host %q runs no SSH server", h.name)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// Reload has the host's sshd read its configuration again and returns when it
// listens with it. A configuration that is wrong ends sshd, and the test.
func (h *Host) Reload(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	before := h.log.Seq()
	run, err := h.current()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := run.listener()
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGHUP)
	}
	if err == nil {
		err = h.awaitListening(ctx, run, before)
	}
	if err != nil {
		t.Fatalf("host %q does not reload: %v", h.name, err)
	}
}

// listener returns the world's number of the process that accepts connections.
func (r *running) listener() (int, error) {
	pids, err := r.serverProcesses()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		var parent int
		_, rest, _ := strings.Cut(string(status), "\nPPid:")
		if _, err := fmt.Sscan(rest, &parent); err == nil && !slices.Contains(pids, parent) {
			return pid, nil
		}
	}
	return 0, errors.New("no SSH server runs")
}

// serverProcesses returns the world's numbers of the host's processes that are the
// SSH server: the listener and one or two of each connection.
func (r *running) serverProcesses() ([]int, error) {
	host, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", r.pid()))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		name, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "comm"))
		if err != nil || !bytes.HasPrefix(name, []byte("sshd")) && strings.TrimSpace(string(name)) != "dropbear" {
			continue
		}
		if theirs, err := os.Readlink(filepath.Join("/proc", entry.Name(), "ns/pid")); err == nil && theirs == host {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
