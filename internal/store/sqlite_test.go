package store_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

func openFile(t *testing.T, path string) *store.Store {
	t.Helper()
	return storetest.OpenURL(t, "sqlite:"+path, schemas...)
}

// A member is one of the updates that a test makes SQLite's writer commit in
// one group.
type member struct {
	ctx  context.Context
	fn   func(*store.Tx) error
	err  error
	runs int
	said any // by a panic
	over chan struct{}
}

func change(fn func(*store.Tx) error) *member { return &member{fn: fn} }

// together has the writer take members in this order in one go: they queue up
// behind an update that ends only when all are there. meanwhile, if there is
// one, runs just before.
func together(t *testing.T, s *store.Store, members []*member, meanwhile func()) {
	t.Helper()
	inside, proceed := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		if err := s.Update(context.Background(), storetest.Event(), func(*store.Tx) error {
			select {
			case <-inside:
			default:
				close(inside)
			}
			<-proceed
			return nil
		}); err != nil {
			t.Errorf("the update in front: %v", err)
		}
	})
	<-inside
	for i, m := range members {
		ctx := m.ctx
		if ctx == nil {
			ctx = context.Background()
		}
		m.over = make(chan struct{})
		all.Go(func() {
			defer func() { m.said = recover(); close(m.over) }()
			m.err = s.Update(ctx, storetest.Event(), func(tx *store.Tx) error {
				m.runs++
				return m.fn(tx)
			})
		})
		for deadline := time.Now().Add(10 * time.Second); store.Queued(s) != i+1; time.Sleep(50 * time.Microsecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d updates wait, want %d", store.Queued(s), i+1)
			}
		}
	}
	if meanwhile != nil {
		meanwhile()
	}
	close(proceed)
	all.Wait()
}

// commits counts the commits in a write-ahead log: its frames with a size of
// the database, which SQLite writes, and syncs, once for each commit.
// See the WAL format, section 1.3 of https://www.sqlite.org/walformat.html.
func commits(t *testing.T, path string) (n int) {
	t.Helper()
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	page := int(binary.BigEndian.Uint32(log[8:]))
	for frame := log[32:]; len(frame) >= 24+page; frame = frame[24+page:] {
		if binary.BigEndian.Uint32(frame[4:]) != 0 && string(frame[8:16]) == string(log[16:24]) {
			n++
		}
	}
	return n
}

func TestManyUpdatesShareACommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	s := openFile(t, path)
	store.SetHold(s, time.Hour)
	before := commits(t, path)
	var members []*member
	for i := range store.MaxGroup + 40 {
		members = append(members, change(add(fmt.Sprint(i), 1)))
	}
	together(t, s, members, nil)
	for i, m := range members {
		if m.err != nil || m.runs != 1 {
			t.Errorf("update %d: %v after %d runs", i, m.err, m.runs)
		}
	}
	// A full group, led by the one in front, and the rest.
	if got := commits(t, path) - before; got != 2 {
		t.Errorf("%d commits for %d updates", got, len(members)+1)
	}
	if events := eventsOf(t, s, storetest.Tenant); len(events) != len(members)+1 {
		t.Errorf("%d events for %d updates", len(events), len(members)+1)
	}
}

func TestOneFailsAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	s := openFile(t, path)
	failed := errors.New("failed")
	leaving, leave := context.WithCancel(t.Context())
	gone, leaveNow := context.WithCancel(t.Context())
	members := []*member{
		change(add("a", 1)),
		change(func(tx *store.Tx) error {
			if err := add("b", 1)(tx); err != nil {
				return err
			}
			return failed
		}),
		change(add("a", 2)), // exists
		change(func(tx *store.Tx) error {
			if err := add("c", 1)(tx); err != nil {
				return err
			}
			leave()
			return add("d", 1)(tx)
		}),
		change(add("e", 1)), // whose caller is gone
		change(add("f", 1)),
	}
	members[3].ctx, members[4].ctx = leaving, gone
	before := commits(t, path)
	together(t, s, members, func() { leaveNow(); <-members[4].over })
	if got := commits(t, path) - before; got > 2 {
		t.Errorf("%d commits", got)
	}
	if members[0].err != nil || members[5].err != nil {
		t.Errorf("the good ones: %v, %v", members[0].err, members[5].err)
	}
	if members[1].err != failed {
		t.Errorf("got %v, want the function's own error", members[1].err)
	}
	wantKind(t, members[2].err, trust.Conflict)
	wantKind(t, members[3].err, trust.Unavailable)
	wantKind(t, members[4].err, trust.Unavailable)
	if members[4].runs != 0 {
		t.Error("the change of a caller that had gone was tried")
	}
	if got := thingsOf(t, s, storetest.Tenant); got != "a=1 f=1" {
		t.Errorf("things %q", got)
	}
	if events := eventsOf(t, s, storetest.Tenant); len(events) != 3 {
		t.Errorf("%d events, want 3", len(events))
	}
}

func TestPanicInAGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	s := openFile(t, path)
	before := commits(t, path)
	members := []*member{
		change(add("a", 1)),
		change(func(tx *store.Tx) error {
			_ = add("b", 1)(tx)
			panic("on purpose")
		}),
		change(add("c", 1)),
	}
	together(t, s, members, nil)
	if members[1].said != "on purpose" {
		t.Errorf("recovered %v", members[1].said)
	}
	// The first runs again, as what it did cannot be told from what the second did.
	if members[0].err != nil || members[2].err != nil || members[0].runs != 2 || members[2].runs != 1 {
		t.Errorf("the others: %v, %v after %d, %d runs", members[0].err, members[2].err, members[0].runs, members[2].runs)
	}
	if got := thingsOf(t, s, storetest.Tenant); got != "a=1 c=1" {
		t.Errorf("things %q", got)
	}
	if got := commits(t, path) - before; got > 2 {
		t.Errorf("%d commits", got)
	}
}

// Who fails before having changed anything costs the others nothing.
func TestNobodyRunsAgainForARefusal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	s := openFile(t, path)
	refused := errors.New("refused")
	var members []*member
	for i := range 8 {
		members = append(members, change(add(fmt.Sprint(i), 1)), change(func(tx *store.Tx) error {
			var n int
			if err := tx.QueryRow(`SELECT count(*) FROM things`).Scan(&n); err != nil {
				return err
			}
			if _, err := tx.Exec(`DELETE FROM things WHERE tenant = $1 AND id = 'none'`, string(tx.Tenant())); err != nil {
				return err
			}
			return refused
		}))
	}
	before := commits(t, path)
	together(t, s, members, nil)
	for i, m := range members {
		want := error(nil)
		if i%2 == 1 {
			want = refused
		}
		if m.err != want || m.runs != 1 {
			t.Errorf("update %d: %v after %d runs", i, m.err, m.runs)
		}
	}
	if got := commits(t, path) - before; got > 2 {
		t.Errorf("%d commits", got)
	}
}

// Who fails after a change has the group run again, and the next ones in savepoints:
// whoever does so all the time costs the others that once.
func TestGroupsAreWary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	s := openFile(t, path)
	failed := errors.New("failed")
	// insert has what changes a row tell so in another way than Exec does.
	insert := func(tx *store.Tx) error {
		var id string
		return errors.Join(tx.QueryRow(`INSERT INTO things (tenant, id) VALUES ($1, 'half') RETURNING id`, string(tx.Tenant())).Scan(&id), failed)
	}
	for round, wantRuns := range []int{2, 1} {
		members := []*member{change(add(fmt.Sprint("a", round), 1)), change(insert), change(add(fmt.Sprint("b", round), 1))}
		before := commits(t, path)
		together(t, s, members, nil)
		if members[0].err != nil || members[2].err != nil || members[0].runs != wantRuns || members[2].runs != 1 {
			t.Errorf("round %d: %v, %v after %d, %d runs", round, members[0].err, members[2].err, members[0].runs, members[2].runs)
		}
		if !errors.Is(members[1].err, failed) {
			t.Errorf("round %d: got %v, want the function's own error", round, members[1].err)
		}
		if got := commits(t, path) - before; got > 2 {
			t.Errorf("round %d: %d commits", round, got)
		}
	}
	if got := thingsOf(t, s, storetest.Tenant); got != "a0=1 a1=1 b0=1 b1=1" {
		t.Errorf("things %q", got)
	}
}

