package v1

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

type accessEntry struct {
	Event       string    `json:"event" doc:"The id of the event that says so"`
	At          time.Time `json:"at"`
	Action      string    `json:"action" enum:"login,certificate" doc:"What was asked for: to log in to Keyturn, or a certificate"`
	Allowed     bool      `json:"allowed"`
	User        string    `json:"user,omitempty" doc:"The id of who asked; absent for machines, and where nobody knows"`
	UserName    string    `json:"user_name,omitempty" doc:"What the user is called now"`
	Email       string    `json:"email,omitempty" doc:"The address that the user has now"`
	Source      string    `json:"source,omitempty" doc:"The address that the request came from, unless the user was erased"`
	Provider    string    `json:"provider,omitempty" doc:"The identity provider of a login; absent for a password"`
	Application string    `json:"application,omitempty" doc:"The id of the one that decided on a certificate"`
	Called      string    `json:"application_name,omitempty" doc:"What the application is called now"`
}

type accessLog struct {
	Entries []accessEntry `json:"entries" doc:"The newest first, unless the oldest are asked for"`
	Next    string        `json:"next,omitempty" doc:"What after is for the next page, which may be empty; absent on the last"`
}

type searchAccessLog struct {
	Paging
	Since       time.Time `query:"since" doc:"This time and later"`
	Until       time.Time `query:"until" doc:"This time and earlier"`
	OldestFirst bool      `query:"oldest_first"`
	Action      string    `query:"action" enum:"login,certificate"`
	Allowed     string    `query:"allowed" enum:"true,false"`
	User        string    `query:"user" maxLength:"100" doc:"Name or id"`
	Email       string    `query:"email" maxLength:"320" doc:"A part of the address, without regard to case"`
	Application string    `query:"application" maxLength:"255" doc:"Name or id"`
}

func (d door) accessLogRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/access-log", "search-access-log", "List who asked for access, and whether it was given",
		func(ctx context.Context, who control.Actor, in *searchAccessLog) (accessLog, error) {
			log, err := d.plane.SearchAccessLog(ctx, who, in.filter(), control.CountedPage{Number: 1, Size: in.Limit})
			out := accessLog{Entries: make([]accessEntry, len(log.Entries)), Next: log.Last}
			for i, e := range log.Entries {
				out.Entries[i] = accessEntry{
					Event: e.ID, At: e.At.UTC(), Action: e.Action, Allowed: e.Allowed, User: e.User, UserName: e.UserName, Email: e.Email,
					Source: e.Source, Provider: e.Provider, Application: e.Application, Called: e.ApplicationName,
				}
			}
			return out, err
		})
}

func (in *searchAccessLog) filter() control.AccessFilter {
	f := control.AccessFilter{Since: in.Since, Until: in.Until, OldestFirst: in.OldestFirst, After: in.After}
	is := func(wanted string, values ...string) bool { return wanted == "" || slices.Contains(values, wanted) }
	email := strings.ToLower(in.Email)
	f.Wanted = func(e control.AccessEntry) bool {
		allowed := map[bool]string{true: "true", false: "false"}[e.Allowed]
		return is(in.Action, e.Action) && is(in.Allowed, allowed) && is(in.User, e.User, e.UserName) &&
			is(in.Application, e.Application, e.ApplicationName) && strings.Contains(strings.ToLower(e.Email), email)
	}
	return f
}
