package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type user struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Email       string     `json:"email,omitempty" doc:"An address that rules on addresses go by"`
	Roles       []string   `json:"roles"`
	Granted     []string   `json:"granted" doc:"The permissions that the user has beside those of the roles"`
	Permissions []string   `json:"permissions" doc:"All that the user may do"`
	HasPassword bool       `json:"has_password"`
	TOTP        bool       `json:"totp" doc:"The user logs in with a second factor"`
	Provider    string     `json:"provider,omitempty" doc:"The identity provider by which the user logs in, and which says what the user may do"`
	CreatedAt   *time.Time `json:"created_at"`
}

type users struct {
	Users []user `json:"users"`
}

type newUser struct {
	Body struct {
		Name        string   `json:"name" minLength:"1" maxLength:"64"`
		Email       string   `json:"email,omitempty" maxLength:"320" doc:"An address that rules on addresses go by; takes who may write policies"`
		Password    string   `json:"password,omitempty" maxLength:"1024" doc:"None for a user who does not log in with one"`
		Roles       []string `json:"roles,omitempty" maxItems:"20"`
		Permissions []string `json:"permissions,omitempty" maxItems:"100" doc:"By name, beside those of the roles"`
	}
}

type byUser struct {
	User string `path:"user" maxLength:"100" doc:"Name or id"`
}

type setUser struct {
	User string `path:"user" maxLength:"100" doc:"Name or id"`
	Body struct {
		Roles       []string `json:"roles" maxItems:"20"`
		Permissions []string `json:"permissions" maxItems:"100"`
	}
}

type setEmail struct {
	User string `path:"user" maxLength:"100" doc:"Name or id"`
	Body struct {
		Email string `json:"email" maxLength:"320" doc:"Empty for none"`
	}
}

type setPassword struct {
	User string `path:"user" maxLength:"100" doc:"Name or id"`
	Body struct {
		Password string `json:"password" maxLength:"1024" doc:"Empty for none"`
	}
}

type offeredTOTP struct {
	Secret string `json:"secret" doc:"In base32: to be shown once, and kept by the authenticator"`
	URL    string `json:"url" doc:"The same as a key URI, for a QR code"`
}

type confirmTOTP struct {
	Body struct {
		Code string `json:"code" minLength:"1" maxLength:"16" doc:"What the authenticator shows now"`
	}
}

type confirmed struct {
	Confirmed bool `json:"confirmed"`
}

type role struct {
	Name        string     `json:"name"`
	Permissions []string   `json:"permissions"`
	BuiltIn     bool       `json:"built_in"`
	Meaning     string     `json:"meaning,omitempty"`
	CreatedAt   *time.Time `json:"created_at,omitempty"`
}

type roles struct {
	Roles []role `json:"roles"`
}

type setRole struct {
	Role string `path:"role" maxLength:"100"`
	Body struct {
		Permissions []string `json:"permissions" minItems:"1" maxItems:"100"`
	}
}

type byRole struct {
	Role string `path:"role" maxLength:"100"`
}

type permission struct {
	Name    string `json:"name"`
	Meaning string `json:"meaning"`
}

type permissions struct {
	Permissions []permission `json:"permissions"`
}

