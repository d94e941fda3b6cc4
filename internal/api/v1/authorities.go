package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

type certificateAuthority struct {
	ID           string                      `json:"id"`
	Name         string                      `json:"name"`
	Purpose      string                      `json:"purpose" enum:"user,host,gateway"`
	Application  string                      `json:"application,omitempty" doc:"The id of the one whose hosts trust it; absent for one of the whole account"`
	State        string                      `json:"state" enum:"next,signing,outgoing,ended,removed" doc:"next: hosts should trust it, since it is about to sign; outgoing: they should still; ended: nothing that it signed is valid any more"`
	Type         string                      `json:"type" doc:"Of its key, such as ecdsa-sha2-nistp256"`
	Fingerprint  string                      `json:"fingerprint"`
	PublicKey    string                      `json:"public_key" doc:"The line of a file that TrustedUserCAKeys names"`
	Profile      certificateAuthorityProfile `json:"profile"`
	CreatedAt    *time.Time                  `json:"created_at"`
	SignsFrom    *time.Time                  `json:"signs_from"`
	SignsUntil   *time.Time                  `json:"signs_until,omitempty"`
	TrustedUntil *time.Time                  `json:"trusted_until,omitempty"`
}

type certificateAuthorityProfile struct {
	Valid           string   `json:"valid"`
	MaxValid        string   `json:"max_valid"`
	KeyTypes        []string `json:"key_types"`
	MinRSA          int      `json:"min_rsa"`
	Extensions      []string `json:"extensions"`
	CriticalOptions []string `json:"critical_options"`
	MaxPrincipals   int      `json:"max_principals"`
}

type certificateAuthorities struct {
	Authorities []certificateAuthority `json:"authorities"`
	Next        string                 `json:"next,omitempty" doc:"after of the next page; absent on the last one"`
}

type listAuthorities struct {
	Paging
	Purpose     string `query:"purpose" enum:"user,host,gateway" doc:"Only those that are for this"`
	Application string `query:"application" maxLength:"255" doc:"Only those of the one of this name or id"`
}

type newAuthority struct {
	Body struct {
		Name        string `json:"name" minLength:"1" maxLength:"64"`
		Purpose     string `json:"purpose,omitempty" enum:"user,host,gateway" default:"user" doc:"What its certificates are for"`
		Type        string `json:"type,omitempty" enum:"ecdsa-p256,ed25519,rsa-4096" default:"ecdsa-p256" doc:"Of its key"`
		Application string `json:"application,omitempty" maxLength:"255" doc:"Name or id of the one whose hosts are to trust it; absent for one of the whole account"`
	}
}

type byAuthority struct {
	Authority string `path:"authority" maxLength:"100" doc:"Name or id"`
}

type rotateAuthority struct {
	Authority string `path:"authority" maxLength:"100" doc:"Name or id"`
	Body      struct {
		Type    string `json:"type,omitempty" enum:"ecdsa-p256,ed25519,rsa-4096" doc:"Of the new key; that of the present one if absent"`
		Overlap string `json:"overlap,omitempty" maxLength:"20" doc:"How long hosts have to trust the new key before it signs, such as 24h; the setting ca.overlap if absent"`
	}
}

type setAuthorityProfile struct {
	Authority string `path:"authority" maxLength:"100" doc:"Name or id"`
	Body      struct {
		Valid           *string   `json:"valid,omitempty" maxLength:"20" doc:"How long a certificate is valid where nobody says, such as 5m"`
		MaxValid        *string   `json:"max_valid,omitempty" maxLength:"20" doc:"How long at most, such as 24h"`
		KeyTypes        *[]string `json:"key_types,omitempty" maxItems:"32" doc:"The types of keys that are certified"`
		MinRSA          *int      `json:"min_rsa,omitempty" minimum:"1024" maximum:"16384" doc:"The fewest bits of an RSA key"`
		Extensions      *[]string `json:"extensions,omitempty" maxItems:"32" doc:"Those that a certificate may have, and has where nobody says"`
		CriticalOptions *[]string `json:"critical_options,omitempty" maxItems:"32" doc:"Those that may be asked for"`
		MaxPrincipals   *int      `json:"max_principals,omitempty" minimum:"1" maximum:"256" doc:"How many a certificate has at most"`
	}
}

// read reads what is to change.
func (in *setAuthorityProfile) read() (c control.ProfileChange, err error) {
	b := in.Body
	c = control.ProfileChange{KeyTypes: b.KeyTypes, MinRSA: b.MinRSA, Extensions: b.Extensions, CriticalOptions: b.CriticalOptions, MaxPrincipals: b.MaxPrincipals}
	for _, d := range []struct {
		name string
		text *string
		to   **time.Duration
	}{{"valid", b.Valid, &c.Valid}, {"max_valid", b.MaxValid, &c.MaxValid}} {
		if d.text == nil {
			continue
		}
		v, err := duration(d.name, *d.text)
		if err != nil {
			return c, err
		}
		*d.to = &v
	}
	return c, nil
}

