package job

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// seconds are not told: pauses have a random length.
var seconds = regexp.MustCompile(`(\d\d:\d\d):\d\d UTC`)

// A transcript is a file of commands, each followed by "----" and everything
// that happened until nothing more did. See the files for what there is to say.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("sqlite", func(t *testing.T) {
				url := storetest.SQLite(t, Schema)
				synctest.Test(t, func(t *testing.T) { replay(t, file, url, *update) })
			})
			t.Run("postgres", func(t *testing.T) {
				url := storetest.Postgres(t, Schema)
				synctest.Test(t, func(t *testing.T) { replay(t, file, url, false) })
			})
		})
	}
}

// A theater is where a transcript is played.
type theater struct {
	t       *testing.T
	store   *store.Store
	world   *world
	options Options
	engine  *Engine
	stop    context.CancelFunc
	stopped chan error
	crash   string // the point at which the engine crashes
	runs    []trust.RunID
}

func replay(t *testing.T, file, url string, update bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	th := &theater{t: t, store: storetest.OpenURL(t, url, Schema)}
	defer th.close()
	var out strings.Builder
	for block := range strings.SplitSeq(string(text), "\n\n") {
		block = strings.TrimRight(block, "\n")
		said, _, _ := strings.Cut(block, "\n----")
		var got []string
		for line := range strings.SplitSeq(said, "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				got = append(got, th.play(strings.Fields(line))...)
			}
		}
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		out.WriteString(said + "\n")
		if len(got) > 0 || strings.Contains(block, "\n----") {
			out.WriteString("----\n")
		}
		for _, line := range got {
			out.WriteString(line + "\n")
		}
	}
	if th.world != nil {
		for _, b := range th.world.broken {
			t.Errorf("locked out: %s", b)
		}
	}
	if update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := out.String(); got != string(text) {
		t.Errorf("%s does not come out as written (go test -update writes it):\n%s", file, firstDifference(string(text), got))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d: want %q, got %q, then\n%s", i+1, w[i], g[i], strings.Join(g[i:min(i+15, len(g))], "\n"))
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// play does what one line says, waits until nothing more happens, and returns
// what did.
func (th *theater) play(words []string) []string {
	th.t.Helper()
	if err := th.do(words[0], words[1:]); err != nil {
		th.world.say("error: %s: %v", trust.KindOf(err), err)
	}
	synctest.Wait()
	time.Sleep(50 * time.Millisecond) // PostgreSQL may ask to run a transaction again, a little later
	synctest.Wait()
	lines := th.world.said()
	if th.options.Workers > 1 && words[0] != "show" && words[0] != "look" { // what happens at the same time has no order
		lines = slices.DeleteFunc(lines, func(s string) bool { return strings.HasPrefix(s, "  [") })
		slices.Sort(lines)
	}
	for i, line := range lines {
		for n, id := range th.runs {
			line = strings.ReplaceAll(line, string(id), fmt.Sprintf("RUN%d", n+1))
		}
		line = seconds.ReplaceAllString(line, "$1")
		lines[i] = line
	}
	return lines
}

func (th *theater) do(command string, words []string) error {
	number := func(key string, otherwise int) int {
		for _, w := range words {
			if v, ok := strings.CutPrefix(w, key+"="); ok {
				n, err := strconv.Atoi(v)
				if err != nil {
					th.t.Fatal(err)
				}
				return n
			}
		}
		return otherwise
	}
	run := func() trust.RunID {
		if len(th.runs) == 0 {
			return "none"
		}
		return th.runs[number("run", len(th.runs))-1]
	}
	w := th.world
	switch command {
	case "world": // servers=3 clients=2 workers=1: what there is
		th.world = newWorld(number("servers", 3), number("clients", 2))
		th.options = Options{Workers: number("workers", 1), Log: quiet(), Hook: th.hook, Sole: true, Lease: time.Hour, Installation: "test"}
		th.world.skip, th.world.undone = slices.Contains(words, "skip"), slices.Contains(words, "undone")
		th.world.parts = slices.Contains(words, "parts")
		th.make()
	case "start":
		th.start()
	case "stop":
		th.close()
	case "restart": // after a crash
		th.close()
		th.make()
		th.start()
	case "crash": // at a point, the next time it is reached
		th.crash = strings.Join(words, " ")
	case "create": // canary=1 wave=1 approve=24, for so many hours
		p := w.plan(args{Old: "old", New: "new"})
		p.Canary, p.Wave = number("canary", 0), number("wave", 0)
		if hours := number("approve", 0); hours > 0 {
			p.ApproveBy = time.Now().Add(time.Duration(hours) * time.Hour)
		}
		return th.verb(func(tx *store.Tx) error {
			id, err := th.engine.Create(tx, alice(), p)
			if err == nil {
				th.runs = append(th.runs, id)
			}
			return err
		})
	case "approve":
		return th.verb(func(tx *store.Tx) error { return th.engine.Approve(tx, alice(), run()) })
	case "resume-all":
		return th.verb(func(tx *store.Tx) error {
			n, err := th.engine.ResumeAll(tx, alice())
			w.say("resumed %d", n)
			return err
		})
	case "pause":
		return th.verb(func(tx *store.Tx) error { return th.engine.Pause(tx, alice(), run()) })
	case "pause-all":
		return th.verb(func(tx *store.Tx) error {
			n, err := th.engine.PauseAll(tx, alice())
			w.say("paused %d", n)
			return err
		})
	case "resume":
		return th.verb(func(tx *store.Tx) error { return th.engine.Resume(tx, alice(), run()) })
	case "back":
		return th.verb(func(tx *store.Tx) error {
			id, err := th.engine.Back(tx, alice(), run(), nil)
			if err == nil && !slices.Contains(th.runs, id) {
				th.runs = append(th.runs, id)
			}
			if err == nil {
				w.say("goes back by %s", id)
			}
			return err
		})
	case "leave": // NAME, or unreachable
		which := Which{Name: words[0]}
		if words[0] == "unreachable" {
			which = Which{Unreachable: true}
		}
		return th.verb(func(tx *store.Tx) error {
			n, err := th.engine.Leave(tx, alice(), run(), which)
			if err == nil {
				w.say("left %d", n)
			}
			return err
		})
	case "fault": // do Prove s2: fails | unavailable | panics [once]
		what, how, _ := strings.Cut(strings.Join(words, " "), ": ")
		how, once := strings.CutSuffix(how, " once")
		var err error
		switch how {
		case "unavailable":
			err = trust.Errorf(trust.Unavailable, "connection refused")
		case "panics":
		default:
			err = trust.Errorf(trust.Denied, "%s", how)
		}
		w.faults[what] = fault{err, once}
	case "clear":
		delete(w.faults, strings.Join(words, " "))
	case "block":
		w.blocks[strings.Join(words, " ")] = make(chan struct{})
	case "unblock":
		close(w.blocks[strings.Join(words, " ")])
	case "sleep":
		d, err := time.ParseDuration(words[0])
		if err != nil {
			th.t.Fatal(err)
		}
		time.Sleep(d)
	case "show":
		return th.show(run())
	case "look":
		for line := range strings.SplitSeq(strings.TrimSuffix(w.state(), "\n"), "\n") {
			w.say("%s", line)
		}
	default:
		th.t.Fatalf("there is no command %q", command)
	}
	return nil
}

// make makes an engine, as a process that starts does.
func (th *theater) make() {
	e, err := New(th.store, []Procedure{th.world.procedure()}, th.options)
	if err != nil {
		th.t.Fatal(err)
	}
	th.engine = e
}

func (th *theater) start() {
	ctx, cancel := context.WithCancel(context.Background())
	th.stop, th.stopped = cancel, make(chan error, 1)
	e := th.engine
	go func() {
		err := e.Run(ctx)
		if err != nil {
			th.world.say("engine: %v", err)
		}
		th.stopped <- err
	}()
}

func (th *theater) close() {
	if th.stop != nil {
		th.stop()
		<-th.stopped
		th.stop = nil
	}
}

// hook says what is committed, and crashes where it is told to. What steps do
// they say themselves.
func (th *theater) hook(_ context.Context, point string) error {
	th.world.look(point)
	if th.crash == point {
		th.crash = ""
		return errors.New("crashed " + point)
	}
	commit, after := strings.CutPrefix(point, "after ")
	if after && !strings.HasPrefix(commit, "do ") && !strings.HasPrefix(commit, "undo ") {
		th.world.say("  [%s]", commit)
	}
	return nil
}

func (th *theater) verb(fn func(*store.Tx) error) error {
	err := verb(th.store, fn)
	th.engine.Wake()
	return err
}

// show says how a run stands.
func (th *theater) show(id trust.RunID) error {
	var d Detail
	err := th.store.View(context.Background(), storetest.Tenant, func(tx *store.Tx) (err error) {
		d, err = th.engine.Show(tx, id)
		// The run that takes this one back may have been planned meanwhile.
		if d.BackBy != "" && !slices.Contains(th.runs, d.BackBy) {
			th.runs = append(th.runs, d.BackBy)
		}
		return err
	})
	if err != nil {
		return err
	}
	say := th.world.say
	say("%s %s %s %s: %s", id, d.State, d.Direction, d.Row, d.Reason)
	if d.BackBy+d.BackOf != "" {
		say("back of %q, by %q", d.BackOf, d.BackBy)
	}
	for _, r := range d.Rows {
		line := fmt.Sprintf("  %-10s %d of %d", r.Step, r.Done, r.Targets)
		for _, c := range []struct {
			n    int
			word string
		}{{r.InFlight, "in flight"}, {r.Waiting, "waiting"}, {r.Failed, "failed"}, {r.Left, "left"}} {
			if c.n > 0 {
				line += fmt.Sprintf(", %d %s", c.n, c.word)
			}
		}
		if r.Skipped {
			line += ", skipped"
		}
		say("%s", line)
	}
	for _, c := range d.Troubled {
		say("  %s %s is %s after attempt %d: %s", c.Step, c.Target.Name, c.State, c.Attempt, c.Error)
	}
	for _, t := range d.Without {
		say("  without %s", t.Name)
	}
	return nil
}
