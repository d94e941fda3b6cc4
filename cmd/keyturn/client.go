package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyturn/internal/trust"
)

const defaultServer = "http://127.0.0.1:7780"

// A client speaks api/v1.
type client struct {
	server string
	token  string
	user   string
	pass   string
	code   string // of the user's second factor
	http   *http.Client
}

// newClient makes the client that the environment tells of. Where that holds no
// credential, it is what keyturn login has kept.
func newClient(env environ) (*client, error) {
	c, err := newVisitor(env)
	if err != nil {
		return nil, err
	}
	c.token, c.user, c.pass, c.code = env("KEYTURN_TOKEN"), env("KEYTURN_USER"), env("KEYTURN_PASSWORD"), env("KEYTURN_TOTP")
	if c.token == "" && c.user == "" {
		if c.token, err = savedToken(env, c.server); err != nil {
			return nil, err
		}
	}
	if c.token == "" && c.user == "" {
		return nil, trust.Errorf(trust.Unauthenticated, "no credential is set").
			WithHint("keyturn login, or set KEYTURN_TOKEN, or KEYTURN_USER and KEYTURN_PASSWORD")
	}
	return c, nil
}

// newVisitor makes a client without a credential of the server that the environment
// tells of.
func newVisitor(env environ) (*client, error) {
	c := &client{server: strings.TrimSuffix(env("KEYTURN_SERVER"), "/"), http: newHTTP()}
	if c.server == "" {
		c.server = defaultServer
	}
	u, err := url.Parse(c.server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, trust.Errorf(trust.Invalid, "KEYTURN_SERVER %q is not a URL such as %s", c.server, defaultServer)
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
		return nil, trust.Errorf(trust.Invalid, "KEYTURN_SERVER %q is beyond this machine and not https: the credential would travel in the clear", c.server).
			WithHint("use https, or ssh -L 7780:127.0.0.1:7780 and the default")
	}
	return c, nil
}

// with makes the RunE of a command that asks the server which the environment tells
// of.
func with(env environ, fn func(cmd *cobra.Command, c *client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := newClient(env)
		if err != nil {
			return err
		}
		return fn(cmd, c, args)
	}
}

func newHTTP() *http.Client { return &http.Client{Timeout: 90 * time.Second} }

// problem is an error as the server tells it.
type problem struct {
	Kind   string `json:"kind"`
	Detail string `json:"detail"`
	Hint   string `json:"hint"`
	Field  string `json:"field"`
}

// kindOf is the inverse of trust.Kind's String.
func kindOf(name string) trust.Kind {
	for k := trust.Internal; k <= trust.Unavailable; k++ {
		if k.String() == name {
			return k
		}
	}
	return trust.Internal
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// call asks the server and reads its answer into out, a pointer, unless that is nil.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	answer, err := c.exchange(ctx, method, path, body)
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	reflect.ValueOf(out).Elem().SetZero() // what an answer leaves out is not as an earlier one had it
	if err := json.Unmarshal(answer, out); err != nil {
		return trust.Errorf(trust.Unavailable, "the answer of %s cannot be read: %w", c.server, err)
	}
	return nil
}

// fetch asks the server for a file.
func (c *client) fetch(ctx context.Context, path string) ([]byte, error) {
	return c.exchange(ctx, http.MethodGet, path, nil)
}

// exchange asks the server and returns the body of an answer that is no error.
func (c *client) exchange(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	resp, err := c.send(ctx, method, path, body)
	if err != nil && method == http.MethodGet && ctx.Err() == nil {
		resp, err = c.send(ctx, method, path, body) // a connection that the server had closed
	}
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 300 {
		var p problem
		if json.Unmarshal(answer, &p) != nil || p.Detail == "" {
			return nil, trust.Errorf(trust.Unavailable, "%s answered %s, and not as a Keyturn server does", c.server, resp.Status)
		}
		return nil, &trust.Error{Kind: kindOf(p.Kind), Message: p.Detail, Hint: p.Hint, Field: p.Field}
	}
	return answer, nil
}

func (c *client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.server+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch {
	case c.token != "":
		req.Header.Set("Authorization", "Bearer "+c.token)
	case c.user != "":
		req.SetBasicAuth(c.user, c.pass)
		if c.code != "" {
			req.Header.Set("Keyturn-TOTP", c.code)
		}
	}
	return c.http.Do(req)
}

// unreachable says what to do when there is no answer.
func (c *client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "dial" {
		return trust.Errorf(trust.Unavailable, "no server answers at %s", c.server).
			WithHint("start one with keyturn serve, or set KEYTURN_SERVER")
	}
	return trust.Errorf(trust.Unavailable, "%s: %w", c.server, err)
}

// whole reads a listing that comes in one piece, under one name.
func whole[T any](ctx context.Context, c *client, path, name string) ([]T, error) {
	var raw map[string][]T
	err := c.call(ctx, http.MethodGet, path, nil, &raw)
	return append([]T{}, raw[name]...), err
}

// given returns a query of the names and values of which the values are not empty.
func given(pairs ...string) url.Values {
	query := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			query.Set(pairs[i], pairs[i+1])
		}
	}
	return query
}

// list reads a whole listing, page by page.
func list[T any](ctx context.Context, c *client, path, name string, query url.Values) ([]T, error) {
	all, _, err := listNamed[T](ctx, c, path, name, query)
	return all, err
}

// listNamed is list, with what the things are called that rules of the entries name by
// their ids, where the listing says that.
func listNamed[T any](ctx context.Context, c *client, path, name string, query url.Values) (all []T, names map[string]string, err error) {
	all, names = []T{}, map[string]string{}
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", "500")
	for {
		var raw map[string]json.RawMessage
		if err := c.call(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &raw); err != nil {
			return nil, nil, err
		}
		var entries []T
		next := ""
		for field, to := range map[string]any{name: &entries, "names": &names, "next": &next} {
			value, there := raw[field]
			if !there && field != name {
				continue
			}
			if err := json.Unmarshal(value, to); err != nil {
				return nil, nil, fmt.Errorf("listing of %s: %w", name, err)
			}
		}
		if all = append(all, entries...); next == "" {
			return all, names, nil
		}
		query.Set("after", next)
	}
}
