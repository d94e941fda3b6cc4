package cloudflare

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// A resultInfo says which part of a listing an answer has. Newer SDKs do not read it:
// they ask for the next page until one is empty. Older ones count by it.
type resultInfo struct {
	Count      int `json:"count"`
	Page       int `json:"page"`
	PerPage    int `json:"per_page"`
	TotalCount int `json:"total_count"`
	TotalPages int `json:"total_pages"`
}

// perPage is how many entries a page has of which nothing is said: as many as there can
// be, because SDKs of 2024 and 2025 take the first page of some listings for all of it.
const perPage = control.MaxPage

// maxPageNumber is the last page that can be asked for; none that is not empty lies beyond.
const maxPageNumber = 1_000_000

// A query reads the parameters of a request. The first that is wrong is err.
type query struct {
	url.Values
	err error
}

func queryOf(r *http.Request) *query { return &query{Values: r.URL.Query()} }

func (q *query) refuse(name, value, what string) {
	if q.err == nil {
		q.err = trust.Errorf(trust.Invalid, "%s: %.80q is not %s", name, value, what).WithField(name)
	}
}

// read returns what a function reads a parameter as, or nothing where it is not given.
func read[T any](q *query, name, what string, parse func(string) (T, error)) (value T) {
	text := q.Get(name)
	if text == "" {
		return value
	}
	value, err := parse(text)
	if err != nil {
		q.refuse(name, text, what)
	}
	return value
}

// number reads a number from 1 on. The tests that Cloudflare generates for its SDKs send 0
// where nothing is meant.
func (q *query) number(name string, otherwise, most int) int {
	if text := q.Get(name); text == "" || text == "0" {
		return otherwise
	}
	n := read(q, name, "a whole number", strconv.Atoi)
	if n < 1 || n > most {
		q.refuse(name, q.Get(name), "1 to "+strconv.Itoa(most))
	}
	return n
}

func (q *query) time(name string) time.Time {
	return read(q, name, "a time as in RFC 3339", func(s string) (time.Time, error) { return time.Parse(time.RFC3339, s) })
}

func (q *query) ip(name, text string, six bool) netip.Addr {
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Is6() != six || ip.Zone() != "" {
		q.refuse(name, text, map[bool]string{false: "an IPv4 address", true: "an IPv6 address"}[six])
	}
	return ip
}

// page reads which page is asked for.
func (q *query) page() control.CountedPage {
	return control.CountedPage{Number: q.number("page", 1, maxPageNumber), Size: q.number("per_page", perPage, perPage)}
}

// infoOf says which part of a listing a page is.
func infoOf(p control.CountedPage, count, total int) *resultInfo {
	return &resultInfo{Count: count, Page: p.Number, PerPage: p.Size, TotalCount: total, TotalPages: (total + p.Size - 1) / p.Size}
}
