package inventory

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A FoundFile is a file as a scan read it, with the halves of keys in it.
type FoundFile struct {
	File
	// Authorized are the keys of an AuthorizedFile.
	Authorized []AuthorizedKey
	// Identity is what an IdentityFile tells, and Role the kind of its key: by
	// default UserKey.
	Identity Identity
	Role     KeyKind
}

// An UnreadFile is a file, or with an empty Path all files of an account, that
// a scan knows of and could not read.
type UnreadFile struct {
	User, Path string
	Why        string
}

// A Scan is what one scan of one host found.
type Scan struct {
	Host    trust.HostID
	Outcome Outcome
	Why     string
	// All that follows is without meaning where Outcome is Unreachable.
	//
	// Opens says of the credentials that were tried whether each opened the host.
	Opens  map[trust.KeyID]bool
	Facts  Facts
	Notes  []Note
	Files  []FoundFile
	Unread []UnreadFile
	// Homeless are the accounts whose home directory does not exist, by name, with that
	// directory. What was known in it stays: it may be on a file system that is not
	// mounted.
	Homeless map[string]string
	// Known are the lines of known_hosts files that hold a key.
	Known []KnownHost
	// Users are the accounts that were gone through: a file of theirs that is
	// neither in Files nor in Unread is gone.
	Users []string
	// Complete says that the host has no accounts but Users. Otherwise what is
	// known of other accounts stays, as hearsay.
	Complete bool
}

// NoHome is why a file could not be read whose account's home directory does not exist.
const NoHome = "the home directory of its account does not exist"

// A Delta says what became different in the inventory.
type Delta struct {
	// Files counts the files that were new, changed or gone.
	Files int
	// Gained and Lost are the keys that have a place more, or one less; a key
	// can be in both. Each is sorted, without repetition.
	Gained, Lost []trust.KeyID
}

// Keys returns all keys whose places became different.
func (d Delta) Keys() []trust.KeyID {
	return compactSorted(slices.Concat(d.Gained, d.Lost))
}

func (d *Delta) add(o Delta) {
	d.Files += o.Files
	d.Gained = compactSorted(append(d.Gained, o.Gained...))
	d.Lost = compactSorted(append(d.Lost, o.Lost...))
}

func compactSorted[T cmp.Ordered](values []T) []T {
	slices.Sort(values)
	return slices.Compact(values)
}

// RecordScan writes what a scan found. Files whose bytes, and whose owner,
// mode and the like, are as they were cause no writes. Errors: NotFound for
// the host; Invalid for a place that cannot be named.
func RecordScan(tx *store.Tx, s Scan) (Delta, error) {
	h, err := HostByID(tx, s.Host)
	if err != nil {
		return Delta{}, err
	}
	why := plainText(s.Why, maxComment)
	if s.Outcome == Unreachable {
		_, err := tx.Exec(sqlHostMissed, tx.Tenant(), s.Host, s.Outcome, why, store.Micros(tx.Now()))
		return Delta{}, err
	}
	for key, opened := range s.Opens {
		if opened {
			err = CredentialWorked(tx, s.Host, key, tx.Now())
		} else {
			err = CredentialFailed(tx, s.Host, key)
		}
		if err != nil {
			return Delta{}, err
		}
	}
	facts, err := json.Marshal(s.Facts)
	if err != nil {
		return Delta{}, err
	}
	if s.Notes == nil {
		s.Notes = []Note{}
	}
	notes, err := json.Marshal(s.Notes)
	if err != nil {
		return Delta{}, err
	}
	known, err := filesAt(tx, s.Host)
	if err != nil {
		return Delta{}, err
	}
	var d Delta
	for _, f := range s.Files {
		f.Host = s.Host
		name := fileName{f.Place, f.Kind}
		old, ok := known[name]
		delete(known, name)
		some, err := putFile(tx, f, old, ok, s.Facts.Banner == h.Facts.Banner)
		if err != nil {
			return Delta{}, err
		}
		d.add(some)
	}
	for _, f := range sortedFiles(known) {
		why, gone := s.fate(f.Place)
		var some Delta
		var err error
		switch {
		case gone:
			some, err = dropFile(tx, f)
		case f.LastRead.IsZero() || f.UnreadWhy != why:
			if f.LastRead.IsZero() {
				f.LastRead = lastRead(h, f)
			}
			f.UnreadWhy = why
			err = writeFile(tx, f)
		}
		if err != nil {
			return Delta{}, err
		}
		d.add(some)
	}
	if err := putKnownHosts(tx, s); err != nil {
		return Delta{}, err
	}
	_, err = tx.Exec(sqlHostScanned, tx.Tenant(), s.Host, s.Outcome, why, string(facts), s.Facts.Machine,
		string(notes), store.Micros(tx.Now()))
	return d, err
}

