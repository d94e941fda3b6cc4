package access

import (
	"cmp"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// NewID returns the id of a thing that is about to be added: a UUID of version 7,
// so that ids are in the order in which things were added. Make it before the
// transaction, which may run twice.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// NewAudience returns what the tokens of an application that is about to be added
// are for: 64 hex digits.
func NewAudience() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: see crypto/rand
	return hex.EncodeToString(b)
}

// An Application is a policy.Application as it was written. Its policies are rows of
// their own: see Policies.
type Application struct {
	ID string
	// Aud is what tokens for it are for: 64 hex digits, unique in the tenant.
	Aud    string
	Name   string
	Type   policy.ApplicationType
	Domain string
	// Criteria are of an application of type Infrastructure, and of no other.
	Criteria []Criterion
	// Providers are ids of the only identity providers by which people log in.
	Providers []string
	// Extra is a JSON object of what else was said of it, or empty.
	Extra     json.RawMessage
	CreatedAt time.Time
	UpdatedAt time.Time
}

// A Criterion is a policy.Criterion as it was written.
type Criterion struct {
	policy.Criterion
	// Sections is whether it was written in Cloudflare's newer form, although the older
	// one, which has hostnames to include and nothing else, could say the same.
	Sections bool `json:"sections,omitempty"`
}

// applicationDocument is what the column of that name holds.
type applicationDocument struct {
	Criteria  []Criterion     `json:"criteria,omitempty"`
	Providers []string        `json:"providers,omitempty"`
	Extra     json.RawMessage `json:"extra,omitempty"`
}

// AddApplication adds an application without policies. Errors: Invalid; Exhausted.
func AddApplication(tx *store.Tx, a Application) (Application, error) {
	document, err := a.check()
	if err != nil {
		return Application{}, err
	}
	n := 0
	if err := tx.QueryRow(sqlCountApplications, ApplicationFilter{}.args(tx)...).Scan(&n); err != nil {
		return Application{}, err
	}
	if n >= MaxApplications {
		return Application{}, trust.Errorf(trust.Exhausted, "there are %d applications, as many as there can be", n)
	}
	a.CreatedAt, a.UpdatedAt = tx.Now(), tx.Now()
	_, err = tx.Exec(sqlAddApplication, tx.Tenant(), a.ID, a.Aud, a.Name, a.Type, a.Domain, document, store.Micros(tx.Now()))
	if err != nil {
		return Application{}, err
	}
	return a, changed(tx)
}

// SetApplication writes an application anew, but for its Aud, with the policies that it
// is to have, as SetPolicies has them, or those that it has where they are nil. Errors:
// Invalid, also of a policy that one of its type cannot have; NotFound; as of SetPolicies.
func SetApplication(tx *store.Tx, a Application, policies []Policy) (Application, error) {
	was, err := ApplicationByID(tx, a.ID)
	if err != nil {
		return Application{}, err
	}
	a.Aud, a.CreatedAt, a.UpdatedAt = was.Aud, was.CreatedAt, tx.Now()
	document, err := a.check()
	if err != nil {
		return Application{}, err
	}
	if _, err := tx.Exec(sqlSetApplication, tx.Tenant(), a.ID, a.Name, a.Type, a.Domain, document, store.Micros(tx.Now())); err != nil {
		return Application{}, err
	}
	if policies != nil {
		return a, SetPolicies(tx, a.ID, policies)
	}
	if policies, err = Policies(tx, a.ID); err != nil {
		return Application{}, err
	}
	for _, p := range policies {
		if err := p.fits(a); err != nil {
			return Application{}, err
		}
	}
	return a, changed(tx)
}

// RemoveApplication removes an application with the policies that are its own.
func RemoveApplication(tx *store.Tx, id string) error {
	if _, err := ApplicationByID(tx, id); err != nil {
		return err
	}
	for _, statement := range sqlRemoveApplication {
		if _, err := tx.Exec(statement, tx.Tenant(), id); err != nil {
			return err
		}
	}
	return changed(tx)
}

// ApplicationByID returns the application of an id, or a NotFound error.
func ApplicationByID(tx *store.Tx, id string) (Application, error) {
	list, err := applications(tx, sqlApplications+` AND id = $2`, tx.Tenant(), id)
	return only(list, err, "application", id)
}

// ApplicationByAud returns the application that tokens are for, or a NotFound error.
func ApplicationByAud(tx *store.Tx, aud string) (Application, error) {
	list, err := applications(tx, sqlApplications+` AND aud = $2`, tx.Tenant(), aud)
	return only(list, err, "application", aud)
}

