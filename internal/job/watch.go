package job

import (
	"sync"

	"keyturn/internal/trust"
)

// watches are those who wait for a run to stand otherwise than it does.
type watches struct {
	mu  sync.Mutex
	all map[trust.RunID]map[chan struct{}]bool
}

// Watch returns what is told when a run has come to another state than running, or
// to its end, and stop, which is called in the end. It is told of what this engine
// has written, or found when it looked because of Wake; of what another engine
// works on nothing is told here.
func (e *Engine) Watch(run trust.RunID) (told <-chan struct{}, stop func()) {
	w, c := &e.watches, make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all[run] == nil {
		w.all[run] = map[chan struct{}]bool{}
	}
	w.all[run][c] = true
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all[run], c)
		if len(w.all[run]) == 0 {
			delete(w.all, run)
		}
	}
}

// tell tells who watches a run. It waits for nobody.
func (w *watches) tell(run trust.RunID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.all[run] {
		select {
		case c <- struct{}{}:
		default: // it has not yet taken note of the last time
		}
	}
}
