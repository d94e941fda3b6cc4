package job

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A dueSchedule is a row of job_schedules.
type dueSchedule struct {
	Schedule
	tenant   trust.TenantID
	revision int64
}

// id returns what an audit event knows the schedule by.
func (s dueSchedule) id() string {
	sum := sha256.Sum256([]byte(s.Name))
	return hex.EncodeToString(sum[:8])
}

const scheduleColumns = `tenant, name, kind, args, actor, every, daily, next_at, last_at, last_run, outcome, revision`

func (s *dueSchedule) scan(scan func(...any) error) error {
	var args, actor string
	var every, daily, next, last int64
	err := scan(&s.tenant, &s.Name, &s.Kind, &args, &actor, &every, &daily, &next, &last, &s.LastRun, &s.Outcome, &s.revision)
	s.Args, s.Actor = json.RawMessage(args), parseActor(actor)
	s.Every = time.Duration(every) * time.Microsecond
	s.Daily = max(time.Duration(daily), 0) * time.Minute
	s.Next, s.Last, s.Off = store.Time(next), store.Time(last), next == 0
	return err
}

func selectSchedule(tx *store.Tx, name string) (s dueSchedule, err error) {
	err = s.scan(tx.QueryRow(`SELECT `+scheduleColumns+` FROM job_schedules WHERE tenant = $1 AND name = $2`, tx.Tenant(), name).Scan)
	return s, err
}

func selectSchedules(tx *store.Tx) ([]Schedule, error) {
	rows, err := tx.Query(`SELECT `+scheduleColumns+` FROM job_schedules WHERE tenant = $1 ORDER BY name`, tx.Tenant())
	list, err := scanSchedules(rows, err)
	all := make([]Schedule, len(list))
	for i, s := range list {
		all[i] = s.Schedule
	}
	return all, err
}

// selectDueSchedules returns what is due of all tenants, and when more will be.
func selectDueSchedules(tx *store.Tx) (due []dueSchedule, next time.Time, err error) {
	now := store.Micros(tx.Now())
	rows, err := tx.Query(`SELECT `+scheduleColumns+` FROM job_schedules WHERE next_at > 0 AND next_at <= $1 ORDER BY next_at LIMIT $2`, now, maxDue)
	if due, err = scanSchedules(rows, err); err != nil {
		return nil, time.Time{}, err
	}
	var first sql.NullInt64
	err = tx.QueryRow(`SELECT MIN(next_at) FROM job_schedules WHERE next_at > 0 AND next_at > $1`, now).Scan(&first)
	return due, store.Time(first.Int64), err
}

func scanSchedules(rows *sql.Rows, err error) ([]dueSchedule, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []dueSchedule
	for rows.Next() {
		var s dueSchedule
		if err := s.scan(rows.Scan); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

func upsertSchedule(tx *store.Tx, s Schedule) error {
	daily := int64(-1)
	if s.Every == 0 {
		daily = int64(s.Daily / time.Minute)
	}
	_, err := tx.Exec(`INSERT INTO job_schedules (`+scheduleColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, '', '', 1)
		ON CONFLICT (tenant, name) DO UPDATE SET kind = excluded.kind, args = excluded.args, actor = excluded.actor,
			every = excluded.every, daily = excluded.daily, next_at = excluded.next_at, revision = job_schedules.revision + 1`,
		tx.Tenant(), s.Name, s.Kind, string(s.Args), formatActor(s.Actor), s.Every.Microseconds(), daily, store.Micros(s.Next))
	return err
}

func updateSchedule(tx *store.Tx, s dueSchedule) error {
	_, err := tx.Exec(`UPDATE job_schedules SET next_at = $3, last_at = $4, last_run = $5, outcome = $6, revision = revision + 1
		WHERE tenant = $1 AND name = $2`,
		tx.Tenant(), s.Name, store.Micros(s.Next), store.Micros(s.Last), s.LastRun, s.Outcome)
	return err
}

func deleteSchedule(tx *store.Tx, name string) (bool, error) {
	rows, err := tx.Exec(`DELETE FROM job_schedules WHERE tenant = $1 AND name = $2`, tx.Tenant(), name)
	return rows == 1, err
}
