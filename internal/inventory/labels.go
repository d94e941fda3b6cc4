package inventory

import (
	"database/sql"
	"strings"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// MaxLabels is how many labels a key can have.
const MaxLabels = 32

// maxLabel is how many characters the name of a label can have, and its value.
const maxLabel = 63

// A Label is a name and a value that people give to keys to find them by.
//
// Both are of at most 63 letters, digits, '.', '_' and '-' of ASCII, in a name '/'
// too, and begin and end with a letter or digit; a value may be empty.
type Label struct{ Name, Value string }

// String returns a label as ParseLabel reads it.
func (l Label) String() string { return l.Name + "=" + l.Value }

// ParseLabel reads a label of the form "name=value".
func ParseLabel(text string) (Label, error) {
	name, value, found := strings.Cut(text, "=")
	if !found {
		return Label{}, trust.Errorf(trust.Invalid, "label %q is not of the form name=value", abbreviate(text)).WithField("labels")
	}
	l := Label{name, value}
	return l, l.check()
}

func (l Label) check() error {
	switch {
	case !isLabelText(l.Name, true):
		return trust.Errorf(trust.Invalid, "label name %q is not 1 to %d letters, digits, '.', '_', '-' and '/' that begin and end with a letter or digit", abbreviate(l.Name), maxLabel).WithField("labels")
	case l.Value != "" && !isLabelText(l.Value, false):
		return trust.Errorf(trust.Invalid, "value %q of label %s is not up to %d letters, digits, '.', '_' and '-' that begin and end with a letter or digit", abbreviate(l.Value), l.Name, maxLabel).WithField("labels")
	}
	return nil
}

func isLabelText(s string, slash bool) bool {
	if s == "" || len(s) > maxLabel {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i == 0, i == len(s)-1:
			return false
		case c == '.', c == '_', c == '-', c == '/' && slash:
		default:
			return false
		}
	}
	return true
}

// SetLabels gives a key labels, each in place of one of the same name, and takes
// away those of other names. Errors: Invalid, where one is malformed or the key would
// have more than MaxLabels.
func SetLabels(tx *store.Tx, key trust.KeyID, set []Label, drop []string) error {
	for _, name := range drop {
		if _, err := tx.Exec(sqlDropLabel, tx.Tenant(), key, name); err != nil {
			return err
		}
	}
	for _, l := range set {
		if err := l.check(); err != nil {
			return err
		}
		if _, err := tx.Exec(sqlPutLabel, tx.Tenant(), key, l.Name, l.Value); err != nil {
			return err
		}
	}
	n := 0
	if err := tx.QueryRow(sqlCountLabels, tx.Tenant(), key).Scan(&n); err != nil {
		return err
	}
	if n > MaxLabels {
		return trust.Errorf(trust.Invalid, "key %s would have %d labels; it can have %d", key, n, MaxLabels).WithField("labels")
	}
	return nil
}

// CopyLabels gives a key that has none the labels of another, whose place it takes.
func CopyLabels(tx *store.Tx, from, to trust.KeyID) error {
	labels, err := labelsOf(tx, []trust.KeyID{from, to})
	if err != nil || len(labels[to]) > 0 {
		return err
	}
	return SetLabels(tx, to, labels[from], nil)
}

// labelsOf returns the labels of keys, by name.
func labelsOf(tx *store.Tx, ids []trust.KeyID) (map[trust.KeyID][]Label, error) {
	labels := map[trust.KeyID][]Label{}
	q := newQueryOf(tx, ids, sqlLabelsWanted, "key_labels", "key_id")
	q.add(" ORDER BY key_id, name")
	err := q.rows(tx, func(rows *sql.Rows) error {
		var id trust.KeyID
		var l Label
		err := rows.Scan(&id, &l.Name, &l.Value)
		labels[id] = append(labels[id], l)
		return err
	})
	return labels, err
}