func (d door) userRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/users", "list-users", "List users",
		func(ctx context.Context, who control.Actor, _ *none) (users, error) {
			list, err := d.plane.ListUsers(ctx, who)
			out := users{Users: make([]user, len(list))}
			for i, u := range list {
				out.Users[i] = showUser(u)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/users", "add-user", "Add a user",
		func(ctx context.Context, who control.Actor, in *newUser) (user, error) {
			rights, err := rightsOf(in.Body.Roles, in.Body.Permissions)
			if err != nil {
				return user{}, err
			}
			u, err := d.plane.AddUser(ctx, who, control.NewUser{Name: in.Body.Name, Email: in.Body.Email, Password: in.Body.Password, Rights: rights})
			return showUser(u), err
		})
	operation(d, a, http.MethodGet, "/users/{user}", "show-user", "Show a user",
		func(ctx context.Context, who control.Actor, in *byUser) (user, error) {
			u, err := d.plane.ShowUser(ctx, who, in.User)
			return showUser(u), err
		})
	operation(d, a, http.MethodPut, "/users/{user}/rights", "set-user-rights", "Say anew what a user may do",
		func(ctx context.Context, who control.Actor, in *setUser) (user, error) {
			rights, err := rightsOf(in.Body.Roles, in.Body.Permissions)
			if err != nil {
				return user{}, err
			}
			u, err := d.plane.SetUserRights(ctx, who, in.User, rights)
			return showUser(u), err
		})
	operation(d, a, http.MethodPut, "/users/{user}/email", "set-user-email", "Give a user another address of e-mail, which rules on addresses go by",
		func(ctx context.Context, who control.Actor, in *setEmail) (user, error) {
			u, err := d.plane.SetUserEmail(ctx, who, in.User, in.Body.Email)
			return showUser(u), err
		})
	operation(d, a, http.MethodPut, "/users/{user}/password", "set-user-password", "Give a user another password; it ends the user's web logins and grants",
		func(ctx context.Context, who control.Actor, in *setPassword) (user, error) {
			u, err := d.plane.SetUserPassword(ctx, who, in.User, in.Body.Password)
			return showUser(u), err
		})
	operation(d, a, http.MethodDelete, "/users/{user}", "remove-user", "Remove a user with all tokens, web logins and grants",
		func(ctx context.Context, who control.Actor, in *byUser) (removed, error) {
			return removed{in.User}, d.plane.RemoveUser(ctx, who, in.User)
		})
	operation(d, a, http.MethodPost, "/totp", "offer-totp", "Make a second factor for yourself, which counts once it is confirmed",
		func(ctx context.Context, who control.Actor, _ *none) (offeredTOTP, error) {
			t, err := d.plane.OfferTOTP(ctx, who)
			return offeredTOTP{t.Secret, t.URL}, err
		})
	operation(d, a, http.MethodPost, "/totp/confirm", "confirm-totp", "Have your second factor count",
		func(ctx context.Context, who control.Actor, in *confirmTOTP) (confirmed, error) {
			return confirmed{true}, d.plane.ConfirmTOTP(ctx, who, in.Body.Code)
		})
	operation(d, a, http.MethodDelete, "/users/{user}/totp", "remove-totp", "Take a user's second factor away",
		func(ctx context.Context, who control.Actor, in *byUser) (user, error) {
			u, err := d.plane.RemoveTOTP(ctx, who, in.User)
			return showUser(u), err
		})
	operation(d, a, http.MethodGet, "/roles", "list-roles", "List roles",
		func(ctx context.Context, who control.Actor, _ *none) (roles, error) {
			list, err := d.plane.ListRoles(ctx, who)
			out := roles{Roles: make([]role, len(list))}
			for i, r := range list {
				out.Roles[i] = showRole(r)
			}
			return out, err
		})
	operation(d, a, http.MethodPut, "/roles/{role}", "set-role", "Make a role, or change what those who have it may do",
		func(ctx context.Context, who control.Actor, in *setRole) (role, error) {
			list, err := control.ParsePermissions(in.Body.Permissions)
			if err != nil {
				return role{}, err
			}
			r, err := d.plane.SetRole(ctx, who, in.Role, list)
			return showRole(r), err
		})
	operation(d, a, http.MethodDelete, "/roles/{role}", "remove-role", "Remove a role that nobody has",
		func(ctx context.Context, who control.Actor, in *byRole) (removed, error) {
			return removed{in.Role}, d.plane.RemoveRole(ctx, who, in.Role)
		})
	operation(d, a, http.MethodGet, "/permissions", "list-permissions", "List what can be permitted",
		func(context.Context, control.Actor, *none) (permissions, error) {
			var out permissions
			for _, g := range control.Permissions() {
				out.Permissions = append(out.Permissions, permission{string(g.Permission), g.Meaning})
			}
			return out, nil
		})
}

// rightsOf reads what a user is given. Nothing at all is refused: it is a slip
// more often than a wish.
func rightsOf(roles, permissions []string) (r control.Rights, err error) {
	if len(roles) == 0 && len(permissions) == 0 {
		return r, trust.Errorf(trust.Invalid, "neither a role nor a permission is given").WithField("roles").WithHint("keyturn role list")
	}
	if len(permissions) > 0 {
		if r.Permissions, err = control.ParsePermissions(permissions); err != nil {
			return r, err
		}
	}
	r.Roles = roles
	return r, nil
}

func showUser(u control.User) user {
	return user{
		ID: u.ID, Name: u.Name, Email: u.Email, Roles: append([]string{}, u.Rights.Roles...), Granted: texts(u.Rights.Permissions),
		Permissions: texts(u.Permissions), HasPassword: u.HasPassword, TOTP: u.TOTP, Provider: u.Provider, CreatedAt: at(u.Created),
	}
}

func showRole(r control.Role) role {
	return role{Name: r.Name, Permissions: texts(r.Permissions), BuiltIn: r.BuiltIn, Meaning: r.Meaning, CreatedAt: at(r.Created)}
}
