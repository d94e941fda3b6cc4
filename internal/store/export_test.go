package store

import "time"

// Queued returns how many updates wait for the writer of SQLite.
func Queued(s *Store) int { return len(s.engine.(*database).writer.queue) }

// SetPatience shortens how long the outcome of a lost commit is asked for.
func SetPatience(s *Store, d time.Duration) { s.engine.(*server).patience = d }

const (
	MaxGroup = maxGroup
	MaxTries = maxTries
)
