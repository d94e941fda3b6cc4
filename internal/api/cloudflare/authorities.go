package cloudflare

import (
	"errors"
	"net/http"
	"strings"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// comment is what Cloudflare writes behind the public key of every authority.
const comment = " open-ssh-ca@cloudflareaccess.org"

// An applicationCA is the authority of an application.
type applicationCA struct {
	ID        string `json:"id"`
	Aud       string `json:"aud"`
	PublicKey string `json:"public_key"`
}

func showApplicationCA(a control.ApplicationAuthority) applicationCA {
	return applicationCA{applicationCAID(a), a.Aud, a.Public.String() + comment}
}

// applicationCAID returns the 48 hex digits by which Cloudflare's clients know an
// authority: those of its id, behind zeros.
func applicationCAID(a control.ApplicationAuthority) string {
	return strings.Repeat("0", 16) + strings.ReplaceAll(a.ID, "-", "")
}

func oneApplicationCA(a control.ApplicationAuthority, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return answer{result: showApplicationCA(a)}, nil
}

func (d door) listApplicationCAs(r *http.Request, a control.Actor) (answer, error) {
	q := queryOf(r)
	page := q.page()
	if q.err != nil {
		return answer{}, q.err
	}
	list, total, err := d.plane.ListApplicationAuthorities(r.Context(), a, page)
	if err != nil {
		return answer{}, err
	}
	shown := make([]applicationCA, len(list)) // never null
	for i, x := range list {
		shown[i] = showApplicationCA(x)
	}
	return answer{result: shown, info: infoOf(page, len(list), total)}, nil
}

func (d door) showApplicationCA(r *http.Request, a control.Actor) (answer, error) {
	app, err := d.application(r, a)
	if err != nil {
		return answer{}, err
	}
	return oneApplicationCA(d.plane.ShowApplicationAuthority(r.Context(), a, app.ID))
}

// createApplicationCA passes over the body: Terraform sends {}, others nothing.
func (d door) createApplicationCA(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "application")
	if err != nil {
		return answer{}, unknownApplication(err)
	}
	made, err := d.plane.CreateApplicationAuthority(r.Context(), a, id, again(r))
	return oneApplicationCA(made, unknownApplication(err))
}

func (d door) removeApplicationCA(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "application")
	if err != nil {
		return answer{}, unknownApplication(err)
	}
	gone, err := d.plane.RemoveApplicationAuthority(r.Context(), a, id)
	if trust.KindOf(err) == trust.NotFound { // one of the two is not there
		if _, unknown := d.application(r, a); unknown != nil {
			err = unknown
		}
	}
	return answer{status: http.StatusAccepted, result: removed{applicationCAID(gone)}}, err
}

// A gatewayCA is an authority of the gateway.
type gatewayCA struct {
	ID        string `json:"id"`
	PublicKey string `json:"public_key"`
}

func showGatewayCA(a control.Authority) gatewayCA {
	return gatewayCA{a.ID, a.Public.String() + comment}
}

// listGatewayCAs answers with an array, as the SDKs read it: around a rotation it has all
// that hosts should trust.
func (d door) listGatewayCAs(r *http.Request, a control.Actor) (answer, error) {
	list, err := d.plane.ListGatewayAuthorities(r.Context(), a)
	shown := make([]gatewayCA, len(list)) // never null
	for i, x := range list {
		shown[i] = showGatewayCA(x)
	}
	return answer{result: shown}, err
}

func (d door) createGatewayCA(r *http.Request, a control.Actor) (answer, error) {
	made, err := d.plane.CreateGatewayAuthority(r.Context(), a, again(r))
	var there *control.GatewayAuthorityError
	if errors.As(err, &there) {
		return answer{}, gatewayCAExists(there)
	}
	return answer{status: http.StatusCreated, result: showGatewayCA(made)}, err
}

func gatewayCAExists(there error) error {
	return &refusal{http.StatusBadRequest, []fault{{
		Code: 12130, Message: "access.api.error.gateway_ca_already_exists", Chain: []fault{{Code: 12130, Message: there.Error()}},
	}}}
}

func (d door) removeGatewayCA(r *http.Request, a control.Actor) (answer, error) {
	id := r.PathValue("ca")
	return answer{result: removed{id}}, d.plane.RemoveGatewayAuthority(r.Context(), a, id)
}
