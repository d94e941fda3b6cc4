package keyring

import (
	"context"
	"testing"

	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// No more private key files are opened and keys made at a time than the machine can bear; who comes
// then waits, and who comes after many is sent away.
func TestReadTakesTurns(t *testing.T) {
	k := &Keyring{working: make(chan struct{}, maxWorking), queue: make(chan struct{}, maxQueue)}
	for range maxWorking {
		k.queue <- struct{}{}
		k.working <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Read(ctx, nil, nil); trust.KindOf(err) != trust.Unavailable {
		t.Errorf("read while others do, by who does not wait: %v", err)
	}
	for len(k.queue) < maxQueue {
		k.queue <- struct{}{}
	}
	if _, err := k.Read(t.Context(), nil, nil); trust.KindOf(err) != trust.Exhausted {
		t.Errorf("read behind %d others: %v", maxQueue, err)
	}
	if _, err := k.Make(t.Context(), storetest.Tenant, Spec{Type: "ed25519"}); trust.KindOf(err) != trust.Exhausted {
		t.Errorf("made behind %d others: %v", maxQueue, err)
	}
	for len(k.queue) > 0 {
		<-k.queue
	}
	<-k.working
	if _, err := k.Read(t.Context(), nil, nil); trust.KindOf(err) != trust.Invalid || len(k.working) != maxWorking-1 || len(k.queue) != 0 {
		t.Errorf("read when there is room: %v, %d at work, %d queued", err, len(k.working), len(k.queue))
	}
}
