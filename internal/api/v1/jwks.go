package v1

import (
	"context"
	"encoding/pem"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

type jwks struct {
	Days int   `json:"rotate_after_days" doc:"After how many days another key takes the place of the one that signs"`
	Left int   `json:"days_left" doc:"In how many days that is, the one that has begun among them; 0 where it is due"`
	Keys []jwk `json:"keys" doc:"The key that signs, and then those that are published still, the newest first"`
}

type jwk struct {
	KID         string     `json:"kid" doc:"By what tokens name it: its thumbprint (RFC 7638) in hex"`
	Created     time.Time  `json:"created_at"`
	Until       *time.Time `json:"published_until,omitempty" doc:"Absent for the key that signs"`
	Certificate string     `json:"certificate" doc:"In PEM, signed by the key itself"`
}

type setJWKs struct {
	Body struct {
		Days int `json:"rotate_after_days" minimum:"21" maximum:"365"`
	}
}

func (d door) jwkRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/jwks", "show-jwks", "Show by which keys tokens of applications are signed",
		func(ctx context.Context, who control.Actor, _ *none) (jwks, error) {
			return showJWKs(d.plane.ShowJWKs(ctx, who))
		})
	operation(d, a, http.MethodPut, "/jwks", "set-jwks", "Say after how many days the key that signs tokens is exchanged",
		func(ctx context.Context, who control.Actor, in *setJWKs) (jwks, error) {
			return showJWKs(d.plane.SetJWKDays(ctx, who, in.Body.Days))
		})
	operation(d, a, http.MethodPost, "/jwks/rotate", "rotate-jwk", "Have tokens be signed by another key from now on",
		func(ctx context.Context, who control.Actor, _ *none) (jwks, error) {
			return showJWKs(d.plane.RotateJWK(ctx, who, false))
		})
}

func showJWKs(s control.JWKs, err error) (jwks, error) {
	out := jwks{Days: s.Days, Left: s.Left, Keys: make([]jwk, len(s.Keys))}
	for i, k := range s.Keys {
		out.Keys[i] = jwk{
			KID: k.KID, Created: k.Created.UTC(), Until: at(k.Until),
			Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate})),
		}
	}
	return out, err
}
