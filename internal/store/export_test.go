package store

import "time"

// Queued returns how many updates wait for the writer of SQLite.
func Queued(s *Store) int { return len(s.engine.(*database).writer.queue) }

// SetPatience shortens how long the outcome of a lost commit is asked for.
func SetPatience(s *Store, d time.Duration) { s.engine.(*server).patience = d }

const (
	MaxGroup      = maxGroup
	PatientTries  = patientTries
	MigrationLock = migrationLock
)

// SetHold sets for how long a group of SQLite's writer takes in members.
func SetHold(s *Store, d time.Duration) { s.engine.(*database).writer.hold = d }

// Stray executes a statement on the writer's connection outside of any
// transaction, while the writer is idle.
func Stray(s *Store, statement string) error {
	return s.engine.(*database).writer.control(statement)
}
