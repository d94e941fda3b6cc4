package dial

import (
	"context"
	"errors"
	"io"
	"testing"

	"keyturn/internal/trust"
)

func TestStart(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	_, target := server(t, []string{"MaxSessions 1"}, key)
	conn, err := Dial(t.Context(), target, []Credential{KeyCredential("k", key)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Where one session is allowed, there is room for the next as soon as one has ended.
	for range 5 {
		p, err := conn.Start(t.Context(), "while read -r l; do echo $l; echo $l >&2; done")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"one\n", "two\n"} {
			_, err := io.WriteString(p.Stdin, line)
			for _, r := range []io.Reader{p.Stdout, p.Stderr} {
				got := make([]byte, len(line))
				if _, unread := io.ReadFull(r, got); unread != nil || err != nil || string(got) != line {
					t.Fatalf("%q, %v, %v", got, unread, err)
				}
			}
		}
		_, err = conn.Start(t.Context(), "true")
		kind(t, err, trust.Denied, "no session")
		_ = p.Stdin.Close()
		<-p.Ended
		if _, err := conn.Run(t.Context(), "true", nil, 100); err != nil {
			t.Error(err)
		}
	}
	p, err := conn.Start(t.Context(), "exec cat")
	if err != nil {
		t.Fatal(err)
	}
	p.Cut()
	<-p.Ended
	if _, err := io.ReadAll(p.Stdout); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	_, err = conn.Start(t.Context(), "true")
	kind(t, err, trust.Unavailable)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	_, err = conn.Start(ctx, "true")
	kind(t, err, trust.Unavailable, "enough")
}
