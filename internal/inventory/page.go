package inventory

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"

	"keyturn/internal/trust"
)

// MaxPage is the largest number of rows that one call lists.
const MaxPage = 1000

// A Page says which part of a listing is wanted, and in what order. Rows that
// are equal in that order are ordered by id, so that it is the same each time.
type Page struct {
	// Limit is how many rows at most: 1 to MaxPage, or 0 for 100.
	Limit int
	// After is the Next of the page before: the listing goes on behind that
	// page's last row, whatever was added or removed meanwhile. Sort and Desc
	// must be as they were.
	After string
	// Offset skips rows, for callers that count; not together with After.
	Offset int
	// Sort names what to order by. Each listing says what it knows; the empty
	// name is its first.
	Sort string
	// Desc turns the order round.
	Desc bool
}

// A column is something that a listing can be ordered by.
type column struct {
	name   string
	sql    string
	number bool
}

// cursor is what Page.After holds: the row that it continues behind.
type cursor struct {
	Sort  string `json:"s"`
	Desc  bool   `json:"d,omitempty"`
	Value string `json:"v"`
	ID    string `json:"i"`
}

// check fills in p's defaults and finds its column among those of a listing.
func (p *Page) check(columns []column) (column, error) {
	if p.Limit == 0 {
		p.Limit = 100
	}
	if p.Limit < 1 || p.Limit > MaxPage {
		return column{}, trust.Errorf(trust.Invalid, "limit %d is not 1 to %d", p.Limit, MaxPage).WithField("limit")
	}
	if p.Offset < 0 || p.Offset > 0 && p.After != "" {
		return column{}, trust.Errorf(trust.Invalid, "offset %d is negative, or beside a cursor", p.Offset).WithField("offset")
	}
	names := make([]string, len(columns))
	for i, c := range columns {
		if p.Sort == "" || p.Sort == c.name {
			return c, nil
		}
		names[i] = c.name
	}
	return column{}, trust.Errorf(trust.Invalid, "cannot sort by %q, only by %s", abbreviate(p.Sort), strings.Join(names, ", ")).WithField("sort")
}

// apply adds the page's order and bounds to q, whose rows are named by the
// expression id, and asks for one row more than the limit. few says that q's
// conditions let only few rows through: then they are looked up and sorted,
// instead of going over all rows in order.
func (p Page) apply(q *query, by column, id string, few bool) error {
	switch {
	case few && by.number: // an expression has no index
		by.sql += " + 0"
	case few:
		by.sql += " || ''"
	}
	op, order := ">", ""
	if p.Desc {
		op, order = "<", " DESC"
	}
	if p.After != "" {
		c, err := p.cursor(by)
		if err != nil {
			return err
		}
		var value any = c.Value
		if by.number {
			value, err = strconv.ParseInt(c.Value, 10, 64)
			if err != nil {
				return invalidCursor()
			}
		}
		q.and("("+by.sql+", "+id+") "+op+" (?, ?)", value, c.ID)
	}
	q.add(" ORDER BY "+by.sql+order+", "+id+order+" LIMIT ? OFFSET ?", p.Limit+1, p.Offset)
	return nil
}

func (p Page) cursor(by column) (cursor, error) {
	text, err := base64.RawURLEncoding.DecodeString(p.After)
	if err != nil || len(text) > 4096 {
		return cursor{}, invalidCursor()
	}
	var c cursor
	if json.Unmarshal(text, &c) != nil || c.Sort != by.name || c.Desc != p.Desc {
		return cursor{}, invalidCursor()
	}
	return c, nil
}

func invalidCursor() error {
	return trust.Errorf(trust.Invalid, "cursor belongs to no page of this listing").WithField("after")
}

// next returns the cursor behind a row.
func (p Page) next(by column, value, id string) string {
	text, err := json.Marshal(cursor{Sort: by.name, Desc: p.Desc, Value: value, ID: id})
	if err != nil {
		return "" // cannot happen: the struct holds strings and a bool
	}
	return base64.RawURLEncoding.EncodeToString(text)
}
