package inventory

import (
	"database/sql"
	"strconv"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds which key replaced which, and the rotated inventory: the
// keys that runs took out of use, until their retention ends.

// A Rotation says that a run took a key out of use.
type Rotation struct {
	Key trust.KeyID
	Run trust.RunID
	// Became is Rotated, or Retired where the key has no successor.
	Became KeyState
	// By is who asked for it, as the caller of TakeOut wrote it.
	By string
	At time.Time
	// ReplacedBy are the successors, one or, where each place got its own,
	// several.
	ReplacedBy []trust.KeyID
	// ArchivedAt is when its halves had gone into the archive, RetainUntil
	// when they may be destroyed, and PurgedAt when they were. Each is zero
	// while that is open; a zero RetainUntil keeps them for good.
	ArchivedAt, RetainUntil, PurgedAt time.Time
	// UndoneBy is the run that brought the key back, at UndoneAt.
	UndoneBy trust.RunID
	UndoneAt time.Time
}

// TakeOut moves an active key into the rotated inventory on behalf of a run:
// as Rotated, with the keys that replace it as far as they exist already (see
// AddReplacement), or as Retired, with none. by says who asked for it. A
// successor that was itself out of use comes back, as by BringBack. Errors:
// NotFound; Conflict where the key is not Active.
func TakeOut(tx *store.Tx, run trust.RunID, key trust.KeyID, became KeyState, by string, news ...trust.KeyID) error {
	if became != Rotated && became != Retired || became == Retired && len(news) > 0 {
		return trust.Errorf(trust.Internal, "inventory: key %s cannot become %q with %d successors", key, became, len(news))
	}
	k, err := KeyByID(tx, key)
	if err != nil {
		return err
	}
	if k.State != Active {
		return trust.Errorf(trust.Conflict, "key %s is %s, not active", key, k.State).WithHint("keyturn key show %s", key)
	}
	k.State, k.LastRotatedAt = became, tx.Now()
	if err := writeKey(tx, &k); err != nil {
		return err
	}
	_, err = tx.Exec(sqlAddRotation, tx.Tenant(), key, run, became, plainText(by, maxComment), store.Micros(tx.Now()))
	if err != nil {
		return err
	}
	for _, n := range news {
		if err := AddReplacement(tx, run, key, n); err != nil {
			return err
		}
	}
	return nil
}

// AddReplacement records a successor of a key that the run took out of use. Who may use
// it is who might use each of those in whose place it is. Doing so twice is doing so once.
// Errors: NotFound, for a key, and where the run has not taken old out.
func AddReplacement(tx *store.Tx, run trust.RunID, old, next trust.KeyID) error {
	rotations, _, err := Rotations(tx, RotationFilter{Key: old, Run: run, Standing: true}, Page{})
	if err != nil {
		return err
	}
	if len(rotations) == 0 {
		return trust.Errorf(trust.NotFound, "run %s has not taken key %s out of use", run, old).WithHint("keyturn run show %s", run)
	}
	n, err := tx.Exec(sqlAddReplacement, tx.Tenant(), old, run, next)
	if err != nil || n == 0 {
		return err
	}
	if err := BringBack(tx, run, next); err != nil {
		return err
	}
	if err := inheritUsers(tx, next); err != nil {
		return err
	}
	k, err := KeyByID(tx, next)
	if err != nil {
		return err
	}
	k.LastRotatedAt = tx.Now()
	return writeKey(tx, &k)
}

// BringBack makes a rotated or retired key active again on behalf of a run,
// and marks its standing rotation as undone by that run. Of an active key
// nothing changes. Errors: NotFound; Conflict where the key is deleted, or its
// halves were destroyed.
func BringBack(tx *store.Tx, run trust.RunID, key trust.KeyID) error {
	k, err := KeyByID(tx, key)
	if err != nil {
		return err
	}
	switch k.State {
	case Active:
		return nil
	case Deleted:
		return trust.Errorf(trust.Conflict, "key %s is deleted", key)
	}
	standing, _, err := Rotations(tx, RotationFilter{Key: key, Standing: true}, Page{Desc: true})
	if err != nil {
		return err
	}
	for _, r := range standing {
		if !r.PurgedAt.IsZero() {
			return trust.Errorf(trust.Conflict, "what was kept of key %s was destroyed on %s", key, r.PurgedAt.Format(time.RFC3339))
		}
	}
	if _, err := tx.Exec(sqlUndoRotations, tx.Tenant(), key, run, store.Micros(tx.Now())); err != nil {
		return err
	}
	k.State, k.LastRotatedAt = Active, tx.Now()
	return writeKey(tx, &k)
}

// UndoRun takes back all that TakeOut, AddReplacement and BringBack did on
// behalf of a run: keys that it took out are active again, keys that it
// brought back are out again, and successors that only it put into use are
// Retired. Who may use a key by now may use the one that comes back in its place. It
// returns the keys concerned. Doing so twice is doing so once.
func UndoRun(tx *store.Tx, run trust.RunID) ([]trust.KeyID, error) {
	var concerned []trust.KeyID
	takenOut, err := allRotations(tx, RotationFilter{Run: run, Standing: true})
	if err != nil {
		return nil, err
	}
	broughtBack, err := allRotations(tx, RotationFilter{UndoneBy: run})
	if err != nil {
		return nil, err
	}
	// Successors first: TakeOut's own marks on them are still to be read.
	for _, r := range takenOut {
		for _, next := range r.ReplacedBy {
			if err := setState(tx, next, Active, Retired); err != nil {
				return nil, err
			}
			if err := passUsers(tx, next, r.Key); err != nil {
				return nil, err
			}
			concerned = append(concerned, next)
		}
	}
	for _, r := range broughtBack {
		if r.Run == run {
			continue // taken out and brought back by one run: already as before
		}
		if _, err := tx.Exec(sqlRedoRotations, tx.Tenant(), r.Key, run); err != nil {
			return nil, err
		}
		if err := setState(tx, r.Key, "", r.Became); err != nil {
			return nil, err
		}
		concerned = append(concerned, r.Key)
	}
	for _, r := range takenOut {
		if _, err := tx.Exec(sqlUndoRotations, tx.Tenant(), r.Key, run, store.Micros(tx.Now())); err != nil {
			return nil, err
		}
		if err := setState(tx, r.Key, "", Active); err != nil {
			return nil, err
		}
		concerned = append(concerned, r.Key)
	}
	return concerned, nil
}

// setState moves a key to a state, from any or from one only.
func setState(tx *store.Tx, key trust.KeyID, from, to KeyState) error {
	k, err := KeyByID(tx, key)
	if err != nil || k.State == to || k.State == Deleted || from != "" && k.State != from {
		return err
	}
	k.State = to
	return writeKey(tx, &k)
}

// Archived records that the halves of a key that a run took out of use lie in
// the archive now, and until when they are kept; the zero time is for good.
// Calling it again moves that day. Errors: NotFound.
func Archived(tx *store.Tx, run trust.RunID, key trust.KeyID, retainUntil time.Time) error {
	found, err := one(tx, sqlArchived, tx.Tenant(), key, run, store.Micros(tx.Now()), store.Micros(retainUntil))
	if err == nil && !found {
		return errNoRotation(run, key)
	}
	return err
}

// Purged records that what was archived of a key is destroyed, and forgets
// where it lay. Errors: NotFound.
func Purged(tx *store.Tx, run trust.RunID, key trust.KeyID) error {
	rotations, _, err := Rotations(tx, RotationFilter{Key: key, Run: run}, Page{})
	if err != nil {
		return err
	}
	if len(rotations) == 0 {
		return errNoRotation(run, key)
	}
	if _, err := tx.Exec(sqlPurged, tx.Tenant(), key, run, store.Micros(tx.Now())); err != nil {
		return err
	}
	_, err = tx.Exec(sqlForgetArchive, tx.Tenant(), key, run)
	return err
}

func errNoRotation(run trust.RunID, key trust.KeyID) error {
	return trust.Errorf(trust.NotFound, "run %s has not taken key %s out of use", run, key).WithHint("keyturn run show %s", run)
}

// A RotationFilter narrows a listing of the rotated inventory.
type RotationFilter struct {
	Key      trust.KeyID
	Run      trust.RunID
	UndoneBy trust.RunID
	// Standing leaves out what was undone.
	Standing bool
	// Expired narrows to what stands, is archived and not purged, and was to
	// be kept until this time at the latest.
	Expired time.Time
	// Kinds narrows to keys of these kinds.
	Kinds []KeyKind
	// Text is looked for in comment, fingerprint and owner of the key.
	Text string
}

func (f RotationFilter) apply(q *query) error {
	if f.Key != "" {
		q.and("key_id = ?", f.Key)
	}
	if f.Run != "" {
		q.and("run_id = ?", f.Run)
	}
	if f.UndoneBy != "" {
		q.and("undone_run = ?", f.UndoneBy)
	}
	if f.Standing || !f.Expired.IsZero() {
		q.and("undone_at = 0")
	}
	if !f.Expired.IsZero() {
		q.and("purged_at = 0 AND archived_at > 0 AND retain_until > 0 AND retain_until <= ?", store.Micros(f.Expired))
	}
	if len(f.Kinds) > 0 {
		args := make([]any, len(f.Kinds))
		for i, kind := range f.Kinds {
			args[i] = kind
		}
		q.and(sqlRotationKinds+"("+marks(len(args))+"))", args...)
	}
	if f.Text != "" {
		if err := checkText(f.Text); err != nil {
			return err
		}
		q.and(sqlRotationText, contains(f.Text))
	}
	return nil
}

var rotationColumns = []column{
	{name: "at", sql: "at", number: true},
	{name: "retention", sql: "retain_until", number: true},
}

// Rotations lists the rotated inventory, sorted by "at" or "retention". next
// is Page.After of the page that follows, or empty after the last.
func Rotations(tx *store.Tx, f RotationFilter, p Page) (rotations []Rotation, next string, err error) {
	by, err := p.check(rotationColumns)
	if err != nil {
		return nil, "", err
	}
	q := newQuery(tx, sqlRotations, "key_rotations")
	if err := f.apply(q); err != nil {
		return nil, "", err
	}
	if err := p.apply(q, by, sqlRotationID, f.Key != "" || f.Run != "" || f.UndoneBy != ""); err != nil {
		return nil, "", err
	}
	err = q.rows(tx, func(rows *sql.Rows) error {
		var r Rotation
		var at, archived, retain, purged, undone int64
		err := rows.Scan(&r.Key, &r.Run, &r.Became, &r.By, &at, &archived, &retain, &purged, &r.UndoneBy, &undone)
		r.At, r.ArchivedAt, r.RetainUntil = store.Time(at), store.Time(archived), store.Time(retain)
		r.PurgedAt, r.UndoneAt = store.Time(purged), store.Time(undone)
		rotations = append(rotations, r)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if len(rotations) > p.Limit {
		rotations = rotations[:p.Limit]
		last := rotations[p.Limit-1]
		value := store.Micros(last.At)
		if by.name == "retention" {
			value = store.Micros(last.RetainUntil)
		}
		next = p.next(by, strconv.FormatInt(value, 10), string(last.Key)+" "+string(last.Run))
	}
	for i := range rotations {
		r := &rotations[i]
		err := each(tx, sqlReplacementsOfRun, []any{tx.Tenant(), r.Key, r.Run}, func(rows *sql.Rows) error {
			var old, next trust.KeyID
			err := rows.Scan(&old, &next)
			r.ReplacedBy = append(r.ReplacedBy, next)
			return err
		})
		if err != nil {
			return nil, "", err
		}
	}
	return rotations, next, nil
}

// allRotations lists a filter's rotations to the last: those of one run.
func allRotations(tx *store.Tx, f RotationFilter) ([]Rotation, error) {
	var all []Rotation
	p := Page{Limit: MaxPage}
	for {
		some, next, err := Rotations(tx, f, p)
		all = append(all, some...)
		if err != nil || next == "" {
			return all, err
		}
		p.After = next
	}
}

// An ArchivedPlace is where a half of a key lay when it was taken out of use.
type ArchivedPlace struct {
	trust.Place
	Kind FileKind
	// HostName is the host's name on that day.
	HostName string
	// Ordinal and Line are of an authorized place, as in AuthorizedPlace.
	Ordinal, Line int
	// Snapshot names the sealed bytes in the keyring, where there are any.
	Snapshot string
	// KeptPath is where on the host a half made there was put aside, or
	// nothing.
	KeptPath   string
	ArchivedAt time.Time
}

// Archive records where a half of a key lay that a run took out of use, and
// under which names it is kept. Doing so again replaces those names.
func Archive(tx *store.Tx, run trust.RunID, key trust.KeyID, a ArchivedPlace) error {
	if err := CheckPlace(a.Place); err != nil {
		return err
	}
	_, err := tx.Exec(sqlArchivePlace, tx.Tenant(), key, run, a.Kind, a.Host, a.HostName,
		a.User, a.Path, a.Ordinal, a.Line, a.Snapshot, a.KeptPath, store.Micros(tx.Now()))
	return err
}

// ArchivedPlaces returns where the halves of a key lay that a run took out of
// use.
func ArchivedPlaces(tx *store.Tx, run trust.RunID, key trust.KeyID) ([]ArchivedPlace, error) {
	var places []ArchivedPlace
	err := each(tx, sqlArchivedPlaces, []any{tx.Tenant(), key, run}, func(rows *sql.Rows) error {
		var a ArchivedPlace
		var at int64
		err := rows.Scan(&a.Kind, &a.Host, &a.HostName, &a.User, &a.Path, &a.Ordinal, &a.Line, &a.Snapshot, &a.KeptPath, &at)
		a.ArchivedAt = store.Time(at)
		places = append(places, a)
		return err
	})
	return places, err
}
