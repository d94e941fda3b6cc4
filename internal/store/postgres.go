package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sync/semaphore"

	"keyturn/internal/trust"
)

const (
	// maxConns bounds the connections of one node that write, and again those
	// that read; others wait. PostgreSQL as it is delivered has 100 for all.
	maxConns = 12
	// maxTries bounds how often a transaction runs that others got in the way
	// of. After patientTries it runs while no node writes anything else.
	maxTries     = 20
	patientTries = 3
	// commitPatience bounds how long a COMMIT is waited for, and for how long
	// the server is asked what became of one whose answer was lost.
	commitPatience = 30 * time.Second
)

// ErrOutcomeUnknown is in the tree of the one error after which a change may
// have been made: PostgreSQL took a COMMIT, the connection broke before the
// answer, and the server could not be asked afterwards. Who goes on reads
// first what is there.
var ErrOutcomeUnknown = errors.New("connection lost during commit")

// A server is an open PostgreSQL database.
type server struct {
	reads, writes pool
	patience      time.Duration // commitPatience
	stop          chan struct{} // closed: begin nothing more
	closing       sync.Once
}

// A pool is the connections of one purpose.
type pool struct {
	db    *sql.DB
	begin string
	turns *semaphore.Weighted // one for each transaction, and all of them to close
}

// A transaction that writes takes its turn by a lock on a table without rows: beside
// others, or alone among those of all nodes. That is the one kind of lock that can be
// had before the snapshot is taken, which is then of what those waited for have left.
const (
	beginRead  = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
	beginWrite = "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE turns IN ROW SHARE MODE"
	beginAlone = "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE turns IN EXCLUSIVE MODE"
)

func openPostgres(ctx context.Context, dsn string, list []migration) (_ *server, err error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The text of the error repeats the URL, without its password.
		return nil, trust.Errorf(trust.Invalid, "database URL: %w", err)
	}
	defer func() {
		if err != nil {
			err = located(fmt.Sprintf("database %q on %q", config.Database, config.Host), explainPostgres(err))
		}
	}()
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 10 * time.Second
	}
	config.RuntimeParams["application_name"] = "keyturn"
	if err := migratePostgres(ctx, config.Copy(), list); err != nil {
		return nil, err
	}
	for name, value := range map[string]string{
		"statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "15s",
	} {
		if _, ok := config.RuntimeParams[name]; !ok {
			config.RuntimeParams[name] = value
		}
	}
	return &server{
		// REPEATABLE READ is one snapshot, which never makes a writer fail and
		// is never made to fail by one.
		reads:    openPool(config, beginRead),
		writes:   openPool(config, beginWrite),
		patience: commitPatience,
		stop:     make(chan struct{}),
	}, nil
}

func openPool(config *pgx.ConnConfig, begin string) pool {
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		// A commit that has returned is on disk, whatever the server's default.
		_, err := c.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
		return err
	}))
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour)
	return pool{db: db, begin: begin, turns: semaphore.NewWeighted(maxConns)}
}

func (s *server) close() (err error) {
	s.closing.Do(func() {
		close(s.stop)
		for _, p := range []pool{s.reads, s.writes} {
			_ = p.turns.Acquire(context.Background(), maxConns) // waits for what is under way
			err = errors.Join(err, p.db.Close())
			p.turns.Release(maxConns) // for those who wait for a turn, to be told
		}
	})
	return explainPostgres(err)
}

// turn runs one attempt when there is a connection for it.
func (s *server) turn(ctx context.Context, p pool, tx *Tx, fn func(*Tx) error) error {
	if err := p.turns.Acquire(ctx, 1); err != nil {
		return gone(ctx)
	}
	defer p.turns.Release(1)
	select {
	case <-s.stop:
		return errClosed
	default:
	}
	return s.attempt(ctx, p, tx, fn)
}

func (s *server) view(ctx context.Context, tx *Tx, fn func(*Tx) error) error {
	return s.turn(ctx, s.reads, tx, fn)
}

// update runs at SERIALIZABLE, again and again while PostgreSQL finds that
// others got in the way, and alone in the end: what others write all the time,
// on whatever node, does not keep it from being written.
func (s *server) update(ctx context.Context, tx *Tx, fn func(*Tx) error) error {
	p := s.writes
	for try := 1; ; try++ {
		if try > patientTries {
			p.begin = beginAlone
		}
		err := s.turn(ctx, p, tx, fn)
		again := isContention(err) || isTaken(err) && try < patientTries
		if !again || try == maxTries {
			return err
		}
		pause := time.NewTimer(rand.N(time.Millisecond << min(try, 7)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return gone(ctx)
		}
	}
}

// attempt runs fn in one transaction.
func (s *server) attempt(ctx context.Context, p pool, tx *Tx, fn func(*Tx) error) error {
	c, err := p.start(ctx, tx.tenant)
	if err != nil {
		return explain(ctx, err, explainPostgres)
	}
	defer c.end()
	if err := tx.run(ctx, ctx, c, fn); err != nil || !tx.write {
		return err
	}
	// From here on ctx is not heard any more: the outcome has to be known.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.patience)
	defer cancel()
	tag, err := c.control(ctx, "COMMIT")
	var refused *pgconn.PgError
	switch {
	case err == nil && tag == "COMMIT":
		return nil
	case err == nil: // "ROLLBACK": a statement had failed, which fn did not see
		return trust.Errorf(trust.Internal, "database: a statement had failed, and its transaction was rolled back")
	case errors.As(err, &refused) && refused.SeverityUnlocalized == "ERROR":
		return explainPostgres(err) // serialization_failure, or a constraint that was deferred
	}
	return s.verdict(tx, err)
}

// verdict finds out what became of a COMMIT without an answer. The event of
// the transaction is the witness: a second event of that id can be inserted
// only once the first transaction is over, and only if it failed.
func (s *server) verdict(tx *Tx, lost error) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		committed, err := s.isCommitted(ctx, tx)
		switch {
		case err == nil && committed:
			return nil
		case err == nil:
			return trust.Errorf(trust.Unavailable, "database: %w", fmt.Errorf("%w: %w", errUndone, lost))
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return trust.Errorf(trust.Unavailable, "database: %w", fmt.Errorf("%w, and it could not be asked whether the change was made: %w", ErrOutcomeUnknown, lost)).
				WithHint("see whether the change was made before making it again")
		}
	}
}

