package cloudflare

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"strings"
	"time"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// An accessKeys is what Cloudflare tells of the keys that sign tokens.
type accessKeys struct {
	DaysUntilNextRotation   int       `json:"days_until_next_rotation"`
	KeyRotationIntervalDays int       `json:"key_rotation_interval_days"`
	LastKeyRotationAt       time.Time `json:"last_key_rotation_at"`
}

func showAccessKeys(s control.JWKs, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return answer{result: accessKeys{s.Left, s.Days, s.Keys[0].Created.UTC()}}, nil
}

func (d door) showAccessKeys(r *http.Request, a control.Actor) (answer, error) {
	return showAccessKeys(d.plane.ShowJWKs(r.Context(), a))
}

func (d door) updateAccessKeys(r *http.Request, a control.Actor) (answer, error) {
	var body struct {
		Days *int `json:"key_rotation_interval_days"`
	}
	if err := api.ReadJSON(r, &body, false); err != nil {
		return answer{}, err
	}
	if body.Days == nil {
		return answer{}, trust.Errorf(trust.Invalid, "key_rotation_interval_days is missing").WithField("key_rotation_interval_days")
	}
	return showAccessKeys(d.plane.SetJWKDays(r.Context(), a, *body.Days))
}

// rotateAccessKeys passes over the body: some clients send {}, others nothing.
func (d door) rotateAccessKeys(r *http.Request, a control.Actor) (answer, error) {
	return showAccessKeys(d.plane.RotateJWK(r.Context(), a, again(r)))
}

// A published is the keys by which tokens are verified, in the forms that Cloudflare has:
// JSON Web Keys, and certificates in PEM for libraries that read no others.
type published struct {
	Keys []publishedKey `json:"keys"`
	// PublicCert is that of the key that signs.
	PublicCert  *publicCert  `json:"public_cert"`
	PublicCerts []publicCert `json:"public_certs"`
}

type publishedKey struct {
	KID string `json:"kid"`
	Kty string `json:"kty"`
	Alg string `json:"alg"`
	Use string `json:"use"`
	E   string `json:"e"`
	N   string `json:"n"`
}

type publicCert struct {
	KID  string `json:"kid"`
	Cert string `json:"cert"`
}

// Certs returns the handler by which anybody gets the keys that verify tokens of an
// account. Cloudflare knows the account by the host that is asked; so it is here, if the
// first label of that is the id of one, and any other host is that of the account
// "default". What a verb fails for that a client is not told, log is.
func Certs(p *control.Plane, log func(context.Context, error)) http.Handler {
	d := door{plane: p, log: log}
	return d.unbroken(d.methods(map[string]http.HandlerFunc{http.MethodGet: func(w http.ResponseWriter, r *http.Request) {
		list, err := p.PublishedJWKs(r.Context(), accountOfHost(r.Host))
		if err != nil {
			d.fail(w, r, err)
			return
		}
		shown, err := publish(list)
		if err != nil {
			d.fail(w, r, err)
			return
		}
		api.WriteJSON(w, http.StatusOK, shown)
	}}))
}

// accountOfHost returns the id of an account that a host begins with, or "".
func accountOfHost(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	first, _, _ := strings.Cut(strings.ToLower(host), ".")
	if !isIdentifier(first) {
		return ""
	}
	return first
}

func publish(list []control.JWK) (published, error) {
	out := published{Keys: []publishedKey{}, PublicCerts: []publicCert{}} // never null
	for _, k := range list {
		n, e, err := k.Public()
		if err != nil {
			return out, err
		}
		out.Keys = append(out.Keys, publishedKey{KID: k.KID, Kty: "RSA", Alg: "RS256", Use: "sig", E: e, N: n})
		out.PublicCerts = append(out.PublicCerts, publicCert{k.KID, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate}))})
	}
	if len(list) > 0 {
		out.PublicCert = &out.PublicCerts[0]
	}
	return out, nil
}
