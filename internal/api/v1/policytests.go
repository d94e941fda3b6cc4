package v1

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

type newPolicyTest struct {
	Body struct {
		Policies []PolicyBody `json:"policies" minItems:"1" maxItems:"100" doc:"In the order in which they are asked. One that says an id and no name is the policy of that id"`
	}
}

type policyTestID struct {
	ID string `json:"id" doc:"Kept for a day"`
}

type byPolicyTest struct {
	Test string `path:"test" maxLength:"36"`
}

type policyTest struct {
	ID       string `json:"id"`
	Users    int    `json:"users" doc:"How many there are now"`
	Approved int    `json:"approved" doc:"How many of them the policies would let in"`
	More     bool   `json:"more" doc:"Whether there are more users than are tried"`
}

type listTriedUsers struct {
	Paging
	Test     string `path:"test" maxLength:"36"`
	Approved string `query:"approved" enum:"true,false" doc:"Only those whom the policies would let in, or would not"`
}

type triedUser struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Email    string `json:"email,omitempty"`
	Approved bool   `json:"approved" doc:"Whether the policies would let the user in"`
}

type triedUsers struct {
	Users []triedUser `json:"users"`
	Next  string      `json:"next,omitempty" doc:"What after is for the next page"`
}

func (d door) policyTestRoutes(a huma.API) {
	operation(d, a, http.MethodPost, "/policy-tests", "try-policies", "Try policies on all users: nothing is written but the test",
		func(ctx context.Context, who control.Actor, in *newPolicyTest) (policyTestID, error) {
			list := make([]control.Policy, len(in.Body.Policies))
			for i, p := range in.Body.Policies {
				var err error
				if list[i], err = p.read(); err != nil {
					return policyTestID{}, err
				}
			}
			id, err := d.plane.StartPolicyTest(ctx, who, list, false)
			return policyTestID{id}, err
		})
	operation(d, a, http.MethodGet, "/policy-tests/{test}", "show-policy-test", "Count the users whom the policies of a test would let in",
		func(ctx context.Context, who control.Actor, in *byPolicyTest) (policyTest, error) {
			t, err := d.plane.ShowPolicyTest(ctx, who, in.Test)
			return policyTest{t.ID, t.Users, t.Approved, t.More}, err
		})
	operation(d, a, http.MethodGet, "/policy-tests/{test}/users", "list-policy-test-users", "List the users on whom the policies of a test are tried",
		func(ctx context.Context, who control.Actor, in *listTriedUsers) (triedUsers, error) {
			f := control.TriedFilter{After: in.After}
			if in.Approved != "" {
				approved := in.Approved == "true"
				f.Approved = &approved
			}
			list, _, err := d.plane.ListPolicyTestUsers(ctx, who, in.Test, f, control.CountedPage{Number: 1, Size: in.Limit})
			out := triedUsers{Users: make([]triedUser, len(list))}
			for i, u := range list {
				out.Users[i] = triedUser(u)
				out.Next = nextID(u.ID, len(list), in.Limit)
			}
			return out, err
		})
}
