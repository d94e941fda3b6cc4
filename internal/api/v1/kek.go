package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

type kek struct {
	Name      string     `json:"name" doc:"Of the key that the database is sealed under" example:"kek-ff3540a86983e2040f3b8b02b72d674e"`
	Source    string     `json:"source,omitempty" doc:"Where this node has it from: shown to the account default only"`
	Since     *time.Time `json:"since" doc:"When the database was sealed under it"`
	DataSince *time.Time `json:"data_since,omitempty" doc:"Since when the account's data key seals that does now; absent as long as nothing has been sealed"`
	Before    string     `json:"before,omitempty" doc:"Name of the key before: in the answer that tells of the change"`
}

func (d door) kekRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/kek", "show-kek", "Show which key-encryption key the database is sealed under",
		func(ctx context.Context, who control.Actor, _ *none) (kek, error) {
			s, err := d.plane.ShowKEK(ctx, who)
			return showKEK(s), err
		})
	operation(d, a, http.MethodPost, "/kek/rotate", "rotate-kek", "Seal the database under the next key-encryption key",
		func(ctx context.Context, who control.Actor, _ *none) (kek, error) {
			before, s, err := d.plane.RotateKEK(ctx, who)
			out := showKEK(s)
			out.Before = before
			return out, err
		})
	operation(d, a, http.MethodPost, "/kek/rotate-data", "rotate-data-key", "Seal with a new data key from now on",
		func(ctx context.Context, who control.Actor, _ *none) (kek, error) {
			s, err := d.plane.RotateDataKey(ctx, who)
			return showKEK(s), err
		})
}

func showKEK(s control.KEKStatus) kek {
	return kek{Name: s.Name, Source: s.Source, Since: at(s.Since), DataSince: at(s.DataSince)}
}
