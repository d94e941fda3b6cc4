package dial

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// deaf is a connection whose channels are never answered, neither by the server
// nor by the end of the connection: what x/crypto/ssh comes to when a channel is
// opened at the moment in which the connection ends.
type deaf struct {
	ssh.Conn
	opening, end chan struct{}
}

func (d deaf) OpenChannel(string, []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	close(d.opening)
	<-d.end
	return nil, nil, &ssh.OpenChannelError{Message: "the test has ended"}
}

func TestRunEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	d := deaf{opening: make(chan struct{}), end: make(chan struct{})}
	defer close(d.end)
	c := &Conn{Client: &ssh.Client{Conn: d}, target: Target{Address: "192.0.2.1:22"}, broken: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), "true", nil, 100)
		ended <- err
	}()
	<-d.opening
	close(c.broken)
	select {
	case err := <-ended:
		kind(t, err, trust.Unavailable, "192.0.2.1:22", "the connection has ended")
	case <-time.After(10 * time.Second):
		t.Fatal("a command waits for a connection that has ended")
	}
}

// What a command says is kept up to a limit, at which stdout ends the command and
// stderr is read on and dropped.
func TestBounded(t *testing.T) {
	t.Parallel()
	for said, kept := range map[string]string{"": "", "12345": "12345", "123456": "12345", strings.Repeat("1", 100_000): "11111"} {
		over := len(said) > len(kept)
		stderr := &bounded{limit: 5}
		if n, err := io.Copy(stderr, iotest.OneByteReader(strings.NewReader(said))); n != int64(len(said)) || err != nil {
			t.Errorf("of stderr %d of %d bytes were read: %v", n, len(said), err)
		}
		ended := 0
		stdout := &bounded{limit: 5, full: func() { ended++ }}
		if _, err := io.Copy(stdout, bytes.NewBufferString(said)); (err != nil) != over || (ended == 1) != over {
			t.Errorf("stdout of %d bytes ended the command %d times, and with %v", len(said), ended, err)
		}
		for _, b := range []*bounded{stderr, stdout} {
			if got := b.buf.String(); got != kept || b.over != over {
				t.Errorf("of %d bytes %q are kept, over is %v", len(said), got, b.over)
			}
		}
	}
}
