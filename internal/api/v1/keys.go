package v1

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type key struct {
	UUID          string       `json:"uuid"`
	Kind          string       `json:"kind" enum:"user,host"`
	Fingerprint   string       `json:"fingerprint"`
	PublicKey     string       `json:"public_key"`
	Type          string       `json:"type"`
	Bits          int          `json:"bits"`
	Comment       string       `json:"comment"`
	Owner         string       `json:"owner,omitempty" doc:"Who answers for it"`
	Purpose       string       `json:"purpose,omitempty" doc:"What it is for"`
	Labels        []string     `json:"labels" doc:"name=value, by name"`
	ExpiresAt     *time.Time   `json:"expires_at,omitempty" doc:"Until when it is meant to be used; from then on it signs for no user, and no line is taken away"`
	State         string       `json:"state" enum:"active,rotated,retired,deleted"`
	Custody       string       `json:"custody" enum:"held,in-place,external"`
	RevealedAt    *time.Time   `json:"revealed_at,omitempty" doc:"When its private half was last given to somebody"`
	Compromised   bool         `json:"compromised,omitempty"`
	Authorized    []authorized `json:"authorized"`
	Identities    []Place      `json:"identities"`
	Replaces      []string     `json:"replaces"`
	ReplacedBy    []string     `json:"replaced_by"`
	Supplied      string       `json:"supplied,omitempty" doc:"The key that its owner made to take its place"`
	CreatedAt     *time.Time   `json:"created_at"`
	LastRotatedAt *time.Time   `json:"last_rotated_at"`
	// RestorableUntil is set in the answer to a deletion.
	RestorableUntil *time.Time `json:"restorable_until,omitempty" doc:"Until when it can be restored, in the answer that deletes it"`

	Run      string    `json:"run,omitempty" doc:"The open run that has the key; not in listings"`
	Findings []finding `json:"findings"`
}

// Place is where a half of a key lies.
type Place struct {
	Host string `json:"host"`
	User string `json:"user"`
	Path string `json:"path"`
}

type authorized struct {
	Place
	Options string `json:"options" doc:"As the line has them, byte for byte"`
}

type keyPage struct {
	Keys []key  `json:"keys"`
	Next string `json:"next,omitempty"`
}

type listKeys struct {
	Paging
	State []string `query:"state" maxItems:"4" enum:"active,rotated,retired,deleted" doc:"All but deleted if absent"`
	Kind  []string `query:"kind" maxItems:"2" enum:"user,host"`
	Q     string   `query:"q" maxLength:"256" doc:"Text in comment, fingerprint, owner or a host's name"`

	Owner   string   `query:"owner" maxLength:"256" doc:"Exactly this owner"`
	Label   []string `query:"label" maxItems:"32" doc:"name=value: each of these labels"`
	Expired bool     `query:"expired" doc:"Only keys that were to be used until a time that is over"`
}

// Facts are what somebody says of a key.
type Facts struct {
	Owner   *string  `json:"owner,omitempty" maxLength:"256" doc:"Who answers for it"`
	Purpose *string  `json:"purpose,omitempty" maxLength:"256" doc:"What it is for"`
	Labels  []string `json:"labels,omitempty" maxItems:"32" doc:"name=value, each in place of one of that name"`
	Expires string   `json:"expires,omitempty" maxLength:"64" doc:"Until when it is meant to be used: 90d, 12h, a day, a time of RFC 3339, or never"`
}

func (f Facts) facts() control.KeyFacts {
	return control.KeyFacts{Owner: f.Owner, Purpose: f.Purpose, Labels: f.Labels, Expires: f.Expires}
}

type setKey struct {
	ByKey
	Body struct {
		Facts
		Unlabel []string `json:"unlabel,omitempty" maxItems:"32" doc:"Names of labels that go"`
	}
}

// ByKey names a key in a path.
type ByKey struct {
	Key string `path:"key" maxLength:"100" doc:"UUID or fingerprint"`
}

type exportKey struct {
	Key    string `path:"key" maxLength:"100" doc:"UUID or fingerprint"`
	Format string `query:"format" default:"openssh" enum:"openssh,rfc4716,pkcs8"`
}