type removeAuthority struct {
	Authority string `path:"authority" maxLength:"100" doc:"Id, or the name under which it signs"`
	Reason    string `query:"reason" maxLength:"200" doc:"Why, for those who look later"`
}

type removedAuthority struct {
	Removed     string                 `json:"removed"`
	ID          string                 `json:"id"`
	Name        string                 `json:"name"`
	Fingerprint string                 `json:"fingerprint"`
	Authorities []certificateAuthority `json:"authorities" doc:"Those of its name that are left, oldest first"`
}

func (d door) authorityRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/authorities", "list-authorities", "List certificate authorities",
		func(ctx context.Context, who control.Actor, in *listAuthorities) (certificateAuthorities, error) {
			list, next, err := d.plane.ListAuthorities(ctx, who, control.AuthorityFilter{Purpose: control.AuthorityPurpose(in.Purpose), Application: in.Application}, in.page())
			return certificateAuthorities{Authorities: showAuthorities(list), Next: next}, err
		})
	operation(d, a, http.MethodPost, "/authorities", "create-authority", "Make a certificate authority",
		func(ctx context.Context, who control.Actor, in *newAuthority) (certificateAuthority, error) {
			made, err := d.plane.CreateAuthority(ctx, who, control.NewAuthority{
				Name: in.Body.Name, Purpose: control.AuthorityPurpose(in.Body.Purpose), Type: in.Body.Type, Application: in.Body.Application,
			})
			return showAuthority(made), err
		})
	operation(d, a, http.MethodGet, "/authorities/{authority}", "show-authority", "Show the certificate authorities of a name, oldest first",
		func(ctx context.Context, who control.Actor, in *byAuthority) (certificateAuthorities, error) {
			list, err := d.plane.ShowAuthority(ctx, who, in.Authority)
			return certificateAuthorities{Authorities: showAuthorities(list)}, err
		})
	operation(d, a, http.MethodPost, "/authorities/{authority}/rotate", "rotate-authority", "Have another key take the place of the one that signs",
		func(ctx context.Context, who control.Actor, in *rotateAuthority) (certificateAuthorities, error) {
			overlap := time.Duration(-1)
			if in.Body.Overlap != "" {
				var err error
				if overlap, err = duration("overlap", in.Body.Overlap); err != nil {
					return certificateAuthorities{}, err
				}
			}
			list, err := d.plane.RotateAuthority(ctx, who, in.Authority, in.Body.Type, overlap)
			return certificateAuthorities{Authorities: showAuthorities(list)}, err
		})
	operation(d, a, http.MethodPatch, "/authorities/{authority}/profile", "set-authority-profile", "Say what a certificate authority signs from now on",
		func(ctx context.Context, who control.Actor, in *setAuthorityProfile) (certificateAuthorities, error) {
			change, err := in.read()
			if err != nil {
				return certificateAuthorities{}, err
			}
			list, err := d.plane.SetAuthorityProfile(ctx, who, in.Authority, change)
			return certificateAuthorities{Authorities: showAuthorities(list)}, err
		})
	operation(d, a, http.MethodDelete, "/authorities/{authority}", "remove-authority", "Revoke a certificate authority with all that it signed, and destroy its private key",
		func(ctx context.Context, who control.Actor, in *removeAuthority) (removedAuthority, error) {
			gone, left, err := d.plane.RemoveAuthority(ctx, who, in.Authority, in.Reason)
			return removedAuthority{
				Removed: in.Authority, ID: gone.ID, Name: gone.Name, Fingerprint: string(gone.Public.Fingerprint()), Authorities: showAuthorities(left),
			}, err
		})
}

func showAuthorities(list []control.Authority) []certificateAuthority {
	out := make([]certificateAuthority, len(list))
	for i, a := range list {
		out[i] = showAuthority(a)
	}
	return out
}

func showAuthority(a control.Authority) certificateAuthority {
	return certificateAuthority{
		ID: a.ID, Name: a.Name, Purpose: string(a.Purpose), Application: a.Application, State: string(a.State), Type: a.Public.Type(),
		Fingerprint: string(a.Public.Fingerprint()), PublicKey: a.Line(), CreatedAt: at(a.Created), SignsFrom: at(a.SignsFrom),
		SignsUntil: at(a.SignsUntil), TrustedUntil: at(a.TrustedUntil),
		Profile: certificateAuthorityProfile{
			Valid: a.Profile.Valid.String(), MaxValid: a.Profile.MaxValid.String(), KeyTypes: texts(a.Profile.KeyTypes), MinRSA: a.Profile.MinRSA,
			Extensions: texts(a.Profile.Extensions), CriticalOptions: texts(a.Profile.CriticalOptions), MaxPrincipals: a.Profile.MaxPrincipals,
		},
	}
}
