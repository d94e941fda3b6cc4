package lab

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A process is one run of a server: the listener and what came out of it.
type process struct {
	cmd    *exec.Cmd
	pipe   string        // the name of the pipe that its log goes through
	ended  chan struct{} // closed when the listener has been waited for
	logged chan struct{} // closed when the last line of its log has been read
	reader *os.File
}

// startProcess starts cmd, adds what it writes to stderr to log, and waits for
// it in the background, on a thread that does nothing else: the thread's end is
// the server's end, see sysProcAttr, and threads that goroutines share may end
// at any time.
func startProcess(cmd *exec.Cmd, log *Log) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.Stderr = w
	cmd.SysProcAttr = sysProcAttr()
	p := &process{cmd: cmd, pipe: pipeName(r), reader: r, ended: make(chan struct{}), logged: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // how it ended is in its log
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(err, r.Close())
	}
	go func() {
		defer close(p.logged)
		_, _ = log.ReadFrom(r) // until its last process has ended
		_ = r.Close()
	}()
	return p, nil
}

// running reports whether the listener has not ended.
func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill ends the listener, every process that descends from it, and every
// process that was started in a session on the server at host and port, and
// returns when all of them have ended. Parents are stopped before their children
// are listed, so that nothing is born behind our back.
func (p *process) kill(host, port string) {
	doomed := make(map[int]bool)
	if p.running() {
		doomed[p.cmd.Process.Pid] = true
		_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGSTOP)
	}
	self := os.Getpid()
	for grown := true; grown; {
		grown = false
		table, err := processes()
		if err != nil {
			break // no /proc: the listener and its group must do
		}
		for pid, parent := range table {
			ours := doomed[parent] || writesTo(pid, p.pipe) || inSession(pid, host, port)
			if ours && pid != self && !doomed[pid] && syscall.Kill(pid, syscall.SIGSTOP) == nil {
				doomed[pid], grown = true, true
			}
		}
	}
	if p.running() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	for pid := range doomed {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.ended
	for patience := time.Now().Add(5 * time.Second); anyOf(doomed) && time.Now().Before(patience); {
		time.Sleep(time.Millisecond) // nobody tells us when a grandchild ends
	}
	select {
	case <-p.logged:
	case <-time.After(time.Second): // something that we may not kill holds the pipe
		_ = p.reader.Close()
		<-p.logged
	}
}

// hangUp asks every process that descends from the listener, or that was started in a
// session on the server at host and port, to end, and waits a while until all have: a
// shell that has something to clear away does so.
func (p *process) hangUp(host, port string) {
	if !p.running() {
		return
	}
	// What is born after the first look may be what clears away: it gets its time.
	const birth = 200 * time.Millisecond
	self, listener, asked, seen := os.Getpid(), p.cmd.Process.Pid, make(map[int]bool), make(map[int]time.Time)
	for patience := time.Now().Add(time.Second); time.Now().Before(patience); time.Sleep(5 * time.Millisecond) { // nobody tells us when a grandchild ends
		table, err := processes()
		if err != nil {
			return
		}
		left := make(map[int]bool)
		for grown := true; grown; {
			grown = false
			for pid, parent := range table {
				ours := parent == listener || left[parent] || asked[pid] || inSession(pid, host, port)
				if ours && pid != self && pid != listener && !left[pid] {
					left[pid], grown = true, true
				}
			}
		}
		first := len(seen) == 0
		for pid := range left {
			if _, known := seen[pid]; !known {
				seen[pid] = time.Now()
			}
			if !asked[pid] && (first || time.Since(seen[pid]) > birth) {
				asked[pid] = true
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		}
		if len(left) == 0 {
			return
		}
	}
}

// anyOf reports whether one of the processes still runs.
func anyOf(pids map[int]bool) bool {
	table, err := processes()
	if err != nil {
		return false
	}
	for pid := range pids {
		if _, runs := table[pid]; runs {
			return true
		}
	}
	return false
}