type exportedKey struct {
	Format    string `json:"format"`
	PublicKey string `json:"public_key" doc:"A file of that format"`
}

type revealKey struct {
	ByKey
	Body struct {
		Format     string `json:"format,omitempty" enum:"openssh,pem,pkcs8" doc:"openssh if absent"`
		Passphrase string `json:"passphrase,omitempty" maxLength:"1024" doc:"Encrypts the file, which must be of the format openssh"`
		Plain      bool   `json:"plain,omitempty" doc:"Or: the file is to be unencrypted"`
	}
}

type revealedKey struct {
	UUID       string `json:"uuid"`
	PrivateKey string `json:"private_key" doc:"A private key file"`
}

type approveReveal struct {
	ByKey
	Body struct {
		User string `json:"user" minLength:"1" maxLength:"100" doc:"Name or id of the user who asked for it"`
	}
}

type newKey struct {
	Body struct {
		PrivateKey keyFile `json:"private_key,omitempty"`
		Passphrase string  `json:"passphrase,omitempty" maxLength:"1024"`
		Type       string  `json:"type,omitempty" enum:"ed25519,ecdsa-p256,ecdsa-p384,ecdsa-p521,rsa" doc:"Or the type of a key to make; ed25519 if absent"`
		Bits       int     `json:"bits,omitempty" minimum:"0" maximum:"8192"`
		Comment    string  `json:"comment,omitempty" maxLength:"1024"`
		Facts
	}
}

// A keyFile is the private key file of a request, if it has one. That it is null, as jq
// writes where a secret lacks the field, does not say so.
type keyFile struct {
	given bool
	text  string
}

// Schema is what the OpenAPI document says of it.
func (keyFile) Schema(huma.Registry) *huma.Schema {
	most := 65536
	return &huma.Schema{Type: huma.TypeString, MaxLength: &most, Description: "A private key file to import"}
}

// UnmarshalJSON refuses null.
func (f *keyFile) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return trust.Errorf(trust.Invalid, "private_key is null: leave it out to make a key")
	}
	f.given = true
	return json.Unmarshal(text, &f.text)
}

type supplyKey struct {
	Key  string `path:"key" maxLength:"100" doc:"UUID or fingerprint"`
	Body struct {
		PublicKey string `json:"public_key" maxLength:"65536" doc:"The public half of the new key: OpenSSH, RFC 4716 or PKCS#8"`
	}
}

type rotateKeys struct {
	Body struct {
		Keys        []string `json:"keys" minItems:"1" maxItems:"1000"`
		Soak        string   `json:"soak,omitempty" maxLength:"32" doc:"How long both keys are accepted; the setting rotation.soak if absent"`
		Canary      *int     `json:"canary,omitempty" minimum:"0" maximum:"10000"`
		DryRun      bool     `json:"dry_run,omitempty" doc:"Change nothing: show what would change, at /runs/{run}/places"`
		Share       bool     `json:"share,omitempty" doc:"Put a key that Keyturn holds in the place of one that lies only on hosts"`
		Compromised bool     `json:"compromised,omitempty" doc:"The old key may be in wrong hands: do not soak"`
	}
}

type rollbackKeys struct {
	Body struct {
		Keys    []string `json:"keys" minItems:"1" maxItems:"1000"`
		Current bool     `json:"current,omitempty" doc:"The keys are those in use, each for the one that it replaced"`
		Force   bool     `json:"force,omitempty" doc:"Also a key that is marked as compromised"`
		Soak    string   `json:"soak,omitempty" maxLength:"32" doc:"How long both keys are accepted on the way back, if it has to be proven; as long as on the way there if absent"`
	}
}

type retireKeys struct {
	Body struct {
		Keys []string `json:"keys" minItems:"1" maxItems:"1000"`
	}
}

type startedRuns struct {
	Runs []string `json:"runs"`
}

