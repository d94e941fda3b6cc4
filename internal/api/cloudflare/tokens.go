package cloudflare

import (
	"net/http"
	"time"

	"keyturn/internal/control"
)

// A verifiedToken is what a token is told of itself.
type verifiedToken struct {
	ID        string     `json:"id"`
	Status    string     `json:"status"`
	ExpiresOn *time.Time `json:"expires_on,omitempty"`
}

// verifyToken tells a token that it holds. Tools look for the very text of the
// message.
func (d door) verifyToken(_ *http.Request, a control.Actor) (answer, error) {
	t := verifiedToken{ID: a.ID, Status: "active"}
	if !a.Until.IsZero() {
		ends := a.Until.UTC()
		t.ExpiresOn = &ends
	}
	return answer{result: t, messages: []message{{Code: 10000, Message: "This API Token is valid and active"}}}, nil
}
