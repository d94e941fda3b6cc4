package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

type approval struct {
	Subject    string     `json:"subject" doc:"run:ID, key:ID of a key to be revealed, or setting:NAME"`
	Value      string     `json:"value,omitempty" doc:"What the setting is to be"`
	AskedBy    string     `json:"asked_by" doc:"Name of the user who asked, or whose token did"`
	AskedAt    *time.Time `json:"asked_at"`
	Until      *time.Time `json:"until" doc:"When the request lapses or, once approved, the approval"`
	ApprovedBy string     `json:"approved_by,omitempty"`
	ApprovedAt *time.Time `json:"approved_at,omitempty"`
}

type approvals struct {
	Approvals []approval `json:"approvals"`
}

type bySetting struct {
	Name string `path:"name" maxLength:"100"`
}

func (d door) approvalRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/approvals", "list-approvals", "List what waits for the approval of another user",
		func(ctx context.Context, who control.Actor, _ *none) (approvals, error) {
			list, err := d.plane.ListApprovals(ctx, who)
			out := approvals{Approvals: make([]approval, len(list))}
			for i, x := range list {
				out.Approvals[i] = showApproval(x)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/settings/{name}/approve", "approve-setting", "Change a setting as another user asked for",
		func(ctx context.Context, who control.Actor, in *bySetting) (setting, error) {
			s, err := d.plane.ApproveSetting(ctx, who, in.Name)
			return showSetting(s), err
		})
}

func showApproval(x control.Approval) approval {
	return approval{
		Subject: x.Subject, Value: x.Value, AskedBy: x.AskedBy, AskedAt: at(x.AskedAt),
		Until: at(x.Until), ApprovedBy: x.ApprovedBy, ApprovedAt: at(x.ApprovedAt),
	}
}