func (d door) keyRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/keys", "list-keys", "List keys, and where their halves lie",
		func(ctx context.Context, who control.Actor, in *listKeys) (keyPage, error) {
			if len(in.State) == 0 {
				in.State = []string{string(control.ActiveKey), string(control.RotatedKey), string(control.RetiredKey)}
			}
			f := control.KeyFilter{States: cast[control.KeyState](in.State), Kinds: cast[control.KeyKind](in.Kind), Text: in.Q, Owner: in.Owner}
			var err error
			if f.Labels, err = control.ParseLabels(in.Label); err != nil {
				return keyPage{}, err
			}
			if in.Expired {
				f.Expired = time.Now()
			}
			list, next, err := d.plane.ListKeys(ctx, who, f, in.page())
			out := keyPage{Keys: make([]key, len(list)), Next: next}
			for i, k := range list {
				out.Keys[i] = showKey(k)
			}
			return out, err
		})
	operation(d, a, http.MethodGet, "/keys/{key}", "show-key", "Show a key",
		func(ctx context.Context, who control.Actor, in *ByKey) (key, error) {
			k, run, err := d.plane.ShowKey(ctx, who, in.Key)
			out := showKey(k)
			out.Run = string(run)
			return out, err
		})
	operation(d, a, http.MethodGet, "/keys/{key}/public", "export-key", "Show a key's public half as a file",
		func(ctx context.Context, who control.Actor, in *exportKey) (exportedKey, error) {
			format, err := trust.ParsePublicFormat(in.Format)
			if err != nil {
				return exportedKey{}, err
			}
			file, err := d.plane.ExportKey(ctx, who, in.Key, format)
			return exportedKey{in.Format, string(file)}, err
		})
	operation(d, a, http.MethodPost, "/keys", "add-key", "Import a private key, or make one, for Keyturn to hold",
		func(ctx context.Context, who control.Actor, in *newKey) (key, error) {
			k, err := d.addKey(ctx, who, in)
			return showKey(k), err
		})
	operation(d, a, http.MethodPatch, "/keys/{key}", "set-key", "Say what is known of a key: owner, purpose, labels, expiry",
		func(ctx context.Context, who control.Actor, in *setKey) (key, error) {
			f := in.Body.facts()
			f.Unlabel = in.Body.Unlabel
			k, err := d.plane.SetKeyFacts(ctx, who, in.Key, f)
			return showKey(k), err
		})
	operation(d, a, http.MethodDelete, "/keys/{key}", "delete-key", "Delete a key that lies nowhere; it can be restored for 30 days",
		func(ctx context.Context, who control.Actor, in *ByKey) (key, error) {
			k, until, err := d.plane.DeleteKey(ctx, who, in.Key)
			out := showKey(k)
			out.RestorableUntil = at(until)
			return out, err
		})
	operation(d, a, http.MethodPost, "/keys/{key}/restore", "restore-key", "Bring a deleted key back",
		func(ctx context.Context, who control.Actor, in *ByKey) (key, error) {
			k, err := d.plane.RestoreKey(ctx, who, in.Key)
			return showKey(k), err
		})
	operation(d, a, http.MethodPost, "/keys/{key}/supply", "supply-key", "Give the public half of the key that its owner made to take another's place",
		func(ctx context.Context, who control.Actor, in *supplyKey) (key, error) {
			k, err := d.plane.SupplyKey(ctx, who, in.Key, []byte(in.Body.PublicKey))
			return showKey(k), err
		})
	operation(d, a, http.MethodPost, "/keys/{key}/reveal", "reveal-key", "Give away the private half of a key, which is recorded first",
		func(ctx context.Context, who control.Actor, in *revealKey) (revealedKey, error) {
			b := in.Body
			k, file, err := d.plane.RevealKey(ctx, who, in.Key, control.Reveal{Format: b.Format, Passphrase: []byte(b.Passphrase), Plain: b.Plain})
			defer file.Wipe()
			return revealedKey{string(k.ID), string(file.Bytes())}, err
		})
	operation(d, a, http.MethodPost, "/keys/{key}/reveal/approve", "approve-reveal", "Approve that a key is revealed to the user who asked, once, within an hour",
		func(ctx context.Context, who control.Actor, in *approveReveal) (approval, error) {
			x, err := d.plane.ApproveReveal(ctx, who, in.Key, in.Body.User)
			return showApproval(x), err
		})
	operation(d, a, http.MethodPost, "/rotations", "rotate-keys", "Start a rotation of user keys",
		func(ctx context.Context, who control.Actor, in *rotateKeys) (started, error) {
			b := in.Body
			ids, err := keyIDs(b.Keys)
			if err != nil {
				return started{}, err
			}
			r := control.Rotate{Keys: ids, Canary: b.Canary, DryRun: b.DryRun, Share: b.Share, Compromised: b.Compromised}
			if r.Soak, err = soakOf(b.Soak); err != nil {
				return started{}, err
			}
			run, err := d.plane.Rotate(ctx, who, r)
			return started{string(run)}, err
		})
	operation(d, a, http.MethodPost, "/rollbacks", "rollback-keys", "Start taking rotated or retired keys back",
		func(ctx context.Context, who control.Actor, in *rollbackKeys) (startedRuns, error) {
			ids, err := keyIDs(in.Body.Keys)
			if err != nil {
				return startedRuns{}, err
			}
			soak, err := soakOf(in.Body.Soak)
			if err != nil {
				return startedRuns{}, err
			}
			runs, err := d.plane.Rollback(ctx, who, control.Rollback{Keys: ids, Current: in.Body.Current, Force: in.Body.Force, Soak: soak})
			return startedRuns{texts(runs)}, err
		})
	operation(d, a, http.MethodPost, "/retirements", "retire-keys", "Start withdrawing keys without a successor",
		func(ctx context.Context, who control.Actor, in *retireKeys) (started, error) {
			ids, err := keyIDs(in.Body.Keys)
			if err != nil {
				return started{}, err
			}
			run, err := d.plane.Retire(ctx, who, ids)
			return started{string(run)}, err
		})
}

