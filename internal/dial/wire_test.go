package dial

import (
	"errors"
	"io"
	"net"
	"testing"
)

// Nothing is written to a server that says no more, although it would still read.
func TestWriteAfterTheLastRead(t *testing.T) {
	t.Parallel()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	silent := make(chan error, 1)
	go func() {
		server, err := listener.AcceptTCP()
		if err == nil {
			err = server.CloseWrite()
			defer server.Close()
		}
		silent <- err
		if err == nil {
			_, _ = io.Copy(io.Discard, server)
		}
	}()
	w, err := openWire(t.Context(), Target{Address: listener.Addr().String()}, defaultPatience())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := <-silent; err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("SSH-2.0-x\r\n")); err != nil {
		t.Errorf("before anything was read, a write said %v", err)
	}
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("a read said %v, want the end", err)
	}
	if n, err := w.Write([]byte("more")); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("a write after that took %d bytes and said %v, want none and the end", n, err)
	}
}
