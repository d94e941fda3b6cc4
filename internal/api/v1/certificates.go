package v1

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// Serial numbers are strings: they have 63 bits, and readers of JSON that have 53 would
// hand back the number of another certificate.
type certificate struct {
	Serial          string     `json:"serial" doc:"Decimal, as OpenSSH writes it; a string, since it has 63 bits"`
	Type            string     `json:"type" enum:"user,host"`
	KeyID           string     `json:"key_id" doc:"What sshd logs of it"`
	Principals      []string   `json:"principals"`
	Fingerprint     string     `json:"fingerprint" doc:"Of the key that is certified"`
	Authority       string     `json:"authority" doc:"The id of what signs it"`
	Person          string     `json:"person,omitempty" doc:"The id of the user whom it is for"`
	Why             string     `json:"why" doc:"What let them have it"`
	Applications    []string   `json:"applications" doc:"The ids of those that let them have it; none where no policy was asked"`
	ValidAfter      *time.Time `json:"valid_after"`
	ValidBefore     *time.Time `json:"valid_before"`
	CriticalOptions []string   `json:"critical_options" doc:"Each a name, or name=value"`
	Extensions      []string   `json:"extensions"`
	Revoked         string     `json:"revoked,omitempty" doc:"What is revoked of it, and why"`
	CreatedAt       *time.Time `json:"created_at"`
	Certificate     string     `json:"certificate,omitempty" doc:"The certificate itself, as a line of a file; absent in listings, and of one that is worth nothing any more"`
}

type certificates struct {
	Certificates []certificate `json:"certificates"`
	Next         string        `json:"next,omitempty" doc:"after of the next page; absent on the last one"`
}

type listCertificates struct {
	Paging
	User  string `query:"user" maxLength:"100" doc:"Name or id, also of one who is gone: only those of this user"`
	Valid bool   `query:"valid" doc:"Only those that have not ended"`

	Application string `query:"application" maxLength:"300" doc:"Name or id: only those that were allowed because of this application"`
}

type issueCertificate struct {
	Body struct {
		Authority       string    `json:"authority" minLength:"1" maxLength:"100" doc:"Name or id"`
		PublicKey       string    `json:"public_key" minLength:"1" maxLength:"20000" doc:"The key to be certified, as a line of a file"`
		Principals      []string  `json:"principals" minItems:"1" maxItems:"256" doc:"The accounts on hosts to get in as, or the names of a host"`
		Valid           string    `json:"valid,omitempty" maxLength:"20" doc:"For how long, such as 5m; what the authority's profile says if absent"`
		ForceCommand    string    `json:"force_command,omitempty" minLength:"1" maxLength:"4096" doc:"The only command that it runs"`
		SourceAddresses []string  `json:"source_addresses,omitempty" maxItems:"64" doc:"Addresses and networks from which alone it lets in"`
		VerifyRequired  bool      `json:"verify_required,omitempty" doc:"Whether a security key has to have verified its user"`
		Extensions      *[]string `json:"extensions,omitempty" maxItems:"32" doc:"Of those of the authority's profile; all of them if absent"`
	}
}

type bySerial struct {
	Serial string `path:"serial" maxLength:"20" pattern:"^[1-9][0-9]*$"`
}

type revokeCertificates struct {
	Body struct {
		Serial    string `json:"serial,omitempty" maxLength:"20" pattern:"^([1-9][0-9]*)?$" doc:"One certificate"`
		KeyID     string `json:"key_id,omitempty" maxLength:"255" doc:"All of a key id that have not ended"`
		User      string `json:"user,omitempty" maxLength:"100" doc:"Name or id, also of one who is gone: all of this user that have not ended"`
		PublicKey string `json:"public_key,omitempty" maxLength:"20000" doc:"A key, for ever: all for it, and the key itself"`

		Application string `json:"application,omitempty" maxLength:"300" doc:"Name or id: all that were allowed because of this application and have not ended"`

		Reason string `json:"reason,omitempty" maxLength:"200" doc:"For those who look later"`
	}
}

type revokedCertificates struct {
	Revoked int `json:"revoked" doc:"How many certificates, but for those of a user or an application that were already; -1 where a key is revoked, of which nobody counts those"`
}

