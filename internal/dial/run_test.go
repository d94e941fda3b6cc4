package dial

import (
	"testing"
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
