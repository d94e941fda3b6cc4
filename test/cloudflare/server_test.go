// Package cloudflare holds Keyturn against Cloudflare's own clients: the Go SDK of
// today, the one before it, and the tests that Cloudflare generates for its SDK. They
// speak to the real program over a real connection.
//
// It is a module of its own, because the SDKs take minutes to compile and nothing
// else of Keyturn needs them: "make sdk" runs it.
package cloudflare

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const password = "correct horse battery staple"

// A server is the program, with a token for it.
type server struct {
	t       *testing.T
	url     string // of the API, as an SDK wants it
	host    string // of the server, without a path
	account string
	token   string
	// asked counts the requests that an SDK has sent through client.
	asked atomic.Int64
}

// program builds Keyturn, once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "keyturn-sdk")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "keyturn")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/keyturn")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// start starts a server that ends with the test.
func start(t *testing.T) *server {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), path, "serve", "--http", "127.0.0.1:0", "--data", filepath.Join(dir, "data"), "--kek-file", filepath.Join(dir, "kek"))
	cmd.Env = append(os.Environ(), "KEYTURN_ADMIN_PASSWORD="+password)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s := &server{t: t}
	listening := make(chan string, 1)
	go func() {
		defer close(listening)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if match := regexp.MustCompile(`http=(http://[0-9.:]+)`).FindStringSubmatch(lines.Text()); match != nil {
				listening <- match[1]
			}
		}
	}()
	select {
	case s.host = <-listening:
	case <-time.After(time.Minute):
	}
	if s.host == "" {
		t.Fatal("the server did not start")
	}
	s.url = s.host + "/client/v4"
	var account struct{ ID string }
	s.own("GET", "/account", nil, &account)
	s.account = account.ID
	s.token = s.newToken("all", "All")
	return s
}

// own asks Keyturn's own API, as its administrator.
func (s *server) own(method, path string, body, answer any) {
	s.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.host+"/api/v1"+path, bytes.NewReader(data))
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth("admin", password)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		s.t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		s.t.Fatal(err)
	}
}

// newToken makes an API token that may do one thing.
func (s *server) newToken(name, permission string) string {
	s.t.Helper()
	var made struct{ Token string }
	s.own("POST", "/tokens", map[string]any{"name": name, "permissions": []string{permission}}, &made)
	return made.Token
}

// RoundTrip counts requests.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked.Add(1)
	return http.DefaultTransport.RoundTrip(r)
}

// client counts what an SDK sends.
func (s *server) client() *http.Client { return &http.Client{Transport: s} }

// requests returns how many requests fn made.
func (s *server) requests(fn func()) int {
	before := s.asked.Load()
	fn()
	return int(s.asked.Load() - before)
}