func (d door) certificateRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/certificates", "list-certificates", "List certificates, newest first",
		func(ctx context.Context, who control.Actor, in *listCertificates) (certificates, error) {
			list, next, err := d.plane.ListCertificates(ctx, who, control.CertificateFilter{User: in.User, Valid: in.Valid, Application: in.Application}, in.page())
			out := certificates{Certificates: make([]certificate, len(list)), Next: next}
			for i, c := range list {
				out.Certificates[i] = showCertificate(c, trust.PublicKey{})
			}
			return out, err
		})
	operation(d, a, http.MethodGet, "/certificates/{serial}", "show-certificate", "Show a certificate",
		func(ctx context.Context, who control.Actor, in *bySerial) (certificate, error) {
			n, err := serial(in.Serial)
			if err != nil {
				return certificate{}, err
			}
			c, signed, err := d.plane.ShowCertificate(ctx, who, n)
			return showCertificate(c, signed), err
		})
	operation(d, a, http.MethodPost, "/certificates", "issue-certificate", "Sign a certificate for oneself, or for a host",
		func(ctx context.Context, who control.Actor, in *issueCertificate) (certificate, error) {
			r, err := in.read()
			if err != nil {
				return certificate{}, err
			}
			c, signed, err := d.plane.Issue(ctx, who, r)
			return showCertificate(c, signed), err
		})
	operation(d, a, http.MethodPost, "/certificates/revoke", "revoke-certificates", "Revoke certificates, or a key",
		func(ctx context.Context, who control.Actor, in *revokeCertificates) (revokedCertificates, error) {
			r := control.Revocation{KeyID: in.Body.KeyID, User: in.Body.User, Application: in.Body.Application, Reason: in.Body.Reason}
			var err error
			if in.Body.Serial != "" {
				if r.Serial, err = serial(in.Body.Serial); err != nil {
					return revokedCertificates{}, err
				}
			}
			if in.Body.PublicKey != "" {
				if r.PublicKey, err = publicFile(in.Body.PublicKey); err != nil {
					return revokedCertificates{}, err
				}
			}
			count, err := d.plane.RevokeCertificates(ctx, who, r)
			return revokedCertificates{count}, err
		})
	d.krlRoute(a)
}

// read reads what certificate is asked for.
func (in *issueCertificate) read() (r control.IssueCertificate, err error) {
	b := in.Body
	r = control.IssueCertificate{Authority: b.Authority, Principals: b.Principals, Options: control.CertificateOptions{
		ForceCommand: b.ForceCommand, SourceAddresses: b.SourceAddresses, VerifyRequired: b.VerifyRequired,
	}}
	if b.Extensions != nil {
		r.Options.Extensions = append([]string{}, *b.Extensions...)
	}
	if b.Valid != "" {
		if r.Valid, err = duration("valid", b.Valid); err != nil {
			return r, err
		}
		if r.Valid == 0 {
			return r, trust.Errorf(trust.Invalid, "%q is no time for which a certificate can be valid", b.Valid).WithField("valid")
		}
	}
	r.PublicKey, err = publicFile(b.PublicKey)
	return r, err
}

// publicFile reads one public key, in any of the forms in which files have them.
func publicFile(text string) (trust.PublicKey, error) {
	key, _, _, err := trust.ParsePublicFile([]byte(text))
	return key, err
}

type getKRL struct {
	Known string `header:"If-None-Match" maxLength:"1000" doc:"ETags of lists that one has"`
}

// tags reads the header If-None-Match (RFC 9110, section 13.1.2).
func (in *getKRL) tags() (list []string) {
	for text := range strings.SplitSeq(in.Known, ",") {
		list = append(list, strings.Trim(strings.TrimPrefix(strings.TrimSpace(text), "W/"), `"`))
	}
	return list
}

type krlAnswer struct {
	Status int
	Type   string `header:"Content-Type"`
	ETag   string `header:"ETag"`
	Cache  string `header:"Cache-Control"`
	Body   []byte
}

// krlRoute is an operation whose answer is no JSON, but the file that sshd reads.
func (d door) krlRoute(a huma.API) {
	huma.Register(a, huma.Operation{
		OperationID: "get-krl", Method: http.MethodGet, Path: "/api/v1/krl", Summary: "Get the key revocation list, as RevokedKeys of sshd reads it",
		Errors: []int{401, 403, 422, 429, 503},
		Responses: map[string]*huma.Response{
			"200": {Description: "The list", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}},
			"304": {Description: "It is the one that one has"},
		},
	}, func(ctx context.Context, in *getKRL) (*krlAnswer, error) {
		list, tag, err := d.plane.KRL(ctx, actorOf(ctx), in.tags())
		if err != nil {
			if trust.KindOf(err) == trust.Internal {
				d.log(ctx, err)
			}
			return nil, problem(err)
		}
		out := &krlAnswer{Status: http.StatusOK, Type: "application/octet-stream", ETag: `"` + tag + `"`, Cache: "no-cache", Body: list}
		if list == nil {
			out.Status = http.StatusNotModified
		}
		return out, nil
	})
}

func serial(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, trust.Errorf(trust.NotFound, "there is no certificate of serial number %.20s", text)
	}
	return n, nil
}

func showCertificate(c control.Certificate, signed trust.PublicKey) certificate {
	out := certificate{
		Serial: strconv.FormatUint(c.Serial, 10), Type: c.Type.String(), KeyID: c.KeyID, Principals: texts(c.Principals), Fingerprint: string(c.Key.Fingerprint()),
		Authority: c.Authority, Person: c.Person, Why: c.Why, Applications: texts(c.Applications), ValidAfter: at(c.ValidAfter), ValidBefore: at(c.ValidBefore),
		CriticalOptions: options(c.CriticalOptions), Extensions: options(c.Extensions), Revoked: c.Revoked, CreatedAt: at(c.Created),
	}
	if !signed.IsZero() {
		out.Certificate = signed.String() + " " + c.KeyID
	}
	return out
}

func options(list []trust.CertificateOption) []string {
	out := make([]string, len(list))
	for i, o := range list {
		out[i] = o.Name
		if value, ok := o.Text(); ok {
			out[i] += "=" + value
		}
	}
	return out
}
