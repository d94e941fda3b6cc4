package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type approval struct {
	ID         string     `json:"id"`
	Subject    string     `json:"subject" doc:"run:ID, back:ID of a run to be taken back by force, key:ID of a key to be revealed, or setting:NAME"`
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

type byApproval struct {
	ID string `path:"id" maxLength:"100"`
}

type approveBack struct {
	Run  string `path:"run" maxLength:"100"`
	Body struct {
		User string `json:"user" minLength:"1" maxLength:"100" doc:"Name or id of the user who asked for it"`
	}
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
	operation(d, a, http.MethodPost, "/approvals/{id}/refuse", "refuse-approval", "End what waits for approval, or an approval that was not made use of",
		func(ctx context.Context, who control.Actor, in *byApproval) (approval, error) {
			x, err := d.plane.RefuseApproval(ctx, who, in.ID)
			return showApproval(x), err
		})
	operation(d, a, http.MethodPost, "/runs/{run}/back/approve", "approve-back", "Approve that the user who asked takes a run back by force, once, within an hour",
		func(ctx context.Context, who control.Actor, in *approveBack) (approval, error) {
			x, err := d.plane.ApproveBack(ctx, who, trust.RunID(in.Run), in.Body.User)
			return showApproval(x), err
		})
	operation(d, a, http.MethodPost, "/settings/{name}/approve", "approve-setting", "Change a setting as another user asked for",
		func(ctx context.Context, who control.Actor, in *bySetting) (setting, error) {
			s, err := d.plane.ApproveSetting(ctx, who, in.Name)
			return showSetting(s), err
		})
}

func showApproval(x control.Approval) approval {
	return approval{
		ID: x.ID, Subject: x.Subject, Value: x.Value, AskedBy: x.AskedBy, AskedAt: at(x.AskedAt),
		Until: at(x.Until), ApprovedBy: x.ApprovedBy, ApprovedAt: at(x.ApprovedAt),
	}
}
