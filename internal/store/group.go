package store

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"keyturn/internal/trust"
)

// Group commit. A durable commit costs one fsync, some hundred microseconds,
// and a change some tens; so one goroutine, the writer, owns the connection
// that writes and commits the changes of many callers at once. Its rules:
//
//   - What fails is undone, and fails alone. Few changes fail, and of those most
//     before they have changed a row; so a group runs without savepoints, for
//     which SQLite copies each page that is touched. Where a member fails that has
//     changed something, the group is rolled back and its members run again,
//     each in a savepoint; and so do the next groups, at once.
//   - The function of a member runs in the goroutine of its caller, when the
//     writer gives it the turn. So a panic or runtime.Goexit happens where it
//     belongs, and costs that member only.
//   - No context of a caller reaches the driver. An interrupt, a full disk or
//     an I/O error makes SQLite roll back everybody; the first must not
//     happen, and the others are found by the rollback hook.
//   - Then, and when COMMIT fails, nothing of the group was changed: each
//     member runs again, in a transaction of its own. This includes those that
//     had failed: they may have failed by what they saw of another.
//   - No caller hears of an outcome before the transaction that it depends on
//     is committed.
//   - Nothing is committed but by the writer: its commit hook turns any other
//     commit into a rollback, such as that of a statement which comes after
//     SQLite has ended the transaction by itself.
const (
	// maxGroup bounds how many members share a commit, and with it how many
	// run again alone when one of them fills the disk.
	maxGroup = 256
	// maxHold bounds for how long a group takes in further members.
	maxHold = 50 * time.Millisecond
	// waryGroups is how many groups run in savepoints after one that had to run
	// again for want of them.
	waryGroups = 64
	// maxQueue is how many requests may wait before senders do.
	maxQueue = 1024
)

// States of a request: whoever moves it away from waiting decides whether it
// runs.
const (
	waiting  int32 = iota
	taken          // by the writer: its caller waits for the outcome
	departed       // its caller has gone: the writer skips it
)

// A request is an Update that waits for its commit.
type request struct {
	ctx   context.Context
	tx    *Tx
	fn    func(*Tx) error
	state atomic.Int32
	word  chan word  // from the writer
	done  chan error // to the writer: how the turn went

	err error // how the last turn went; owned by the writer
}

// A word of the writer to a caller: to run now, or how it ended.
type word struct {
	run bool
	err error
}

// errFled is how a turn went whose function did not return.
var errFled = errors.New("function panicked or exited its goroutine")

// turn runs the request's function in its caller's goroutine.
func (r *request) turn(c conn) {
	err := errFled
	defer func() { r.done <- err }()
	err = r.tx.run(context.Background(), r.ctx, c, r.fn)
}

// A writer owns the connection that writes.
type writer struct {
	*session
	queue   chan *request
	stop    chan struct{} // closed: take nothing more
	stopped chan struct{} // closed: the goroutine has ended
	hold    time.Duration // maxHold

	wary       int  // groups to come that run in savepoints
	committing bool // a commit is wanted; read by the commit hook
	standing   bool // the transaction has not been rolled back; set by the rollback hook
}

