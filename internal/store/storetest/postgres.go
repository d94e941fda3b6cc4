package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"keyturn/internal/need"
	"keyturn/internal/store"
)

// A Server is a PostgreSQL server of this process, in a directory of its own,
// that can be reached by a unix socket only. It does not outlive the process,
// however that ends.
type Server struct {
	dir    string
	keeper *exec.Cmd
	stdin  io.WriteCloser // the server stops when this closes

	mu        sync.Mutex
	next      int
	templates map[string]bool // databases that hold tables and no rows
}

// role owns the databases. It is no superuser, so that row security binds it.
const role = "keyturn"

var shared = sync.OnceValues(func() (*Server, error) {
	return start("fsync=off", "full_page_writes=off")
})

// Postgres returns the URL of a new PostgreSQL database that holds the tables of
// the schemas and no rows, or nothing at all without schemas, dropped at the end
// of the test. Where PostgreSQL is not installed the test is skipped, or
// fails where KEYTURN_CI is set.
func Postgres(tb testing.TB, schemas ...fs.FS) string {
	tb.Helper()
	s := sharedServer(tb)
	if len(schemas) == 0 {
		return s.Database(tb)
	}
	return s.withTables(tb, schemas)
}

func sharedServer(tb testing.TB) *Server {
	tb.Helper()
	s, err := shared()
	if err != nil {
		need.Skip(tb, "PostgreSQL for tests: %v", err)
	}
	return s
}

// StartPostgres starts a server for one test, with settings such as
// "fsync=on". It is stopped at the end of the test, or before by Stop.
func StartPostgres(tb testing.TB, settings ...string) *Server {
	tb.Helper()
	s, err := start(settings...)
	if err != nil {
		need.Skip(tb, "PostgreSQL for tests: %v", err)
	}
	tb.Cleanup(s.Stop)
	return s
}

// Database returns the URL of a new, empty database of the server, dropped at
// the end of the test.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	return s.copyOf(tb, "template1")
}

// copyOf returns the URL of a new database that begins as a copy of another.
func (s *Server) copyOf(tb testing.TB, template string) string {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	name := fmt.Sprintf("test_%d", s.next)
	if err := s.exec("CREATE DATABASE " + name + " OWNER " + role + " TEMPLATE " + template); err != nil {
		tb.Fatalf("create a database: %v", err)
	}
	tb.Cleanup(func() { _ = s.exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)") })
	return s.url(role, name)
}

// withTables returns the URL of a new database with the tables of the schemas.
// They are made once and then copied.
func (s *Server) withTables(tb testing.TB, schemas []fs.FS) string {
	tb.Helper()
	name := "tables_" + fingerprint(tb, schemas)
	s.mu.Lock()
	if !s.templates[name] {
		err := s.exec("CREATE DATABASE " + name + " OWNER " + role)
		var st *store.Store
		if err == nil {
			st, err = store.Open(context.Background(), store.Options{URL: s.url(role, name), Schema: schemas})
		}
		if err == nil {
			err = st.Close()
		}
		if err != nil {
			s.mu.Unlock()
			tb.Fatalf("make the tables: %v", err)
		}
		s.templates[name] = true
	}
	s.mu.Unlock()
	return s.copyOf(tb, name)
}

// fingerprint names what the files of schemas say.
func fingerprint(tb testing.TB, schemas []fs.FS) string {
	tb.Helper()
	sum := sha256.New()
	for _, schema := range schemas {
		err := fs.WalkDir(schema, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := fs.ReadFile(schema, path)
			fmt.Fprintf(sum, "%q %q\n", path, text)
			return err
		})
		if err != nil {
			tb.Fatalf("read the schemas: %v", err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

func (s *Server) url(user, database string) string {
	return fmt.Sprintf("postgres://%s@/%s?host=%s", user, database, s.dir)
}

// exec runs a statement as superuser, on a connection of its own.
func (s *Server) exec(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.url("postgres", "postgres"))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, statement)
	return err
}

// Stop ends the server for good.
func (s *Server) Stop() {
	_ = s.stdin.Close()
	_ = s.keeper.Wait()
}

// Crash kills the server without a checkpoint, as a loss of power would, and
// returns when it is down.
func (s *Server) Crash(tb testing.TB) {
	tb.Helper()
	s.tell(tb, "crash")
	for s.exec("") == nil {
		select {
		case <-tb.Context().Done():
			tb.Fatal("PostgreSQL does not go away")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Start starts the server again after Crash, and returns when it answers.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	s.tell(tb, "start")
	if err := s.await(30 * time.Second); err != nil {
		tb.Fatal(err)
	}
}

func (s *Server) tell(tb testing.TB, word string) {
	tb.Helper()
	if _, err := io.WriteString(s.stdin, word+"\n"); err != nil {
		tb.Fatalf("keeper of PostgreSQL: %v", err)
	}
}

// Dir returns the directory of the server's socket, .s.PGSQL.5432.
func (s *Server) Dir() string { return s.dir }

// keeper runs the server, kills it at one line from standard input and starts
// it at the next, and removes everything when standard input ends, which the
// kernel sees to when the test process dies.
const keeper = `
dir=$1; shift
while
	"$@" >>"$dir/log" 2>&1 </dev/null &
	read -r word
	kill -QUIT $!; wait $!
	[ -n "$word" ] && read -r word
do :; done
rm -rf "$dir"
`

// start makes and starts a server.
func start(settings ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "ktpg")
	if err != nil {
		return nil, err
	}
	as, err := unprivileged(dir)
	if err != nil {
		return nil, err
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := command(filepath.Join(bin, "initdb"), "--no-sync", "--auth=trust", "--username=postgres",
		"--encoding=UTF8", "--locale=C", "--pgdata="+data).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	args := []string{
		"-c", keeper, "keeper", dir, filepath.Join(bin, "postgres"), "-D", data, "-k", dir,
		"-c", "listen_addresses=", "-c", "max_connections=300",
	}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	cmd := command("/bin/sh", args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &Server{dir: dir, keeper: cmd, stdin: stdin, templates: map[string]bool{}}
	if err := s.await(30 * time.Second); err != nil {
		s.Stop()
		return nil, err
	}
	if err := s.exec("CREATE ROLE " + role + " LOGIN"); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// await waits until the server answers.
func (s *Server) await(patience time.Duration) error {
	deadline := time.After(patience)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := s.exec("")
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-deadline:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("postgres does not answer: %w: %s", err, bytes.TrimSpace(log))
		}
	}
}

// binaries returns the directory of initdb and postgres.
func binaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("initdb is neither in PATH nor in /usr/lib/postgresql/*/bin")
	}
	return filepath.Dir(slices.Max(found)), nil
}

// unprivileged returns whom the server runs as where this process is root,
// which PostgreSQL refuses to run as, and makes dir theirs.
func unprivileged(dir string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}
