package cloudflare

import (
	"encoding/json"
	"net/http"

	"keyturn/internal/control"
)

// revokeTokens revokes what was given out because of an application, which is certificates.
// Clients send {} or nothing.
func (d door) revokeTokens(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "application")
	if err == nil {
		_, err = d.plane.RevokeApplication(r.Context(), a, id)
	}
	return answer{status: http.StatusAccepted}, unknownApplication(err)
}

// An applicationSettings is the fields of an application that can be written by themselves.
type applicationSettings struct {
	AllowIframe      bool `json:"allow_iframe"`
	SkipInterstitial bool `json:"skip_interstitial"`
}

// setSettings writes the settings of an application anew with PUT, and those that the body
// has with PATCH.
func (d door) setSettings(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "application")
	if err != nil {
		return answer{}, unknownApplication(err)
	}
	body, err := readFields(r)
	if err != nil {
		return answer{}, err
	}
	set := map[string]json.RawMessage{}
	for _, name := range []string{"allow_iframe", "skip_interstitial"} {
		var value *bool
		if err := body.take(name, &value); err != nil {
			return answer{}, err
		}
		switch {
		case value != nil && *value:
			set[name] = json.RawMessage("true")
		case value != nil:
			set[name] = json.RawMessage("false")
		case r.Method == http.MethodPut:
			set[name] = nil
		}
	}
	if err := body.none(); err != nil {
		return answer{}, err
	}
	app, err := d.plane.SetApplicationExtra(r.Context(), a, id, set)
	if err != nil {
		return answer{}, unknownApplication(err)
	}
	var shown applicationSettings
	err = json.Unmarshal(app.Extra, &shown)
	return answer{status: http.StatusAccepted, result: shown}, err
}