// fate says of a file that was known and not found whether it is gone, or why
// nobody can tell.
func (s Scan) fate(p trust.Place) (why string, gone bool) {
	for _, u := range s.Unread {
		if u.User == p.User && (u.Path == "" || u.Path == p.Path) {
			return plainText(u.Why, maxComment), false
		}
	}
	if home := s.Homeless[p.User]; home != "" && strings.HasPrefix(p.Path, home+"/") {
		return NoHome, false
	}
	if s.Complete || slices.Contains(s.Users, p.User) {
		return "", true
	}
	return "the newest scan did not see this account", false
}

// lastRead is when a file that cannot be read any more last was: at the scan
// before, or when a run wrote to it since.
func lastRead(h Host, f File) time.Time {
	if f.ChangedAt.After(h.Coverage.ScannedAt) {
		return f.ChangedAt
	}
	return h.Coverage.ScannedAt
}

// PutFile writes what a run found in, or put into, one file: its row, and in
// exchange for all that were there the rows of its keys. Errors: as RecordScan.
func PutFile(tx *store.Tx, f FoundFile) (Delta, error) {
	old, ok, err := fileAt(tx, f.Place, f.Kind)
	if err == nil && !ok { // of a host that is not known no file is, either
		_, err = HostRevision(tx, f.Host)
	}
	if err != nil {
		return Delta{}, err
	}
	return putFile(tx, f, old, ok, true)
}

// DropFile forgets a file that a run found gone, or removed. Forgetting what
// is not known changes nothing.
func DropFile(tx *store.Tx, place trust.Place, kind FileKind) (Delta, error) {
	old, ok, err := fileAt(tx, place, kind)
	if err != nil || !ok {
		return Delta{}, err
	}
	return dropFile(tx, old)
}

// putFile writes f over old, which is what is known of it if known is true. What
// equal bytes mean is as it was, unless another server reads them now.
func putFile(tx *store.Tx, f FoundFile, old File, known, sameServer bool) (Delta, error) {
	if err := CheckPlace(f.Place); err != nil {
		return Delta{}, err
	}
	f.Owner, f.FileSystem, f.Inode = plainText(f.Owner, 255), plainText(f.FileSystem, 64), plainText(f.Inode, 255)
	f.Fault, f.Fixed = plainText(f.Fault, maxComment), plainText(f.Fixed, maxComment)
	f.LastRead, f.UnreadWhy = store.Time(0), ""
	f.ChangedAt = tx.Now()
	same := known && f.SHA256 == old.SHA256
	if same {
		f.ChangedAt = old.ChangedAt
	}
	var d Delta
	var err error
	switch {
	case f.Kind == IdentityFile:
		// What is known of a private key may come from the .pub beside it, so
		// that equal bytes do not say that nothing changed.
		d, err = putIdentity(tx, f)
	case f.Kind == AuthorizedFile && !(same && sameServer):
		d, err = putAuthorized(tx, f)
	case f.Kind != AuthorizedFile:
		err = trust.Errorf(trust.Invalid, "file kind %q is neither authorized nor identity", abbreviate(string(f.Kind)))
	}
	if err != nil {
		return Delta{}, err
	}
	if known && f.File == old {
		return d, nil
	}
	if !same {
		d.Files = 1
	}
	return d, writeFile(tx, f.File)
}

func dropFile(tx *store.Tx, f File) (Delta, error) {
	var d Delta
	var err error
	switch f.Kind {
	case AuthorizedFile:
		d, err = putAuthorized(tx, FoundFile{File: f})
	case IdentityFile:
		d, err = dropIdentity(tx, f.Place)
	}
	if err != nil {
		return Delta{}, err
	}
	d.Files = 1
	_, err = tx.Exec(sqlDropFile, placeArgs(tx, f.Place, f.Kind)...)
	return d, err
}

// line names a line of a file by its key.
type line struct {
	key     trust.KeyID
	ordinal int
}