// Audiences returns Aud of the applications from one id to another, by their ids.
func Audiences(tx *store.Tx, first, last string) (map[string]string, error) {
	of := map[string]string{}
	err := rows(tx, func(row *sql.Rows) error {
		var id, aud string
		err := row.Scan(&id, &aud)
		of[id] = aud
		return err
	}, sqlAudiences, tx.Tenant(), first, last)
	return of, err
}

// FindApplication returns the application of an id or a name. Errors: NotFound;
// Conflict, where several have that name.
func FindApplication(tx *store.Tx, idOrName string) (Application, error) {
	list, err := applications(tx, sqlApplications+` AND (id = $2 OR name = $2) ORDER BY id <> $2, id LIMIT 2`, tx.Tenant(), idOrName)
	if err == nil && len(list) == 2 && list[0].ID != idOrName {
		return Application{}, ambiguous("applications", idOrName)
	}
	return only(first(list), err, "application", idOrName)
}

// An ApplicationFilter says which applications are listed: those for which all of it
// is so that is not empty.
type ApplicationFilter struct {
	Name   string
	Domain string
	Aud    string
	Type   policy.ApplicationType
	// Search is a part of the name or the domain, without regard to case.
	Search string
	// NamePart and DomainPart are parts, without regard to case.
	NamePart   string
	DomainPart string
	// Hostname is one that a criterion includes, as it is written there but for case.
	Hostname string
}

// args are the parameters of sqlFilter.
func (f ApplicationFilter) args(tx *store.Tx) []any {
	return []any{tx.Tenant(), f.Name, f.Domain, f.Aud, f.Type, likeText(f.Search), likeText(f.NamePart), likeText(f.DomainPart)}
}

// A Page says which part of a listing is wanted. Listings are ordered by id.
type Page struct {
	// Limit is how many entries at most: 1 to 1,000, or 0 for 100.
	Limit int
	// After is the id of the last entry of the page before.
	After string
	// Offset skips entries, for callers that count.
	Offset int
}

// check refuses a page that there cannot be, and fills in the default.
func (p Page) check() (Page, error) {
	switch {
	case p.After != "" && uuid.Validate(p.After) != nil:
		return p, trust.Errorf(trust.Invalid, "%.80q is not where a page ended", p.After).WithField("after")
	case p.Limit < 0 || p.Limit > maxPage:
		return p, trust.Errorf(trust.Invalid, "page size %d is not 1 to %d", p.Limit, maxPage).WithField("limit")
	case p.Offset < 0:
		return p, trust.Errorf(trust.Invalid, "offset %d is negative", p.Offset).WithField("offset")
	case p.Limit == 0:
		p.Limit = 100
	}
	return p, nil
}

const maxPage = 1000

// Applications lists a page of applications, and counts all that the filter lets
// through.
func Applications(tx *store.Tx, f ApplicationFilter, page Page) (list []Application, total int, err error) {
	if page, err = page.check(); err != nil {
		return nil, 0, err
	}
	if f.Hostname != "" {
		list, err = applications(tx, sqlListApplications, append(f.args(tx), page.After, MaxApplications, 0)...)
		list = slices.DeleteFunc(list, func(a Application) bool { return !a.includes(f.Hostname) })
		total = len(list)
		from := min(page.Offset, total)
		return list[from:min(from+page.Limit, total)], total, err
	}
	if err := tx.QueryRow(sqlCountApplications, f.args(tx)...).Scan(&total); err != nil {
		return nil, 0, err
	}
	list, err = applications(tx, sqlListApplications, append(f.args(tx), page.After, page.Limit, page.Offset)...)
	return list, total, err
}

// includes reports whether a criterion of a has a hostname to include.
func (a Application) includes(hostname string) bool {
	return slices.ContainsFunc(a.Criteria, func(c Criterion) bool {
		return slices.ContainsFunc(c.Include.Hostnames, func(name string) bool { return strings.EqualFold(name, hostname) })
	})
}

func applications(tx *store.Tx, query string, args ...any) (list []Application, err error) {
	err = rows(tx, func(row *sql.Rows) error {
		var a Application
		var document []byte
		var created, updated int64
		if err := row.Scan(&a.ID, &a.Aud, &a.Name, &a.Type, &a.Domain, &document, &created, &updated); err != nil {
			return err
		}
		var d applicationDocument
		if err := json.Unmarshal(document, &d); err != nil {
			return err
		}
		a.Criteria, a.Providers, a.Extra = d.Criteria, d.Providers, d.Extra
		a.CreatedAt, a.UpdatedAt = store.Time(created), store.Time(updated)
		list = append(list, a)
		return nil
	}, query, args...)
	return list, err
}

// called is what people call a.
func (a Application) called() string { return cmp.Or(a.Name, a.Domain, a.ID) }
