package cloudflare

import (
	"encoding/json"
	"net/http"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// A policyTest is what policies would do with all users. Users are tried when somebody
// asks, so that a test is complete as soon as it has begun.
type policyTest struct {
	ID               string `json:"id"`
	Status           string `json:"status"`
	TotalUsers       int    `json:"total_users"`
	UsersApproved    int    `json:"users_approved"`
	UsersBlocked     int    `json:"users_blocked"`
	UsersErrored     int    `json:"users_errored"`
	PercentProcessed int    `json:"percent_users_processed"`
	PercentApproved  int    `json:"percent_approved"`
	PercentBlocked   int    `json:"percent_blocked"`
	PercentErrored   int    `json:"percent_errored"`
}

// The states of a test, and what becomes of one user, in Cloudflare's words.
const (
	testStarted  = "success"
	testComplete = "complete"
	testExceeded = "exceeded time"
	userApproved = "approved"
	userBlocked  = "blocked"
)

func resultOf(approved bool) string {
	if approved {
		return userApproved
	}
	return userBlocked
}

func (d door) startPolicyTest(r *http.Request, a control.Actor) (answer, error) {
	var body struct {
		Policies []json.RawMessage `json:"policies"`
	}
	if err := api.ReadJSON(r, &body, false); err != nil {
		return answer{}, err
	}
	list := make([]control.Policy, len(body.Policies))
	for i, one := range body.Policies {
		var err error
		if list[i], err = readTested(one); err != nil {
			return answer{}, err
		}
	}
	id, err := d.plane.StartPolicyTest(r.Context(), a, list, again(r))
	return answer{result: map[string]string{"id": id, "status": testStarted}}, err
}

// readTested reads a policy, or the id of one.
func readTested(data json.RawMessage) (p control.Policy, err error) {
	if json.Unmarshal(data, &p.ID) == nil {
		if !uuidForm.MatchString(p.ID) {
			err = trust.Errorf(trust.NotFound, "there is no policy %.80q", p.ID).WithField("policies")
		}
		return p, err
	}
	var f fields
	if err := api.ReadField("policies", data, &f); err != nil {
		return p, err
	}
	f.drop("id", "uid", "created_at", "updated_at")
	if p, err = f.policy(); err == nil && p.Name == "" {
		err = trust.Errorf(trust.Invalid, "a policy has no name")
	}
	return p, within(err, "policies")
}

func (d door) showPolicyTest(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "test")
	if err != nil {
		return answer{}, err
	}
	t, err := d.plane.ShowPolicyTest(r.Context(), a, id)
	if err != nil {
		return answer{}, err
	}
	shown := policyTest{
		ID: t.ID, Status: testComplete, TotalUsers: t.Users, UsersApproved: t.Approved, UsersBlocked: t.Users - t.Approved, PercentProcessed: 100,
	}
	if t.Users > 0 {
		shown.PercentApproved = t.Approved * 100 / t.Users
		shown.PercentBlocked = 100 - shown.PercentApproved
	}
	if t.More {
		shown.Status = testExceeded
	}
	return answer{result: shown}, nil
}

// A testedUser is a user of a test.
type testedUser struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Email  string `json:"email"`
	Status string `json:"status"`
}

func (d door) listPolicyTestUsers(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "test")
	if err != nil {
		return answer{}, err
	}
	q := queryOf(r)
	page := q.page()
	approved, none := q.approved()
	if q.err != nil {
		return answer{}, q.err
	}
	list, total, err := d.plane.ListPolicyTestUsers(r.Context(), a, id, control.TriedFilter{Approved: approved}, page)
	if err != nil {
		return answer{}, err
	}
	if none {
		list, total = nil, 0
	}
	shown := make([]testedUser, len(list)) // never null
	for i, u := range list {
		shown[i] = testedUser{ID: userUUID(u.ID), Name: u.Name, Email: u.Email, Status: resultOf(u.Approved)}
	}
	return answer{result: shown, info: infoOf(page, len(shown), total)}, nil
}

// approved reads which users of a test are meant: all, those whom it lets in, or those
// whom it does not. Of an error there is none.
func (q *query) approved() (wanted *bool, none bool) {
	yes, no := true, false
	switch status := q.Get("status"); status {
	case "":
	case "success":
		return &yes, false
	case "fail":
		return &no, false
	case "error":
		return nil, true
	default:
		q.refuse("status", status, "success, fail or error")
	}
	return nil, false
}

// userUUID returns the id of a user in the form that Cloudflare's have.
func userUUID(id string) string {
	if len(id) != 32 {
		return id
	}
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// A policyCheck is what an application does with a user.
type policyCheck struct {
	App  checkedApp  `json:"app_state"`
	User checkedUser `json:"user_identity"`
}

type checkedApp struct {
	ID       string          `json:"app_uid"`
	Aud      string          `json:"aud"`
	Hostname string          `json:"hostname"`
	Name     string          `json:"name"`
	Policies []checkedPolicy `json:"policies"`
	Status   string          `json:"status"`
}

type checkedPolicy struct {
	ID         string               `json:"id"`
	Name       string               `json:"name"`
	Decision   control.PolicyAction `json:"decision"`
	Precedence int                  `json:"precedence"`
	Status     string               `json:"status"`
}

type checkedUser struct {
	ID      string `json:"id"`
	UUID    string `json:"user_uuid"`
	Account string `json:"account_id"`
	Name    string `json:"name"`
	Email   string `json:"email"`
}

// checkUser says what an application does with who asks, or whom email names.
func (d door) checkUser(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "application")
	if err != nil {
		return answer{}, unknownApplication(err)
	}
	c, err := d.plane.CheckUser(r.Context(), a, id, r.URL.Query().Get("email"))
	if err != nil {
		return answer{}, unknownApplication(err)
	}
	app := c.Application
	shown := policyCheck{
		App: checkedApp{ID: app.ID, Aud: app.Aud, Hostname: app.Domain, Name: app.Name, Policies: []checkedPolicy{}, Status: resultOf(c.Allowed)},
		User: checkedUser{
			ID: c.User.ID, UUID: userUUID(c.User.ID), Account: string(a.Tenant), Name: c.User.Name, Email: c.User.Email,
		},
	}
	for _, p := range c.Policies {
		shown.App.Policies = append(shown.App.Policies, checkedPolicy{p.ID, p.Name, p.Action, p.Precedence, resultOf(p.Approved)})
	}
	return answer{result: shown}, nil
}
