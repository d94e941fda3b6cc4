package appviewx

import (
	"net/http"
	"strings"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// maxRequests is how many runs one call asks about.
const maxRequests = 50

// logsAnswer is "response" of the request logs.
type logsAnswer struct {
	RequestList []request `json:"requestList"`
}

// A request is a run. Clients read statusCode: 0 is under way, 1 is a success,
// and 2, 3, 8, 9, 10 and 11 are failures.
type request struct {
	RequestID    string `json:"requestId"`
	StatusCode   int    `json:"statusCode"`
	Status       string `json:"status"`
	WorkflowName string `json:"workflowName"`
	CreatedBy    string `json:"created_by"`
	CreatedTime  int64  `json:"created_time"`
	Remarks      string `json:"remarks"`
	Tasks        []task `json:"tasks"`
}

// A task is a row of a run.
type task struct {
	Name       string `json:"name"`
	StatusCode int    `json:"statusCode"`
	Total      int    `json:"total"`
	Completed  int    `json:"completed"`
	Failed     int    `json:"failed"`
}

func (d door) requestLogs(_ http.ResponseWriter, r *http.Request, a control.Actor) (any, *fault) {
	if f := ofLogs.check(r, nil); f != nil {
		return nil, f
	}
	ids := strings.FieldsFunc(query(r, "ids"), func(c rune) bool { return c == ',' || c == ' ' })
	if len(ids) == 0 {
		return nil, &fault{status: http.StatusBadRequest, code: "WORKFLOW_1300", message: "Request id is missing"}
	}
	if len(ids) > maxRequests {
		return nil, invalid("ids")
	}
	answer := logsAnswer{RequestList: []request{}}
	for _, id := range ids {
		run, err := d.plane.ShowRun(r.Context(), a, trust.RunID(id))
		if trust.KindOf(err) == trust.NotFound {
			return nil, &fault{status: http.StatusBadRequest, code: "WORKFLOW_1300", message: "Request id is not known - " + clip(id)}
		}
		if err != nil {
			return nil, faultOf(err)
		}
		answer.RequestList = append(answer.RequestList, showRun(run))
	}
	return answer, nil
}

// showRun is the table from the states of a run to AppViewX's.
func showRun(run control.Run) request {
	q := request{
		RequestID: string(run.ID), WorkflowName: run.Procedure, CreatedBy: run.Actor.ID,
		CreatedTime: run.Created.UnixMilli(), Remarks: run.Reason, Tasks: []task{},
	}
	switch run.State {
	case control.RunDone:
		q.StatusCode, q.Status = 1, "Completed"
	case control.RunBack:
		q.StatusCode, q.Status = 2, "Rolled back"
	case control.RunPartial:
		q.StatusCode, q.Status = 3, "Partially completed"
	case control.RunHeld:
		q.Status = "On hold"
	case control.RunPaused:
		q.Status = "Paused"
	default:
		q.Status = "In progress"
		if !run.ApproveBy.IsZero() {
			q.Status = "Waiting for approval"
		}
	}
	for _, row := range run.Rows {
		t := task{Name: row.Step, Total: row.Targets, Completed: row.Done, Failed: row.Failed}
		switch {
		case row.Failed > 0:
			t.StatusCode = 2
		case row.Done == row.Targets:
			t.StatusCode = 1
		}
		q.Tasks = append(q.Tasks, t)
	}
	return q
}

func clip(s string) string { return s[:min(len(s), 64)] }
