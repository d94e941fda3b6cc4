package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"golang.org/x/sync/semaphore"

	"keyturn/internal/trust"
)

const (
	// maxPostgresWriters and maxPostgresReaders bound the connections of one
	// node; others wait. PostgreSQL's own bound is 100 as it is delivered.
	maxPostgresWriters = 12
	maxPostgresReaders = 12
	// maxTries bounds how often a transaction runs that others got in the way
	// of. After patientTries of them it runs while this node does nothing else.
	maxTries     = 20
	patientTries = 3
)

// A server is an open PostgreSQL database.
type server struct {
	reads  *sql.DB
	writes *sql.DB
	turns  *semaphore.Weighted // of writers: one each, or all
}

func openPostgres(ctx context.Context, dsn string, list []migration) (_ *server, err error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The text of the error repeats the URL without its password.
		return nil, trust.Errorf(trust.Invalid, "database URL: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 10 * time.Second
	}
	setDefault := func(name, value string) {
		if _, ok := config.RuntimeParams[name]; !ok {
			config.RuntimeParams[name] = value
		}
	}
	setDefault("application_name", "keyturn")
	migrating := config.Copy() // without the time limits below
	setDefault("statement_timeout", "30s")
	setDefault("lock_timeout", "10s")
	setDefault("idle_in_transaction_session_timeout", "60s")

	s := &server{turns: semaphore.NewWeighted(maxPostgresWriters)}
	defer func() {
		if err != nil {
			_ = s.close()
			err = fmt.Errorf("open database %q on %q: %w", config.Database, config.Host, explainPostgres(err))
		}
	}()
	if err := migratePostgres(ctx, migrating, list); err != nil {
		return nil, err
	}
	s.reads = openPool(config, maxPostgresReaders)
	s.writes = openPool(config, maxPostgresWriters)
	return s, nil
}

func openPool(config *pgx.ConnConfig, size int) *sql.DB {
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		// A commit that has returned is on disk, whatever the server's default.
		_, err := c.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
		return err
	}))
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour)
	return db
}

// migrationLock is the advisory lock that a node holds while it migrates.
const migrationLock = 0x6b657974 // "keyt"

func migratePostgres(ctx context.Context, config *pgx.ConnConfig, list []migration) error {
	db := stdlib.OpenDB(*config)
	defer db.Close()
	locked, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer locked.Close() // and with the connection goes the lock
	var encoding string
	if err := locked.QueryRowContext(ctx, `SHOW server_encoding`).Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return trust.Errorf(trust.Invalid, "its encoding is %q, not UTF8", encoding).
			WithHint("create it with: createdb --encoding=UTF8 --template=template0")
	}
	if _, err := locked.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, migrationLock); err != nil {
		return err
	}
	return migrate(ctx, db, goose.DialectPostgres, list, "")
}

func (s *server) close() error {
	var errs []error
	if s.reads != nil {
		errs = append(errs, s.reads.Close())
	}
	if s.writes != nil {
		errs = append(errs, s.writes.Close())
	}
	return explainPostgres(errors.Join(errs...))
}

// view reads at REPEATABLE READ: one snapshot, which never makes a writer fail
// and is never made to fail by one.
func (s *server) view(ctx context.Context, tx *Tx, fn func(*Tx) error) error {
	return s.attempt(ctx, s.reads, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", tx, fn)
}

// update runs at SERIALIZABLE, again and again while PostgreSQL finds that
// others got in the way.
func (s *server) update(ctx context.Context, tx *Tx, fn func(*Tx) error) error {
	for try := 1; ; try++ {
		weight := int64(1)
		if try > patientTries {
			weight = maxPostgresWriters
		}
		if err := s.turns.Acquire(ctx, weight); err != nil {
			return gone(ctx)
		}
		err := func() error {
			defer s.turns.Release(weight)
			return s.attempt(ctx, s.writes, "BEGIN ISOLATION LEVEL SERIALIZABLE", tx, fn)
		}()
		if !isContention(err) || try == maxTries {
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
func (s *server) attempt(ctx context.Context, db *sql.DB, begin string, tx *Tx, fn func(*Tx) error) error {
	p, err := beginPostgres(ctx, db, begin)
	if err != nil {
		return explainContext(ctx, explainPostgres(err))
	}
	defer p.end()
	if err := tx.run(ctx, ctx, p, fn); err != nil || !tx.write {
		return err
	}
	// From here on ctx is not heard any more: the outcome has to be known.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	tag, err := p.control(ctx, "COMMIT")
	if err != nil {
		return explainPostgres(err)
	}
	if tag != "COMMIT" { // "ROLLBACK": a statement had failed, which fn did not see
		return trust.Errorf(trust.Internal, "database: a statement had failed and the transaction was rolled back")
	}
	return nil
}

// beginPostgres begins a transaction on a connection of the pool. One that
// died at rest, as all do when the server restarts, is replaced.
func beginPostgres(ctx context.Context, db *sql.DB, begin string) (*pgSession, error) {
	for try := 0; ; try++ {
		c, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		p := &pgSession{c}
		if _, err = p.control(ctx, begin); err == nil {
			return p, nil
		}
		p.end()
		var refused *pgconn.PgError
		if try > maxPostgresWriters+maxPostgresReaders || ctx.Err() != nil || errors.As(err, &refused) && refused.Code != "57P01" {
			return nil, err
		}
	}
}

// A pgSession is a connection to PostgreSQL.
type pgSession struct{ *sql.Conn }

func (p *pgSession) explain(err error) error { return explainPostgres(err) }

// control runs a statement without parameters and returns its command tag,
// which database/sql does not show: the answer to COMMIT may be ROLLBACK.
func (p *pgSession) control(ctx context.Context, statement string) (tag string, err error) {
	err = p.Raw(func(c any) error {
		t, err := c.(*stdlib.Conn).Conn().Exec(ctx, statement)
		tag = t.String()
		return err
	})
	return tag, err
}

// end gives the connection back to the pool without a transaction, or gives it
// up.
func (p *pgSession) end() {
	_ = p.Raw(func(c any) error {
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
	_ = p.Close()
}

// isContention reports whether a transaction failed for others, and may work
// when it is run again: serialization_failure and deadlock_detected.
func isContention(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
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
		if errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) {
			return trust.Errorf(trust.Unavailable, "database: %w", err).WithHint("is the database running, and reachable from here?")
		}
		return err
	}
	ours = trust.Errorf(trust.Internal, "database: %w", err)
	switch e.Code {
	case "23505": // unique_violation
		ours.Kind = trust.Conflict
		ours.Message = fmt.Sprintf("database: such a row exists already: constraint %s of %s", e.ConstraintName, e.TableName)
	case "23503": // foreign_key_violation
		ours.Kind = trust.Conflict
		ours.Message = fmt.Sprintf("database: a row that is referred to is missing, or is still referred to: constraint %s of %s", e.ConstraintName, e.TableName)
	case "40001", "40P01": // serialization_failure, deadlock_detected
		ours.Kind = trust.Unavailable
		ours.Message = "database: too many others changed the same rows"
	case "25006": // read_only_sql_transaction
		ours.Message = "database: a View cannot change anything"
	case "53100": // disk_full
		ours.Kind = trust.Unavailable
		ours.Hint = "make room on the database's disk"
	case "55P03", "57014": // lock_not_available, query_canceled (by statement_timeout)
		ours.Kind = trust.Unavailable
	}
	switch e.Code[:2] {
	case "08", "53", "57", "58": // connection, resources, operator intervention, system error
		ours.Kind = trust.Unavailable
	}
	return ours
}
