//go:build linux

package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// systemd keeps what it starts in control groups. Each host with systemd gets a
// group of its own, "keyturn-lab.PID/WORLD.NUMBER", below the one that the tests
// run in, and sees it as the root of all. PID is that of the process outside. The
// kernel keeps groups when the processes in them end, so that these need cleaning up
// after, unlike all else: by the process outside at its end, or if that was killed,
// by the next one.

const groupPrefix = "keyturn-lab."

// ownGroup returns the directory of the control group that this process runs in, in
// the hierarchy that systemd uses: the one of version 2 where that is the machine's
// only, else the one of version 1 that bears systemd's name.
func ownGroup() (dir string, unified bool, err error) {
	var stat unix.Statfs_t
	unified = unix.Statfs("/sys/fs/cgroup", &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC
	mount, path := "", ""
	err = errors.Join(
		eachLine("/proc/self/mountinfo", func(line string) {
			// ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS... - TYPE SOURCE SUPEROPTIONS
			before, after, _ := strings.Cut(line, " - ")
			fields, kind := strings.Fields(before), strings.Fields(after)
			if len(fields) < 6 || len(kind) < 3 || fields[3] != "/" {
				return
			}
			if unified && kind[0] == "cgroup2" || !unified && kind[0] == "cgroup" && strings.Contains(kind[2], "name=systemd") {
				mount = fields[4]
			}
		}),
		eachLine("/proc/self/cgroup", func(line string) {
			// NUMBER:CONTROLLERS:PATH
			if fields := strings.SplitN(line, ":", 3); len(fields) == 3 && (unified && fields[0] == "0" || !unified && fields[1] == "name=systemd") {
				path = fields[2]
			}
		}),
	)
	if err != nil {
		return "", false, err
	}
	if mount == "" || path == "" {
		return "", false, errors.New("this machine has no control groups for systemd")
	}
	return filepath.Join(mount, path), unified, nil
}

func eachLine(path string, do func(line string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		do(lines.Text())
	}
	return lines.Err()
}

// makeGroup makes the control group for a host with systemd, anew.
func (h *Host) makeGroup() (dir string, unified bool, err error) {
	own, unified, err := ownGroup()
	if err != nil {
		return "", false, err
	}
	dir = filepath.Join(own, groupPrefix+entered.outer, fmt.Sprintf("%d.%d", h.world.number, h.number))
	removeGroup(dir) // of the boot before
	return dir, unified, os.MkdirAll(dir, 0o755)
}

// removeGroup removes a control group and those below it, as far as no process is in
// them.
func removeGroup(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeGroup(filepath.Join(dir, entry.Name()))
		}
	}
	_ = os.Remove(dir)
}

// sweepGroups removes the control groups of this process, and of those before it
// that no longer run.
func sweepGroups() {
	own, _, err := ownGroup()
	if err != nil {
		return
	}
	left, _ := filepath.Glob(filepath.Join(own, groupPrefix+"*"))
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), groupPrefix))
		if err == nil && (pid == os.Getpid() || errors.Is(unix.Kill(pid, 0), unix.ESRCH)) {
			removeGroup(dir)
		}
	}
}
