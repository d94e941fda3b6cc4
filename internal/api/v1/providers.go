package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

type provider struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Kind      string     `json:"kind" enum:"people,machines"`
	Issuer    string     `json:"issuer"`
	ClientID  string     `json:"client_id,omitempty"`
	HasSecret bool       `json:"has_secret"`
	Redirect  string     `json:"redirect_uri,omitempty" doc:"Of people: to be registered at it, for any port"`
	Scopes    []string   `json:"scopes"`
	NameClaim string     `json:"name_claim,omitempty"`
	Audiences []string   `json:"audiences"`
	Rules     []string   `json:"rules" doc:"Each of the form claim=value -> Role"`
	Required  []string   `json:"required" doc:"Each of the form claim=value"`
	CreatedAt *time.Time `json:"created_at"`
}

type providers struct {
	Providers []provider `json:"providers"`
}

// ProviderBody is what its administrator says of a provider.
type ProviderBody struct {
	Kind      string   `json:"kind" enum:"people,machines"`
	Issuer    string   `json:"issuer" minLength:"1" maxLength:"2048" doc:"Its URL, https or on this machine"`
	ClientID  string   `json:"client_id,omitempty" maxLength:"500" doc:"Of people: what it knows Keyturn as"`
	Secret    string   `json:"client_secret,omitempty" maxLength:"500" doc:"Of people: never shown again; absent for a public client, or to keep the one that is there"`
	Scopes    []string `json:"scopes,omitempty" maxItems:"20" doc:"Of people: what it is asked for; openid, profile and email if absent"`
	NameClaim string   `json:"name_claim,omitempty" maxLength:"200" doc:"Of people: by which claim a new user is called; preferred_username if absent"`
	Audiences []string `json:"audiences,omitempty" maxItems:"20" doc:"Of machines: what their tokens are issued for"`
	Rules     []string `json:"rules" maxItems:"50" doc:"Each of the form claim=value -> Role. A claim that begins with / is a JSON pointer; of machines, a value may end in *"`
	Required  []string `json:"required,omitempty" maxItems:"50" doc:"Each of the form claim=value: what has to be there in any case"`
}

type newProvider struct {
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"64"`
		ProviderBody
	}
}

type setProvider struct {
	Provider string `path:"provider" maxLength:"100"`
	Body     ProviderBody
}

type byProvider struct {
	Provider string `path:"provider" maxLength:"100"`
}

type publishedProvider struct {
	Provider              provider `json:"provider"`
	AuthorizationEndpoint string   `json:"authorization_endpoint,omitempty"`
	TokenEndpoint         string   `json:"token_endpoint,omitempty"`
	DeviceEndpoint        string   `json:"device_endpoint,omitempty" doc:"Absent where people cannot log in at another device"`
	Algorithms            []string `json:"algorithms"`
	Keys                  int      `json:"keys" doc:"How many public keys it has"`
}

func (d door) providerRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/providers", "list-providers", "List identity providers",
		func(ctx context.Context, who control.Actor, _ *none) (providers, error) {
			list, err := d.plane.ListProviders(ctx, who)
			out := providers{Providers: make([]provider, len(list))}
			for i, p := range list {
				out.Providers[i] = showProvider(p)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/providers", "add-provider", "Add an identity provider",
		func(ctx context.Context, who control.Actor, in *newProvider) (provider, error) {
			n, err := in.Body.read(in.Body.Name)
			if err != nil {
				return provider{}, err
			}
			p, err := d.plane.AddProvider(ctx, who, n)
			return showProvider(p), err
		})
	operation(d, a, http.MethodPut, "/providers/{provider}", "set-provider", "Say anew what an identity provider's word is good for",
		func(ctx context.Context, who control.Actor, in *setProvider) (provider, error) {
			n, err := in.Body.read(in.Provider)
			if err != nil {
				return provider{}, err
			}
			p, err := d.plane.SetProvider(ctx, who, n)
			return showProvider(p), err
		})
	operation(d, a, http.MethodDelete, "/providers/{provider}", "remove-provider", "Remove an identity provider with its users and all logins by it",
		func(ctx context.Context, who control.Actor, in *byProvider) (removed, error) {
			return removed{in.Provider}, d.plane.RemoveProvider(ctx, who, in.Provider)
		})
	operation(d, a, http.MethodPost, "/providers/{provider}/test", "test-provider", "Ask an identity provider what it publishes",
		func(ctx context.Context, who control.Actor, in *byProvider) (publishedProvider, error) {
			p, is, err := d.plane.TestProvider(ctx, who, in.Provider)
			return publishedProvider{
				Provider: showProvider(p), AuthorizationEndpoint: is.AuthorizationEndpoint, TokenEndpoint: is.TokenEndpoint,
				DeviceEndpoint: is.DeviceEndpoint, Algorithms: texts(is.Algorithms), Keys: is.Keys,
			}, err
		})
}

// read reads what is said of a provider.
func (b ProviderBody) read(name string) (control.NewProvider, error) {
	n := control.NewProvider{Secret: b.Secret, Provider: control.Provider{
		Name: name, Kind: control.ProviderKind(b.Kind), Issuer: b.Issuer, ClientID: b.ClientID,
		Scopes: b.Scopes, NameClaim: b.NameClaim, Audiences: b.Audiences,
	}}
	for _, text := range b.Rules {
		r, err := control.ParseClaimRule(text)
		if err != nil {
			return n, err
		}
		n.Rules = append(n.Rules, r)
	}
	for _, text := range b.Required {
		m, err := control.ParseClaimMatch(text)
		if err != nil {
			return n, err
		}
		n.Required = append(n.Required, m)
	}
	return n, nil
}

func showProvider(p control.Provider) provider {
	out := provider{
		ID: p.ID, Name: p.Name, Kind: string(p.Kind), Issuer: p.Issuer, ClientID: p.ClientID, HasSecret: p.HasSecret, Redirect: p.RedirectURI("http://127.0.0.1"),
		Scopes: texts(p.Scopes), NameClaim: p.NameClaim, Audiences: texts(p.Audiences), Rules: []string{}, Required: []string{}, CreatedAt: at(p.Created),
	}
	for _, r := range p.Rules {
		out.Rules = append(out.Rules, r.String())
	}
	for _, m := range p.Required {
		out.Required = append(out.Required, m.String())
	}
	return out
}
