package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type account struct {
	ID   string `json:"id" doc:"32 hex digits" example:"0123456789abcdef0123456789abcdef"`
	Name string `json:"name"`
}

type accounts struct {
	Accounts []account `json:"accounts"`
}

type newAccount struct {
	Body struct {
		Name     string `json:"name" minLength:"1" maxLength:"64"`
		Password string `json:"password,omitempty" maxLength:"1024" doc:"Of the account's user \"admin\"; one is made and answered if absent"`
	}
}

type addedAccount struct {
	account
	Admin    string `json:"admin" doc:"By what name the account's first user logs in"`
	Password string `json:"password,omitempty" doc:"The password that was made for that user: only in this answer"`
}

type token struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Owner       string     `json:"owner" doc:"The user on whose behalf it acts"`
	Permissions []string   `json:"permissions"`
	Personal    bool       `json:"personal" doc:"Where policies decide who logs in, it asks as its owner, and not in its own name as a machine"`
	CreatedAt   *time.Time `json:"created_at"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`
	LastUsedAt  *time.Time `json:"last_used_at,omitempty"`
	Token       string     `json:"token,omitempty" doc:"The token itself: only in the answer that makes it"`
}

type tokens struct {
	Tokens []token `json:"tokens"`
}

type newToken struct {
	Body struct {
		Name        string   `json:"name" minLength:"1" maxLength:"128"`
		Permissions []string `json:"permissions" minItems:"1" maxItems:"100" doc:"By name, such as \"Keys Read\"; \"All\" is everything that you may do"`
		Personal    bool     `json:"personal,omitempty" doc:"Ask as its owner where policies decide who logs in; for users in person, and tokens that do so"`
		Expires     string   `json:"expires,omitempty" doc:"How long it lives, such as 24h; for ever if absent" maxLength:"32"`
	}
}

type byID struct {
	ID string `path:"id" maxLength:"100"`
}

type revoked struct {
	Revoked int `json:"revoked" doc:"How many tokens ended: this one, and those that it made"`
}

type rotateToken struct {
	ID   string `path:"id" maxLength:"100"`
	Body struct {
		Overlap string `json:"overlap,omitempty" maxLength:"32" doc:"How long the old text holds beside the new one, such as 1h; not at all if absent"`

		Compromised bool `json:"compromised,omitempty" doc:"Whether somebody else may have the old text: the tokens that were made with it are revoked, and the certificates that were asked for with it or them"`
	}
}

type setting struct {
	Name      string     `json:"name"`
	Value     string     `json:"value"`
	Default   string     `json:"default"`
	Meaning   string     `json:"meaning"`
	ChangedAt *time.Time `json:"changed_at,omitempty"`
}

type settings struct {
	Settings []setting `json:"settings"`
}

type setSetting struct {
	Name string `path:"name" maxLength:"100"`
	Body struct {
		Value string `json:"value" maxLength:"1000"`
	}
}

func (d door) accountRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/account", "show-account", "Show the account",
		func(ctx context.Context, who control.Actor, _ *none) (account, error) {
			t, err := d.plane.ShowAccount(ctx, who)
			return account{ID: string(t.ID), Name: t.Name}, err
		})
	operation(d, a, http.MethodGet, "/accounts", "list-accounts", "List the accounts of the server",
		func(ctx context.Context, who control.Actor, _ *none) (accounts, error) {
			list, err := d.plane.ListAccounts(ctx, who)
			out := accounts{Accounts: make([]account, len(list))}
			for i, t := range list {
				out.Accounts[i] = account{ID: string(t.ID), Name: t.Name}
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/accounts", "add-account", "Add an account to the server",
		func(ctx context.Context, who control.Actor, in *newAccount) (addedAccount, error) {
			t, made, err := d.plane.AddAccount(ctx, who, in.Body.Name, in.Body.Password)
			return addedAccount{account{ID: string(t.ID), Name: t.Name}, t.Name + "/" + control.AdminUser, made}, err
		})
	operation(d, a, http.MethodGet, "/tokens", "list-tokens", "List API tokens",
		func(ctx context.Context, who control.Actor, _ *none) (tokens, error) {
			list, err := d.plane.ListTokens(ctx, who)
			out := tokens{Tokens: make([]token, len(list))}
			for i, t := range list {
				out.Tokens[i] = showToken(t)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/tokens", "create-token", "Make an API token",
		func(ctx context.Context, who control.Actor, in *newToken) (token, error) {
			permissions, err := control.ParsePermissions(in.Body.Permissions)
			if err != nil {
				return token{}, err
			}
			n := control.NewToken{Name: in.Body.Name, Permissions: permissions, Personal: in.Body.Personal}
			if in.Body.Expires != "" {
				if n.Valid, err = time.ParseDuration(in.Body.Expires); err != nil || n.Valid <= 0 {
					return token{}, trust.Errorf(trust.Invalid, "%q is not a duration such as 24h", in.Body.Expires).WithField("expires")
				}
			}
			t, secret, err := d.plane.CreateToken(ctx, who, n)
			out := showToken(t)
			out.Token = secret
			return out, err
		})
	operation(d, a, http.MethodPost, "/tokens/{id}/rotate", "rotate-token", "Give one of your API tokens another text",
		func(ctx context.Context, who control.Actor, in *rotateToken) (token, error) {
			var overlap time.Duration
			if in.Body.Overlap != "" {
				var err error
				if overlap, err = time.ParseDuration(in.Body.Overlap); err != nil {
					return token{}, trust.Errorf(trust.Invalid, "%q is not a duration such as 1h", in.Body.Overlap).WithField("overlap")
				}
			}
			t, secret, err := d.plane.RotateToken(ctx, who, in.ID, control.TokenRotation{Overlap: overlap, Compromised: in.Body.Compromised})
			out := showToken(t)
			out.Token = secret
			return out, err
		})
	operation(d, a, http.MethodDelete, "/tokens/{id}", "revoke-token", "Revoke an API token",
		func(ctx context.Context, who control.Actor, in *byID) (revoked, error) {
			n, err := d.plane.RevokeToken(ctx, who, in.ID)
			return revoked{n}, err
		})
	operation(d, a, http.MethodGet, "/settings", "list-settings", "List settings",
		func(ctx context.Context, who control.Actor, _ *none) (settings, error) {
			list, err := d.plane.ListSettings(ctx, who)
			out := settings{Settings: make([]setting, len(list))}
			for i, s := range list {
				out.Settings[i] = showSetting(s)
			}
			return out, err
		})
	operation(d, a, http.MethodPut, "/settings/{name}", "set-setting", "Change a setting",
		func(ctx context.Context, who control.Actor, in *setSetting) (setting, error) {
			s, err := d.plane.SetSetting(ctx, who, in.Name, in.Body.Value)
			return showSetting(s), err
		})
}

func showToken(t control.Token) token {
	return token{
		ID: t.ID, Name: t.Name, Owner: t.OwnerName, Permissions: texts(t.Permissions), Personal: t.Personal,
		CreatedAt: at(t.Created), ExpiresAt: at(t.Expires), LastUsedAt: at(t.Used),
	}
}

func showSetting(s control.Setting) setting {
	return setting{Name: s.Name, Value: s.Value, Default: s.Default, Meaning: s.Meaning, ChangedAt: at(s.ChangedAt)}
}
