package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

// Who is an actor as that actor sees it.
type Who struct {
	Kind        string     `json:"kind" enum:"user,token,machine"`
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Roles       []string   `json:"roles"`
	Permissions []string   `json:"permissions" doc:"All that may be done with this credential"`
	Until       *time.Time `json:"until,omitempty" doc:"When the credential ends however much it is used"`
}

type whoAmI struct {
	Who
	Account account `json:"account"`
}

// loggedIn is what a login is answered with.
type loggedIn struct {
	Who
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

type loginProviders struct {
	Providers []string `json:"providers"`
}

type byAccount struct {
	Account string `query:"account" maxLength:"64" doc:"Name or id" default:"default"`
}

type beginLogin struct {
	Body struct {
		Provider  string `json:"provider" minLength:"1" maxLength:"129" doc:"Name, or ACCOUNT/NAME"`
		Listener  string `json:"listener" maxLength:"100" doc:"Where a listener on the person's own machine is: http://127.0.0.1:PORT or http://[::1]:PORT"`
		Challenge string `json:"challenge" maxLength:"43" doc:"The SHA-256 in base64url of a secret of 43 characters or more, as in RFC 7636"`
	}
}

type begun struct {
	URL         string `json:"url" doc:"Where the person logs in"`
	State       string `json:"state" doc:"With which the login comes back"`
	RedirectURI string `json:"redirect_uri" doc:"Where it comes back to; what comes to another path is of another provider, and to be refused"`
}

type finishLogin struct {
	Body struct {
		State    string `json:"state" maxLength:"128"`
		Code     string `json:"code" minLength:"1" maxLength:"4096"`
		Issuer   string `json:"iss,omitempty" maxLength:"2048" doc:"The parameter of this name that came with the code, as in RFC 9207"`
		Verifier string `json:"verifier" minLength:"43" maxLength:"128" doc:"The secret that the challenge is of"`
	}
}

type byProviderName struct {
	Body struct {
		Provider string `json:"provider" minLength:"1" maxLength:"129" doc:"Name, or ACCOUNT/NAME"`
	}
}

type deviceLogin struct {
	DeviceCode      string `json:"device_code" doc:"The secret that the login is asked after by"`
	UserCode        string `json:"user_code" doc:"What the person enters"`
	VerificationURL string `json:"verification_url" doc:"Where the person enters it"`
	CompleteURL     string `json:"complete_url,omitempty" doc:"The same with the code in it"`
	Interval        int    `json:"interval" doc:"Seconds between two questions, to begin with"`
	Lasts           int    `json:"lasts" doc:"Seconds until the login ends by itself"`
}

type pollLogin struct {
	Body struct {
		DeviceCode string `json:"device_code" minLength:"1" maxLength:"4096"`
	}
}

type polled struct {
	Progress string    `json:"progress,omitempty" enum:"pending,slow_down" doc:"Absent once the person has logged in; after slow_down five seconds are added to the interval"`
	Login    *loggedIn `json:"login,omitempty"`
}

type tokenLogin struct {
	Body struct {
		Provider string `json:"provider" minLength:"1" maxLength:"129" doc:"Name, or ACCOUNT/NAME"`
		Token    string `json:"token" minLength:"1" maxLength:"32768" doc:"A JWT that the provider has issued for one of its audiences"`
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
	open(d, a, http.MethodGet, "/login/providers", "list-login-providers", "List the identity providers by which people can log in",
		func(ctx context.Context, _ control.Actor, in *byAccount) (loginProviders, error) {
			names, err := d.plane.LoginProviders(ctx, in.Account)
			return loginProviders{texts(names)}, err
		})
	open(d, a, http.MethodPost, "/login/oidc/begin", "begin-login", "Begin a login by an identity provider",
		func(ctx context.Context, nobody control.Actor, in *beginLogin) (begun, error) {
			l, err := d.plane.BeginLogin(ctx, in.Body.Provider, in.Body.Listener, in.Body.Challenge, nobody.Source)
			return begun(l), err
		})
	open(d, a, http.MethodPost, "/login/oidc/finish", "finish-login", "Exchange the code of an identity provider for a login token",
		func(ctx context.Context, nobody control.Actor, in *finishLogin) (loggedIn, error) {
			l, err := d.plane.FinishLogin(ctx, in.Body.State, control.LoginAnswer{Code: in.Body.Code, Issuer: in.Body.Issuer}, in.Body.Verifier, nobody.Source)
			return showLogin(l), err
		})
	open(d, a, http.MethodPost, "/login/oidc/device", "begin-device-login", "Begin a login by an identity provider at another device",
		func(ctx context.Context, nobody control.Actor, in *byProviderName) (deviceLogin, error) {
			l, err := d.plane.StartDeviceLogin(ctx, in.Body.Provider, nobody.Source)
			return deviceLogin{
				DeviceCode: l.Code, UserCode: l.UserCode, VerificationURL: l.VerificationURL, CompleteURL: l.CompleteURL,
				Interval: int(l.Interval.Seconds()), Lasts: int(l.Lasts.Seconds()),
			}, err
		})
	open(d, a, http.MethodPost, "/login/oidc/device/poll", "poll-device-login", "Ask after a login at another device",
		func(ctx context.Context, nobody control.Actor, in *pollLogin) (polled, error) {
			l, progress, err := d.plane.PollDeviceLogin(ctx, in.Body.DeviceCode, nobody.Source)
			if err != nil || progress != control.DeviceDone {
				return polled{Progress: string(progress)}, err
			}
			login := showLogin(l)
			return polled{Login: &login}, nil
		})
	open(d, a, http.MethodPost, "/login/oidc/token", "login-with-token", "Exchange a machine's token of an identity provider for a login token",
		func(ctx context.Context, nobody control.Actor, in *tokenLogin) (loggedIn, error) {
			l, err := d.plane.TokenLogin(ctx, in.Body.Provider, in.Body.Token, nobody.Source)
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
			return whoAmI{Who: showActor(who), Account: account{ID: string(t.ID), Name: t.Name}}, err
		})
}

func showLogin(l control.LoginToken) loggedIn {
	out := loggedIn{Who: showActor(l.Actor), Token: l.Text}
	if l.Idle > 0 {
		out.Idle = l.Idle.String()
	}
	return out
}

func showActor(a control.Actor) Who {
	return Who{Kind: a.Kind, ID: a.ID, Name: a.Name, Roles: texts(a.Roles), Permissions: texts(a.Permissions), Until: at(a.Until)}
}
