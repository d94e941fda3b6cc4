package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyturn/internal/trust"
)

// loginByBrowser has a person log in at an identity provider, which sends the browser
// back to a listener of this command (RFC 8252, section 7.3).
func (c *client) loginByBrowser(cmd *cobra.Command, provider string) (l loginJSON, err error) {
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), 10*time.Minute, trust.Errorf(trust.Unavailable, "nobody has logged in within 10 minutes").WithHint("keyturn login"))
	defer cancel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return l, trust.Errorf(trust.Unavailable, "%w", err).WithHint("keyturn login --device")
	}
	defer listener.Close()

	// What only this command knows, so that nobody else can use what the browser is
	// told (RFC 7636).
	secret := make([]byte, 32)
	rand.Read(secret)
	verifier := base64.RawURLEncoding.EncodeToString(secret)
	challenge := sha256.Sum256([]byte(verifier))
	var begun struct {
		URL, State  string
		RedirectURI string `json:"redirect_uri"`
	}
	err = c.call(ctx, http.MethodPost, "/login/oidc/begin", map[string]string{
		"provider": provider, "listener": "http://" + listener.Addr().String(),
		"challenge": base64.RawURLEncoding.EncodeToString(challenge[:]),
	}, &begun)
	if err != nil {
		return l, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Log in with a browser at\n\n  %s\n\n", plain(begun.URL))
	if terminal(cmd) != nil {
		openBrowser(begun.URL)
	}
	redirect, err := url.Parse(begun.RedirectURI)
	if err != nil {
		return l, err
	}
	answer, err := awaitAnswer(ctx, listener, redirect.Path, begun.State)
	if err != nil {
		return l, err
	}
	err = c.call(ctx, http.MethodPost, "/login/oidc/finish",
		map[string]string{"state": begun.State, "code": answer.Get("code"), "iss": answer.Get("iss"), "verifier": verifier}, &l)
	return l, err
}

// openBrowser opens a URL of the server's, if it is one for a browser and there is one.
func openBrowser(text string) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return
	}
	name := "xdg-open"
	if runtime.GOOS == "darwin" {
		name = "open"
	}
	opener := exec.Command(name, u.String())
	if opener.Start() == nil {
		go func() { _ = opener.Wait() }() // whether it opened one, the person sees
	}
}

// awaitAnswer returns what a browser brings to a path of the listener, together with
// the state that it was sent with: a code, and whose it is.
func awaitAnswer(ctx context.Context, listener net.Listener, path, state string) (url.Values, error) {
	type outcome struct {
		answer url.Values
		err    error
	}
	came := make(chan outcome, 1)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 32 << 10}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-store")
		q := r.URL.Query()
		if r.Method != http.MethodGet || r.URL.Path != path || q.Get("state") != state {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "This is not the login that keyturn waits for.\n")
			return
		}
		o := outcome{answer: q}
		text := "Keyturn has the answer. You can close this window; the command says how it went.\n"
		if q.Get("code") == "" {
			o.err = trust.Errorf(trust.Unauthenticated, "the identity provider refuses: %.200s", plain(strings.TrimSpace(q.Get("error")+" "+q.Get("error_description")))).WithHint("keyturn login")
			text = "The login failed. You can close this window; the command says why.\n"
		}
		_, _ = io.WriteString(w, text)
		select {
		case came <- o:
		default: // it was here before
		}
	})
	go func() { _ = server.Serve(listener) }() // until it is shut down below
	defer func() {
		// The browser gets its answer before this command ends.
		grace, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer stop()
		_ = server.Shutdown(grace)
	}()
	select {
	case o := <-came:
		return o.answer, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// loginByDevice has a person log in at an identity provider with another device
// (RFC 8628).
func (c *client) loginByDevice(cmd *cobra.Command, provider string) (l loginJSON, err error) {
	var d struct {
		DeviceCode      string `json:"device_code"`
		UserCode        string `json:"user_code"`
		VerificationURL string `json:"verification_url"`
		CompleteURL     string `json:"complete_url"`
		Interval        int    `json:"interval"`
	}
	if err := c.call(cmd.Context(), http.MethodPost, "/login/oidc/device", map[string]string{"provider": provider}, &d); err != nil {
		return l, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Log in with a browser, on any device, at\n\n  %s\n\nand enter the code  %s\n", plain(d.VerificationURL), plain(d.UserCode))
	if d.CompleteURL != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "or go to\n\n  %s\n", plain(d.CompleteURL))
	}
	interval := time.Duration(max(d.Interval, 1)) * time.Second
	for {
		select {
		case <-cmd.Context().Done():
			return l, context.Cause(cmd.Context())
		case <-time.After(interval):
		}
		var polled struct {
			Progress string     `json:"progress"`
			Login    *loginJSON `json:"login"`
		}
		err := c.call(cmd.Context(), http.MethodPost, "/login/oidc/device/poll", map[string]string{"device_code": d.DeviceCode}, &polled)
		switch {
		case err != nil && trust.KindOf(err) != trust.Unavailable: // else the next time may do
			return l, err
		case polled.Login != nil:
			return *polled.Login, nil
		case polled.Progress == "slow_down":
			interval += 5 * time.Second // RFC 8628, section 3.5
		}
	}
}

// loginByToken exchanges the token that a machine was issued.
func (c *client) loginByToken(cmd *cobra.Command, provider, token string) (l loginJSON, err error) {
	if token == "" {
		return l, &usageError{cmd.CommandPath(), errors.New("standard input holds no token")}
	}
	err = c.call(cmd.Context(), http.MethodPost, "/login/oidc/token", map[string]string{"provider": provider, "token": token}, &l)
	return l, err
}

// pickProvider returns the identity provider that people log in by if none is named:
// the only one; "" where there is none.
func (c *client) pickProvider(ctx context.Context) (string, error) {
	names, err := whole[string](ctx, c, "/login/providers", "providers")
	switch {
	case err != nil || len(names) == 0:
		return "", err
	case len(names) > 1:
		return "", trust.Errorf(trust.Invalid, "people log in here by one of %s", strings.Join(names, ", ")).
			WithHint("keyturn login --provider %s, or --user NAME with a password", names[0])
	}
	return names[0], nil
}