// errUndone is in the tree of an error after which nothing was changed, though
// a COMMIT was sent.
var errUndone = errors.New("the transaction was not committed")

func (s *server) isCommitted(ctx context.Context, tx *Tx) (bool, error) {
	c, err := s.writes.start(ctx, tx.tenant)
	if err != nil {
		return false, err
	}
	defer c.end() // rolls back
	_, err = c.ExecContext(ctx, insertEvent, string(tx.tenant), tx.event.String(), 0, "", "", "", "", []byte{}, nil)
	if trust.KindOf(explainPostgres(err)) == trust.Conflict {
		return true, nil
	}
	return false, err
}

// start begins a transaction on a connection of the pool, for the rows of one
// tenant. A connection that died at rest, as all do when the server restarts,
// is replaced.
func (p pool) start(ctx context.Context, tenant trust.TenantID) (*pgConn, error) {
	for try := 0; ; try++ {
		conn, err := p.db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		c := &pgConn{conn}
		if _, err = c.control(ctx, p.begin+"; "+forTenant(tenant)); err == nil {
			return c, nil
		}
		c.end()
		var refused *pgconn.PgError
		if try > maxConns || ctx.Err() != nil || errors.As(err, &refused) && refused.Code[:2] != "57" {
			return nil, err
		}
	}
}

// A pgConn is a connection to PostgreSQL.
type pgConn struct{ *sql.Conn }

func (c *pgConn) explain(err error) error { return explainPostgres(err) }

// control runs statements without parameters in one round trip, and returns
// the command tag of the last, which database/sql does not show: the answer to
// COMMIT may be ROLLBACK.
func (c *pgConn) control(ctx context.Context, statements string) (tag string, err error) {
	err = c.Raw(func(c any) error {
		t, err := c.(*stdlib.Conn).Conn().Exec(ctx, statements)
		tag = t.String()
		return err
	})
	return tag, err
}

// end gives the connection back to the pool without a transaction, or gives it
// up.
func (c *pgConn) end() {
	_ = c.Raw(func(c any) error {
		conn := c.(*stdlib.Conn).Conn()
		if conn.IsClosed() || conn.PgConn().TxStatus() == 'I' {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			return conn.Close(ctx)
		}
		return nil
	})
	_ = c.Close()
}

// isContention reports whether a transaction changed nothing, and may work
// when it is run again: serialization_failure, deadlock_detected, or a COMMIT
// that did not arrive.
func isContention(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01") || errors.Is(err, errUndone)
}

// isTaken reports whether a row was there already that a transaction inserted. It may have
// looked, and found none: somebody else's that was committed after its snapshot is not seen,
// and is in the way nevertheless.
func isTaken(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "23505" // unique_violation
}

// explainPostgres turns an error of the driver into one of ours, and leaves any
// other as it is. The codes are those of the manual's appendix A.
func explainPostgres(err error) error {
	var ours *trust.Error
	if err == nil || errors.As(err, &ours) {
		return err
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		var connect *pgconn.ConnectError
		var network net.Error
		if errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
			errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
			return trust.Errorf(trust.Unavailable, "database: %w", err).WithHint("see that PostgreSQL runs and can be reached from here")
		}
		return err
	}
	ours = trust.Errorf(trust.Internal, "database: %w", err)
	switch e.Code {
	case "23505": // unique_violation
		ours.Kind = trust.Conflict
		ours.Message = fmt.Sprintf("database: such a row exists already: constraint %q of table %q", e.ConstraintName, e.TableName)
	case "23503": // foreign_key_violation
		ours.Kind = trust.Conflict
		ours.Message = fmt.Sprintf("database: a row that is referred to is missing, or is still referred to: constraint %q of table %q", e.ConstraintName, e.TableName)
	case "40001", "40P01": // serialization_failure, deadlock_detected
		ours.Kind = trust.Unavailable
		ours.Message = "database: too many others changed the same rows"
	case "25006": // read_only_sql_transaction
		ours.Message = errReadOnly
	case "53100": // disk_full
		ours.Kind = trust.Unavailable
		ours.Hint = "make room on the disk of PostgreSQL"
	case "55P03": // lock_not_available
		ours.Kind = trust.Unavailable
	}
	switch e.Code[:2] {
	case "08", "53", "57", "58": // connection, resources, operator's intervention, system error
		ours.Kind = trust.Unavailable
	}
	return ours
}