func (d door) addKey(ctx context.Context, who control.Actor, in *newKey) (control.Relationship, error) {
	b := in.Body
	if !b.PrivateKey.given {
		if b.Passphrase != "" {
			return control.Relationship{}, trust.Errorf(trust.Invalid, "a passphrase is for a private key that is imported").WithField("passphrase")
		}
		if b.Type == "" {
			b.Type = "ed25519"
		}
		return d.plane.GenerateKey(ctx, who, control.KeySpec{Type: b.Type, Bits: b.Bits}, b.Comment, b.facts())
	}
	if b.Type != "" || b.Bits != 0 {
		return control.Relationship{}, trust.Errorf(trust.Invalid, "type and bits are for a key that is made; one that is imported has its own").WithField("type")
	}
	return d.plane.ImportKey(ctx, who, control.KeyFile{Text: []byte(b.PrivateKey.text), Passphrase: []byte(b.Passphrase), Comment: b.Comment, Facts: b.facts()})
}

func showKey(k control.Relationship) key {
	out := key{
		UUID: string(k.Key.ID), Kind: string(k.Key.Kind), Fingerprint: string(k.Key.Public.Fingerprint()), PublicKey: k.Key.Public.String(),
		Type: k.Key.Public.Type(), Bits: k.Key.Public.Bits(), Comment: k.Key.Comment, Owner: k.Key.Owner,
		Purpose: k.Key.Purpose, Labels: make([]string, len(k.Labels)), ExpiresAt: at(k.Key.ExpiresAt), RevealedAt: at(k.Key.RevealedAt),
		State: string(k.Key.State), Custody: string(k.Key.Custody), Compromised: k.Key.Compromised,
		Authorized: make([]authorized, len(k.Authorized)), Identities: make([]Place, len(k.Identities)),
		Replaces: texts(k.Replaces), ReplacedBy: texts(k.ReplacedBy), Supplied: string(k.Supplied),
		CreatedAt: at(k.Key.CreatedAt), LastRotatedAt: at(k.Key.LastRotatedAt), Findings: make([]finding, len(k.Findings)),
	}
	for i, l := range k.Labels {
		out.Labels[i] = l.String()
	}
	for i, p := range k.Authorized {
		out.Authorized[i] = authorized{Place{p.HostName, p.User, p.Path}, p.Options}
	}
	for i, p := range k.Identities {
		out.Identities[i] = Place{p.HostName, p.User, p.Path}
	}
	for i, f := range k.Findings {
		out.Findings[i] = showFinding(f)
	}
	return out
}