// putAuthorized makes f.Authorized the lines of its file.
func putAuthorized(tx *store.Tx, f FoundFile) (Delta, error) {
	old, err := linesAt(tx, f.Place)
	if err != nil {
		return Delta{}, err
	}
	keys := make(map[trust.PublicKey]Key, len(f.Authorized))
	var met []Key
	for _, a := range f.Authorized {
		if _, ok := keys[a.Key]; !ok {
			keys[a.Key] = Key{}
			met = append(met, Key{Kind: UserKey, Public: a.Key, Comment: a.Comment})
		}
	}
	if met, err = putKeys(tx, met); err != nil {
		return Delta{}, err
	}
	for _, k := range met {
		keys[k.Public] = k
	}
	var d Delta
	var added [][]any
	count := make(map[trust.KeyID]int, len(met))
	for _, a := range f.Authorized {
		name := line{key: keys[a.Key].ID}
		name.ordinal = count[name.key]
		count[name.key]++
		was, ok := old[name]
		delete(old, name)
		seen := tx.Now()
		if ok {
			was.Key = a.Key
			if was.sameForm(a) {
				seen = was.seenAt
			}
			if was.sameForm(a) && was.Line == a.Line {
				continue
			}
		}
		args := placeArgs(tx, f.Place, name.key, name.ordinal, a.Line, []byte(a.Options), nonNil(a.Raw), plainText(a.Comment, maxComment),
			a.Authority, a.Refused, store.Micros(seen))
		if ok {
			if _, err := tx.Exec(sqlSetAuthorized, args...); err != nil {
				return Delta{}, err
			}
			continue
		}
		added = append(added, args)
		d.Gained = append(d.Gained, name.key)
	}
	for name := range old {
		if _, err := tx.Exec(sqlDropAuthorized, placeArgs(tx, f.Place, name.key, name.ordinal)...); err != nil {
			return Delta{}, err
		}
		d.Lost = append(d.Lost, name.key)
		if count[name.key] == 0 {
			if _, err := tx.Exec(sqlDropLineFindings, placeArgs(tx, f.Place, name.key)...); err != nil {
				return Delta{}, err
			}
		}
	}
	d.Gained, d.Lost = compactSorted(d.Gained), compactSorted(d.Lost)
	return d, insertRows(tx, sqlAddAuthorized, added)
}

// putIdentity makes f.Identity what lies in its file.
func putIdentity(tx *store.Tx, f FoundFile) (Delta, error) {
	var id trust.KeyID
	if !f.Identity.Key.IsZero() {
		k := Key{Kind: cmp.Or(f.Role, UserKey), Public: f.Identity.Key, Comment: f.Identity.Comment, Container: f.Identity.Format, Custody: External}
		if !f.Identity.Encrypted {
			k.Custody = InPlace
		}
		k, err := PutKey(tx, k)
		if err != nil {
			return Delta{}, err
		}
		id = k.ID
	}
	old, known, err := identityAt(tx, f.Place)
	if err != nil {
		return Delta{}, err
	}
	now := IdentityPlace{
		Place: f.Place, KeyID: id, Format: plainText(f.Identity.Format, 64), Encrypted: f.Identity.Encrypted,
		Comment: plainText(f.Identity.Comment, maxComment), Link: plainText(f.Identity.Link, maxPath), Apart: f.Identity.Apart, SeenAt: old.SeenAt,
	}
	if known && now == old {
		return Delta{}, nil
	}
	_, err = tx.Exec(sqlPutIdentity, placeArgs(tx, f.Place, now.KeyID, now.Format, now.Encrypted, now.Comment, now.Link, now.Apart, store.Micros(tx.Now()))...)
	if err != nil {
		return Delta{}, err
	}
	// Whatever is a link to this file holds what it holds.
	if _, err := tx.Exec(sqlFollowIdentity, placeArgs(tx, f.Place, now.KeyID, now.Format, now.Encrypted, store.Micros(tx.Now()))...); err != nil {
		return Delta{}, err
	}
	var d Delta
	closed := []trust.KeyID{}
	if id != "" && old.KeyID != id {
		d.Gained = []trust.KeyID{id}
	}
	if old.KeyID != "" && old.KeyID != id {
		d.Lost = []trust.KeyID{old.KeyID}
		closed = d.Lost
	}
	if id != "" && now.Encrypted && old.KeyID == id && !old.Encrypted {
		closed = []trust.KeyID{id}
	}
	return d, loseCustody(tx, closed)
}

func dropIdentity(tx *store.Tx, p trust.Place) (Delta, error) {
	old, known, err := identityAt(tx, p)
	if err != nil || !known {
		return Delta{}, err
	}
	if _, err := tx.Exec(sqlDropIdentity, placeArgs(tx, p)...); err != nil {
		return Delta{}, err
	}
	if old.KeyID == "" {
		return Delta{}, nil
	}
	d := Delta{Lost: []trust.KeyID{old.KeyID}}
	return d, loseCustody(tx, d.Lost)
}

// loseCustody makes those keys External that were InPlace and whose private
// half we can read nowhere any more.
func loseCustody(tx *store.Tx, keys []trust.KeyID) error {
	for _, id := range keys {
		k, err := KeyByID(tx, id)
		if err != nil {
			return err
		}
		if k.Custody != InPlace || k.Kind != UserKey {
			continue
		}
		var open int
		if err := tx.QueryRow(sqlOpenIdentities, tx.Tenant(), id).Scan(&open); err != nil {
			return err
		}
		if open > 0 {
			continue
		}
		k.Custody = External
		if err := writeKey(tx, &k); err != nil {
			return err
		}
	}
	return nil
}
