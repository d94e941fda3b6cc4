package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

// who is an actor as that actor sees it.
type who struct {
	Kind        string     `json:"kind" enum:"user,token"`
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Roles       []string   `json:"roles"`
	Permissions []string   `json:"permissions" doc:"All that may be done with this credential"`
	Until       *time.Time `json:"until,omitempty" doc:"When the credential ends however much it is used"`
}

type whoAmI struct {
	who
	Account account `json:"account"`
}

// loggedIn is what a login is answered with.
type loggedIn struct {
	who
	Token string `json:"token" doc:"To be sent as a bearer: the only time that it is to be had"`
	Idle  string `json:"idle,omitempty" doc:"How long it holds without being used"`
}

type passwordLogin struct {
	Body struct {
		User     string `json:"user" minLength:"1" maxLength:"129" doc:"Name, or ACCOUNT/NAME"`
		Password string `json:"password" maxLength:"1024"`
		Code     string `json:"code,omitempty" maxLength:"16" doc:"Of the user's second factor, if there is one"`
	}
}

type loggedOut struct {
	LoggedOut bool `json:"logged_out"`
}

func (d door) loginRoutes(a huma.API) {
	open(d, a, http.MethodPost, "/login/password", "login-with-password", "Exchange a password for a login token",
		func(ctx context.Context, nobody control.Actor, in *passwordLogin) (loggedIn, error) {
			l, err := d.plane.PasswordLogin(ctx, in.Body.User, in.Body.Password, in.Body.Code, nobody.Source)
			return showLogin(l), err
		})
	operation(d, a, http.MethodPost, "/logout", "logout", "End the login by whose token this is asked",
		func(ctx context.Context, who control.Actor, _ *none) (loggedOut, error) {
			err := d.plane.Logout(ctx, who)
			return loggedOut{LoggedOut: err == nil}, err
		})
	operation(d, a, http.MethodGet, "/whoami", "who-am-i", "Show who asks",
		func(ctx context.Context, who control.Actor, _ *none) (whoAmI, error) {
			t, err := d.plane.WhoAmI(ctx, who)
			return whoAmI{who: showActor(who), Account: account{ID: string(t.ID), Name: t.Name}}, err
		})
}

func showLogin(l control.LoginToken) loggedIn {
	return loggedIn{who: showActor(l.Actor), Token: l.Text, Idle: l.Idle.String()}
}

func showActor(a control.Actor) who {
	return who{Kind: a.Kind, ID: a.ID, Name: a.Name, Roles: texts(a.Roles), Permissions: texts(a.Permissions), Until: at(a.Until)}
}