// SQLite itself ends a transaction when it must, and with it the changes of
// everybody in the group. OR ROLLBACK makes it do so.
func TestGroupSurvivesTheLossOfItsTransaction(t *testing.T) {
	s := storetest.Open(t, schemas...)
	mustUpdate(t, s, add("taken", 1))
	times := map[string][]time.Time{}
	once := func(id string) *member {
		return change(func(tx *store.Tx) error {
			times[id] = append(times[id], tx.Now())
			tx.Note("id", id)
			return add(id, 1)(tx)
		})
	}
	members := []*member{
		once("a"),
		change(func(tx *store.Tx) error {
			// The error is passed over; what comes next must not be committed.
			_, _ = tx.Exec(`INSERT OR ROLLBACK INTO things (tenant, id) VALUES ($1, 'taken')`, string(tx.Tenant()))
			_ = add("stray", 1)(tx)
			return nil
		}),
		once("b"),
		once("c"),
	}
	together(t, s, members, nil)
	wantKind(t, members[1].err, trust.Conflict)
	for _, i := range []int{0, 2, 3} {
		if members[i].err != nil {
			t.Errorf("member %d: %v", i, members[i].err)
		}
	}
	if got := thingsOf(t, s, storetest.Tenant); got != "a=1 b=1 c=1 taken=1" {
		t.Errorf("things %q", got)
	}
	if a := times["a"]; len(a) != 2 || !a[0].Equal(a[1]) {
		t.Errorf("the times of a's runs are %v, want two that are the same", a)
	}
	notes := map[string]int{}
	for _, e := range eventsOf(t, s, storetest.Tenant) {
		for _, f := range e.Leaf.Fields {
			notes[f.Value]++
		}
	}
	if fmt.Sprint(notes) != "map[a:1 b:1 c:1]" {
		t.Errorf("notes %v", notes)
	}
}

// When COMMIT fails, those who failed before it run again too: they may have
// failed by what they saw of another.
func TestCommitThatFailsIsTriedByEachAlone(t *testing.T) {
	s := storetest.Open(t, schemas...)
	members := []*member{
		change(func(tx *store.Tx) error {
			if err := add("x", 1)(tx); err != nil {
				return err
			}
			_, err := tx.Exec(`INSERT INTO parts (tenant, id, thing) VALUES ($1, 'p', 'missing')`, string(tx.Tenant()))
			return err // the reference is checked by COMMIT
		}),
		change(add("x", 2)), // exists, as long as the first one stands
		change(add("y", 1)),
	}
	together(t, s, members, nil)
	wantKind(t, members[0].err, trust.Conflict)
	if members[1].err != nil || members[2].err != nil {
		t.Errorf("the others: %v, %v", members[1].err, members[2].err)
	}
	if got := thingsOf(t, s, storetest.Tenant); got != "x=2 y=1" {
		t.Errorf("things %q", got)
	}
}