func startWriter(s *session) (*writer, error) {
	w := &writer{
		session: s, queue: make(chan *request, maxQueue), hold: maxHold,
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	err := s.Raw(func(c any) error {
		hooks := c.(*sqliteConn)
		hooks.RegisterCommitHook(func() int32 {
			if w.committing {
				return 0
			}
			return 1
		})
		hooks.RegisterRollbackHook(func() { w.standing = false })
		return nil
	})
	if err != nil {
		return nil, err
	}
	go w.loop()
	return w, nil
}

func (w *writer) close() {
	close(w.stop)
	<-w.stopped
	w.discard() // or the write-ahead log is never folded into the database
}

// update hands a request to the writer, runs its function when it has the
// turn, and returns the outcome.
func (w *writer) update(ctx context.Context, tx *Tx, fn func(*Tx) error) error {
	if ctx.Err() != nil {
		return gone(ctx) // a select below would take any of what is ready
	}
	r := &request{ctx: ctx, tx: tx, fn: fn, word: make(chan word, 1), done: make(chan error, 1)}
	select {
	case <-w.stop:
		return errClosed
	default:
	}
	select {
	case w.queue <- r:
	case <-ctx.Done():
		return gone(ctx)
	case <-w.stop:
		return errClosed
	}
	left := ctx.Done()
	for {
		select {
		case said := <-r.word:
			if !said.run {
				return said.err
			}
			r.turn(w)
		case <-left:
			if r.state.CompareAndSwap(waiting, departed) {
				return gone(ctx)
			}
			left = nil
		case <-w.stopped:
			select {
			case said := <-r.word:
				return said.err
			default:
				return errClosed
			}
		}
	}
}

func (w *writer) loop() {
	defer close(w.stopped)
	for {
		select {
		case r := <-w.queue:
			w.group(r)
		case <-w.stop:
			return
		}
	}
}

// group commits first and whoever comes while it is at work.
func (w *writer) group(first *request) {
	members, outcome := w.together(first)
	if outcome == spoiled {
		w.wary = waryGroups
		outcome = w.again(members)
	}
	for _, r := range members {
		if r.err == errFled {
			continue // nobody waits for the outcome
		}
		if outcome != committed {
			w.alone(r)
		}
		r.word <- word{err: r.err}
	}
}

// An outcome is what became of the transaction of a group.
type outcome int

const (
	committed outcome = iota // or will be
	spoiled                  // rolled back, for one who failed and had changed something
	lost                     // rolled back by SQLite, or never begun
)

// together runs members in one transaction and commits it.
func (w *writer) together(first *request) (members []*request, o outcome) {
	wary := w.wary > 0
	w.wary = max(0, w.wary-1)
	if err := w.begin(); err != nil {
		if first.state.CompareAndSwap(waiting, taken) {
			first.err = err
			members = append(members, first)
		}
		return members, committed // the error is theirs
	}
	begun := time.Now()
	for r := first; r != nil; r = w.another(len(members), begun) {
		if !r.state.CompareAndSwap(waiting, taken) {
			continue
		}
		members = append(members, r)
		if o := w.member(r, wary); o != committed {
			w.rollback()
			return members, o
		}
	}
	return members, w.end()
}

// again runs the members of a spoiled group in one transaction, each in a savepoint,
// and commits it.
func (w *writer) again(members []*request) outcome {
	if w.begin() != nil {
		return lost
	}
	for _, r := range members {
		if r.err == errFled {
			continue
		}
		if o := w.member(r, true); o != committed {
			w.rollback()
			return o
		}
	}
	return w.end()
}

// end commits the transaction of a group.
func (w *writer) end() outcome {
	if w.commit() != nil {
		return lost
	}
	return committed
}

// another returns the next member of a group of n, or nil to commit. Those who were just
// told how the last group ended may be about to ask for more, and only wait for a processor:
// they go first, or every other commit would be of one member, who was the quickest.
func (w *writer) another(n int, begun time.Time) *request {
	if n >= maxGroup || time.Since(begun) > w.hold {
		return nil
	}
	if len(w.queue) == 0 {
		runtime.Gosched()
	}
	select {
	case r := <-w.queue:
		return r
	default:
		return nil
	}
}

// member runs r as one of a group, if wary in a savepoint, and returns what becomes
// of the group by it.
func (w *writer) member(r *request, wary bool) outcome {
	if wary && w.control("SAVEPOINT member") != nil {
		return lost
	}
	r.word <- word{run: true}
	r.err = <-r.done
	switch {
	case !w.standing:
		return lost
	case !wary && r.err != nil && r.tx.changed:
		return spoiled
	case !wary:
		return committed
	case r.err != nil && w.control("ROLLBACK TO member") != nil:
		return lost
	case w.control("RELEASE member") != nil || !w.standing:
		return lost
	}
	return committed
}

// alone runs r in a transaction of its own.
func (w *writer) alone(r *request) {
	if r.err = w.begin(); r.err != nil {
		return
	}
	r.word <- word{run: true}
	if r.err = <-r.done; r.err != nil {
		w.rollback()
		return
	}
	r.err = w.commit()
}

func (w *writer) begin() error {
	w.standing = true
	err := w.control("BEGIN IMMEDIATE")
	if err != nil {
		// Should an earlier ROLLBACK have failed, its transaction is in the way.
		_ = w.control("ROLLBACK")
		w.standing = true
		err = w.control("BEGIN IMMEDIATE")
	}
	return explainSQLite(err)
}

// commit commits, or leaves nothing of the transaction.
func (w *writer) commit() error {
	if !w.standing {
		w.rollback()
		return trust.Errorf(trust.Unavailable, "database: the transaction was rolled back")
	}
	w.committing = true
	err := w.control("COMMIT")
	w.committing = false
	if err != nil {
		w.rollback()
	}
	return explainSQLite(err)
}

// rollback ends the transaction, unless SQLite has done so itself.
func (w *writer) rollback() {
	if w.standing {
		_ = w.control("ROLLBACK")
	}
}

func (w *writer) control(statement string) error {
	_, err := w.ExecContext(context.Background(), statement)
	return err
}
