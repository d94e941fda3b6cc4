package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A later row, and the way back, find what the last attempt saved that saved
// anything, however much of it there is.
func TestResultOf(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		var mu sync.Mutex
		var found []string
		read := func(ctx context.Context, r Run, tg Target) error {
			var text string
			ok, err := r.ResultOf(ctx, "Save", tg, &text)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, fmt.Sprintf("%s %s %t %d %.1s", r.Step, tg.Name, ok, len(text), text))
			return err
		}
		attempts := map[string]int{}
		p := Procedure{Name: "p", Steps: []Step{
			{Name: "Save", On: "all", Undo: func(ctx context.Context, r Run, tg Target) (Record, error) {
				return nil, read(ctx, r, tg)
			}, Do: func(_ context.Context, r Run, tg Target) (Record, error) {
				mu.Lock()
				defer mu.Unlock()
				attempts[tg.Name]++
				switch attempts[tg.Name] {
				case 1:
					return nil, errors.Join(r.Save("first"), trust.Errorf(trust.Unavailable, "no answer"))
				case 2:
					return nil, errors.Join(r.Save(strings.Repeat(tg.Name, maxResults*2/3)), trust.Errorf(trust.Unavailable, "no answer"))
				}
				return nil, nil
			}},
			{Name: "Read", On: "all", Do: func(ctx context.Context, r Run, tg Target) (Record, error) {
				if err := read(ctx, r, tg); err != nil {
					return nil, err
				}
				return nil, trust.Errorf(trust.Denied, "enough")
			}},
		}}
		e := start(t, s, Options{Sole: true, Workers: 1}, p)
		id := e.create("p", "a", "b")
		time.Sleep(time.Minute)
		settle()
		e.must(id, Held)
		e.verb(func(tx *store.Tx) error {
			_, err := e.Back(tx, alice(), id, nil)
			return err
		})
		settle()
		e.must(id, WentBack)
		size := maxResults * 2 / 3
		want := fmt.Sprintf("Read a true %d a, Save a true %d a, Save b true %d b", size, size, size)
		if got := strings.Join(found, ", "); got != want {
			t.Errorf("found %s, want %s", got, want)
		}
	})
}

// What all runners remember is bounded, and there is room again for what is
// replaced and forgotten.
func TestResultsAreBounded(t *testing.T) {
	var room atomic.Int64
	room.Store(1000)
	one, other := &results{room: &room, kept: map[place]json.RawMessage{}}, &results{room: &room, kept: map[place]json.RawMessage{}}
	large := json.RawMessage(strings.Repeat("1", 600))
	has := func(r *results, p place) bool {
		result, ok := r.get(p)
		return ok && string(result) == string(large)
	}
	one.put(place{1, 1}, large)
	one.put(place{1, 1}, large)
	one.put(place{1, 1}, nil)
	other.put(place{1, 1}, large)
	if !has(one, place{1, 1}) || has(other, place{1, 1}) {
		t.Error("what is remembered is not what there was room for")
	}
	one.forget()
	other.put(place{1, 1}, large)
	if has(one, place{1, 1}) || !has(other, place{1, 1}) {
		t.Error("there is no room for what was forgotten")
	}
	other.put(place{1, 1}, append(large, large...))
	if _, ok := other.get(place{1, 1}); ok || room.Load() != 1000 {
		t.Errorf("a result is remembered that another one has replaced; room for %d", room.Load())
	}
}
