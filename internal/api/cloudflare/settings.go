package cloudflare

import (
	"net/http"
	"time"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// An sshSettings is what Cloudflare calls audit SSH settings.
type sshSettings struct {
	CreatedAt time.Time `json:"created_at"`
	PublicKey string    `json:"public_key"`
	SeedID    string    `json:"seed_id"`
	UpdatedAt time.Time `json:"updated_at"`
}

func showSSHSettings(s control.SSHSettings, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return answer{result: sshSettings{
		CreatedAt: s.CreatedAt.UTC(), PublicKey: s.AuditKey, SeedID: string(s.Newest), UpdatedAt: s.UpdatedAt.UTC(),
	}}, nil
}

func (d door) showSSHSettings(r *http.Request, a control.Actor) (answer, error) {
	return showSSHSettings(d.plane.ShowSSHSettings(r.Context(), a))
}

func (d door) updateSSHSettings(r *http.Request, a control.Actor) (answer, error) {
	var body struct {
		PublicKey *string `json:"public_key"` // "" turns recording off, and has to be said
	}
	if err := api.ReadJSON(r, &body, false); err != nil {
		return answer{}, err
	}
	if body.PublicKey == nil {
		return answer{}, trust.Errorf(trust.Invalid, "public_key is missing").WithField("public_key")
	}
	return showSSHSettings(d.plane.SetAuditKey(r.Context(), a, *body.PublicKey))
}

// rotateSeed passes over the body: some clients send {}, others nothing.
func (d door) rotateSeed(r *http.Request, a control.Actor) (answer, error) {
	if _, _, err := d.plane.RotateSeed(r.Context(), a, control.SeedRotation{Again: again(r)}); err != nil {
		return answer{}, err
	}
	return showSSHSettings(d.plane.ShowSSHSettings(r.Context(), a))
}