// A statement outside a transaction would be committed without an event.
func TestNothingIsCommittedButByTheWriter(t *testing.T) {
	s := storetest.Open(t, schemas...)
	if err := store.Stray(s, `INSERT INTO things (tenant, id) VALUES ('t', 'stray')`); err == nil {
		t.Error("a statement of its own was committed")
	}
	var n int
	if err := s.View(t.Context(), store.System, func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT count(*) FROM things`).Scan(&n)
	}); err != nil || n != 0 {
		t.Errorf("%d rows, %v", n, err)
	}
	mustUpdate(t, s, add("a", 1))
}

// body returns a change that inserts a thing of some size.
func body(id string, sizes ...int) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		for i, size := range sizes {
			if _, err := tx.Exec(`INSERT INTO things (tenant, id, n, body) VALUES ($1, $2, 1, $3)`, string(tx.Tenant()), fmt.Sprint(id, i), make([]byte, size)); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestFullDisk(t *testing.T) {
	onSmallDisk(t, "24m", func(t *testing.T, dir string) {
		s := openFile(t, filepath.Join(dir, "keyturn.db"))
		mustUpdate(t, s, add("first", 1))
		for name, large := range map[string]func(*store.Tx) error{
			"at commit":      body("large", 12<<20),
			"at a statement": body("large", 15<<20, 15<<20),
		} {
			fill(t, filepath.Join(dir, "fill"), 6<<20)
			members := []*member{
				change(add(name+" a", 1)),
				change(large),
				change(add(name+" b", 1)),
			}
			together(t, s, members, nil)
			wantKind(t, members[1].err, trust.Unavailable)
			var e *trust.Error
			if errors.As(members[1].err, &e); e.Hint == "" {
				t.Errorf("%s: no hint for %v", name, e)
			}
			if members[0].err != nil || members[2].err != nil {
				t.Errorf("%s: the others: %v, %v", name, members[0].err, members[2].err)
			}
			if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
				t.Fatal(err)
			}
		}
		mustUpdate(t, s, add("last", 1))
		if got := thingsOf(t, s, storetest.Tenant); got != "at a statement a=1 at a statement b=1 at commit a=1 at commit b=1 first=1 last=1" {
			t.Errorf("things %q", got)
		}
	})
}

// fill writes a file that leaves room bytes on its disk.
func fill(t *testing.T, path string, room int64) {
	t.Helper()
	var disk syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &disk); err != nil {
		t.Fatal(err)
	}
	size := int64(disk.Bavail)*disk.Bsize - room
	if size <= 0 {
		t.Fatalf("only %d bytes are free", size+room)
	}
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The log cannot grow: COMMIT itself fails, of the group and then of most
// members alone.
func TestCommitCannotBeWritten(t *testing.T) {
	onSmallDisk(t, "64m", func(t *testing.T, dir string) {
		path := filepath.Join(dir, "keyturn.db")
		s := openFile(t, path)
		mustUpdate(t, s, add("first", 1))
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		signal.Ignore(syscall.SIGXFSZ)
		limit := syscall.Rlimit{Cur: uint64(info.Size()) + 90_000, Max: 1 << 40}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		var members []*member
		for i := range 40 {
			members = append(members, change(body(fmt.Sprint(i, " "), 20_000)))
		}
		together(t, s, members, nil)
		want := 1
		for i, m := range members {
			if m.err == nil {
				want++
			} else if trust.KindOf(m.err) != trust.Unavailable {
				t.Errorf("member %d: %v", i, m.err)
			}
		}
		if want == 1 || want > 20 {
			t.Errorf("%d of %d found room", want-1, len(members))
		}
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		if got := len(strings.Fields(thingsOf(t, s, storetest.Tenant))); got < want {
			t.Errorf("%d things, want %d", got, want)
		}
		mustUpdate(t, s, add("last", 1))
	})
}

func TestOneProcessHasTheFile(t *testing.T) {
	if inChild() {
		_, err := store.Open(t.Context(), store.Options{URL: os.Getenv("KEYTURN_TEST_URL"), Schema: schemas})
		wantKind(t, err, trust.Conflict)
		if !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getppid())) {
			t.Errorf("%q does not name process %d", err, os.Getppid())
		}
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a place % with ?", "key turn#.db")
	s := openFile(t, path)
	mustUpdate(t, s, add("a", 1))
	for _, file := range []string{path, path + "-wal", path + ".lock"} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"sqlite:" + path, "sqlite:" + link} {
		cmd := child(t, "KEYTURN_TEST_URL="+url)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", url, err, out)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openFile(t, path)
	if got := thingsOf(t, again, storetest.Tenant); got != "a=1" {
		t.Errorf("things %q", got)
	}
}

// What was deleted is in no file any more once the store is closed: the
// write-ahead log is folded into the database, whose free space is zeros.
func TestCloseLeavesNothingDeletedBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	s := openFile(t, path)
	secret := "a secret that was destroyed"
	mustUpdate(t, s, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO things (tenant, id, body) VALUES ($1, 'a', $2)`, string(tx.Tenant()), []byte(secret))
		return err
	})
	mustUpdate(t, s, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM things WHERE tenant = $1`, string(tx.Tenant()))
		return err
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path + "-wal"); err == nil {
		t.Errorf("the write-ahead log is still there, with %d bytes", info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), secret) {
		t.Error("the database still holds what was deleted")
	}
}

// What Update has answered is there after kill -9, and no change is there
// without its event.
func TestKilled(t *testing.T) {
	path := os.Getenv("KEYTURN_TEST_PATH")
	if inChild() {
		s := openFile(t, path)
		var wg sync.WaitGroup
		for c := range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d-%d", os.Getpid(), c, i)
					e := storetest.Event()
					e.Fields = []audit.Field{{Name: "id", Value: id}}
					if err := s.Update(context.Background(), e, add(id, 1)); err != nil {
						fmt.Println("failed", err)
						os.Exit(1)
					}
					fmt.Println("done", id)
				}
			})
		}
		wg.Wait()
	}
	path = filepath.Join(t.TempDir(), "keyturn.db")
	done := map[string]bool{}
	for round := range 5 {
		cmd := child(t, "KEYTURN_TEST_PATH="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			word, id, _ := strings.Cut(lines.Text(), " ")
			if word != "done" {
				t.Errorf("child says %q", lines.Text())
			}
			done[id] = true
			if n == 100+37*round {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
	}
	s := openFile(t, path)
	ids := map[string]bool{}
	for _, thing := range strings.Fields(thingsOf(t, s, storetest.Tenant)) {
		ids[strings.TrimSuffix(thing, "=1")] = true
	}
	for id := range done {
		if !ids[id] {
			t.Errorf("%s was answered and is lost", id)
		}
	}
	events := 0
	for after := ""; ; {
		list, err := s.Events(t.Context(), storetest.Tenant, "", after, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			events++
			if id := e.Leaf.Fields[0].Value; !ids[id] {
				t.Errorf("an event without its change: %s", id)
			}
			after = e.ID
		}
		if len(list) == 0 {
			break
		}
	}
	if events != len(ids) || len(ids) < len(done) || len(done) < 500 {
		t.Errorf("%d events, %d changes, %d of them answered", events, len(ids), len(done))
	}
}

// A writer keeps at its work while readers come and go, and a reader that
// stays does not stop it.
func TestReadersAndWriterDoNotWaitForEachOther(t *testing.T) {
	s := storetest.Open(t, schemas...)
	mustUpdate(t, s, add("n", 0))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for last := int64(-1); ctx.Err() == nil; {
				n, err := find(s, "n")
				if err != nil || n < last {
					t.Errorf("read %d after %d: %v", n, last, err)
				}
				last = n
			}
		})
	}
	err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
		if _, err := read(tx, "n"); err != nil {
			return err
		}
		for i := range 50 {
			mustUpdate(t, s, func(tx *store.Tx) error {
				_, err := tx.Exec(`UPDATE things SET n = $1 WHERE tenant = $2`, i+1, string(tx.Tenant()))
				return err
			})
			if n, err := find(s, "n"); n != int64(i+1) || err != nil {
				t.Errorf("read %d, %v after %d was written", n, err, i+1)
			}
		}
		return nil
	})
	stop()
	wg.Wait()
	if err != nil {
		t.Error(err)
	}
}
