package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"keyturn/internal/trust"
)

// maxReaders bounds how many Views run at once; others wait.
const maxReaders = 8

// A database is an open SQLite file: one connection writes, by the writer, and
// up to maxReaders read.
type database struct {
	lock    *os.File
	readers chan *session // those at rest; nil for one that is not open yet
	reads   *sql.DB
	writes  *sql.DB
	writer  *writer
	closing sync.Once
}

func openSQLite(ctx context.Context, path string, list []migration) (_ *database, err error) {
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return nil, trust.Errorf(trust.Invalid, "database URL %q names no file", "sqlite:"+path)
	}
	if path, err = resolve(path); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	d := &database{readers: make(chan *session, maxReaders)}
	defer func() {
		if err != nil {
			d.release()
			err = located(fmt.Sprintf("database %q", path), explainSQLite(err))
		}
	}()
	if d.lock, err = lockFile(ctx, path); err != nil {
		return nil, err
	}
	d.writes, err = openDB(dsn(path,
		"journal_mode(WAL)", "synchronous(FULL)", "secure_delete(1)", "wal_autocheckpoint(4000)", "journal_size_limit(67108864)", "cache_size(-16384)", "temp_store(memory)"))
	if err != nil {
		return nil, err
	}
	d.writes.SetMaxOpenConns(1)
	if err := migrate(ctx, d.writes, goose.DialectSQLite3, list, ""); err != nil {
		return nil, err
	}
	s, err := openSession(ctx, d.writes)
	if err != nil {
		return nil, err
	}
	var mode string
	var synchronous int
	err = errors.Join(
		s.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode),
		s.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&synchronous))
	if err != nil {
		return nil, err
	}
	if mode != "wal" || synchronous != 2 {
		return nil, trust.Errorf(trust.Unavailable, "its file system does not carry a write-ahead log").
			WithHint("keep the data directory on a local disk")
	}
	d.reads, err = openDB(dsn(path, "query_only(1)"))
	if err != nil {
		return nil, err
	}
	for range maxReaders {
		d.readers <- nil
	}
	if d.writer, err = startWriter(s); err != nil {
		return nil, err
	}
	return d, nil
}

// resolve returns the absolute path of a file without symbolic links, so that
// two names of one database meet at one lock, and makes its directory.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	if file, err := filepath.EvalSymlinks(path); err == nil {
		return file, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

// dsn returns the name under which the driver opens the file at path. SQLite
// builds no index for the time of one query: not knowing how many rows a
// tenant has, it takes them for ten, and would read and sort all of a large
// table rather than use the index that is there.
func dsn(path string, pragmas ...string) string {
	q := url.Values{"_txlock": {"immediate"}, "_dqs": {"0"}, "_pragma": append([]string{"busy_timeout(10000)", "automatic_index(0)", "foreign_keys(1)", "case_sensitive_like(1)"}, pragmas...)}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// lockFile takes the database at path for this process, and makes its file if
// there is none. The lock is on a file of its own beside it: one
// on the database itself would be lost whenever SQLite closes any descriptor
// of it.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, lock); err != nil {
		holder := make([]byte, 32)
		n, _ := lock.ReadAt(holder, 0)
		_ = lock.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		return nil, trust.Errorf(trust.Conflict, "it is in use by process %s", strings.TrimSpace(string(holder[:n]))).
			WithHint("stop the other keyturn, or give this one another --data directory")
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = errors.Join(file.Close(), lock.Truncate(0), syncDir(filepath.Dir(path)))
	}
	if err == nil {
		_, err = fmt.Fprintf(lock, "%d\n", os.Getpid())
	}
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return lock, nil
}

// flock locks a file. A holder that was killed lives on for an instant: it is waited
// for.
func flock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (d *database) view(ctx context.Context, tx *Tx, fn func(*Tx) error) (err error) {
	var s *session
	select {
	case <-d.writer.stop:
		return errClosed
	default:
	}
	select {
	case s = <-d.readers:
	case <-ctx.Done():
		return gone(ctx)
	case <-d.writer.stop:
		return errClosed
	}
	defer func() { d.readers <- s }()
	if s == nil {
		if s, err = openSession(ctx, d.reads); err != nil {
			s = nil
			return explain(ctx, err, explainSQLite)
		}
	}
	// An end of ctx interrupts a query, but not what ends the transaction.
	if _, err := s.ExecContext(context.WithoutCancel(ctx), "BEGIN DEFERRED"); err != nil {
		s = s.discard()
		return explainSQLite(err)
	}
	defer func() {
		if _, err := s.ExecContext(context.WithoutCancel(ctx), "ROLLBACK"); err != nil {
			s = s.discard()
		}
	}()
	return tx.run(ctx, ctx, s, fn)
}

func (d *database) update(ctx context.Context, tx *Tx, fn func(*Tx) error) error {
	return d.writer.update(ctx, tx, fn)
}

func (d *database) close() (err error) {
	d.closing.Do(func() {
		d.writer.close()
		for range maxReaders {
			if s := <-d.readers; s != nil {
				s.discard()
			}
		}
		err = explainSQLite(d.release())
	})
	return err
}

// release closes what openSQLite has opened so far. The last connection to
// close folds the write-ahead log into the database.
func (d *database) release() error {
	var errs []error
	if d.reads != nil {
		errs = append(errs, d.reads.Close())
	}
	if d.writes != nil {
		errs = append(errs, d.writes.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// A session is one connection. It is used by one goroutine at a time.
type session struct{ *sql.Conn }

func openSession(ctx context.Context, db *sql.DB) (*session, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &session{conn}, nil
}

// discard closes s for good, and returns nil.
func (s *session) discard() *session {
	_ = s.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.Close()
	return nil
}

func (s *session) explain(err error) error { return explainSQLite(err) }

// explainSQLite turns an error of the driver into one of ours, and leaves any
// other as it is.
func explainSQLite(err error) error {
	var ours *trust.Error
	var e *sqlite.Error
	if err == nil || errors.As(err, &ours) || !errors.As(err, &e) {
		return err
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return trust.Errorf(trust.Conflict, "database: such a row exists already: %w", err)
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return trust.Errorf(trust.Conflict, "database: a row that is referred to is missing, or is still referred to: %w", err)
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return trust.Errorf(trust.Unavailable, "database: no room on its disk: %w", err).WithHint("make room in the data directory")
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT:
		return trust.Errorf(trust.Unavailable, "database: %w", err)
	case sqlite3.SQLITE_READONLY:
		return trust.Errorf(trust.Internal, errReadOnly+": %w", err)
	}
	return trust.Errorf(trust.Internal, "database: %w", err)
}
