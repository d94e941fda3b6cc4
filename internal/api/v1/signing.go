package v1

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type usableKey struct {
	UUID        string `json:"uuid"`
	Fingerprint string `json:"fingerprint"`
	PublicKey   string `json:"public_key"`
	Type        string `json:"type"`
	Comment     string `json:"comment"`
	State       string `json:"state" enum:"active,rotated" doc:"A rotated key signs for as long as an account is known that accepts it"`
}

type usableKeys struct {
	Keys []usableKey `json:"keys"`
	Next string      `json:"next,omitempty"`
}

type listUsableKeys struct {
	Paging
	Key []string `query:"key" maxItems:"100" doc:"Only these, by UUID or fingerprint, and the keys that came in their place, in one page"`
}

type signWithKey struct {
	Key  string `path:"key" maxLength:"100" doc:"UUID or fingerprint"`
	Body struct {
		Data      []byte `json:"data" maxLength:"349528" doc:"The request of an SSH login (RFC 4252, section 7), or a message as PROTOCOL.sshsig has it; nothing else is signed. At most 256 KiB, in base64"`
		Algorithm string `json:"algorithm,omitempty" maxLength:"64" doc:"Of the signature: for RSA rsa-sha2-512, which it is if absent, or rsa-sha2-256"`
		HostKey   string `json:"host_key,omitempty" maxLength:"50" pattern:"^SHA256:[A-Za-z0-9+/]{43}$" doc:"Fingerprint of the key of the server that the login is for, where the data does not say"`
		Forwarded bool   `json:"forwarded,omitempty" doc:"The request came over a forwarded agent"`
	}
}

type signature struct {
	Format string `json:"format" doc:"As in RFC 4253, section 6.6"`
	Blob   []byte `json:"blob" doc:"In base64"`
}

type keyUsers struct {
	Limited bool     `json:"limited" doc:"Only the users may use the key; else everybody with the permission Keys Use"`
	Users   []string `json:"users" doc:"By name; a user who is gone by id"`
}

type setKeyUsers struct {
	Key  string `path:"key" maxLength:"100" doc:"UUID or fingerprint"`
	Body struct {
		Allow     []string `json:"allow,omitempty" maxItems:"100" doc:"Users by name or id; the first limits the key to those who are allowed"`
		Disallow  []string `json:"disallow,omitempty" maxItems:"100"`
		Everybody bool     `json:"everybody,omitempty" doc:"Lift the limit"`
	}
}

func (d door) signingRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/agent/keys", "list-usable-keys", "List the keys that the server signs with for who asks",
		func(ctx context.Context, who control.Actor, in *listUsableKeys) (usableKeys, error) {
			list, next, err := d.plane.ListUsableKeys(ctx, who, in.Key, in.page())
			out := usableKeys{Keys: make([]usableKey, len(list)), Next: next}
			for i, k := range list {
				out.Keys[i] = usableKey{
					UUID: string(k.ID), Fingerprint: string(k.Public.Fingerprint()), PublicKey: k.Public.String(),
					Type: k.Public.Type(), Comment: k.Comment, State: string(k.State),
				}
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/keys/{key}/signatures", "sign-with-key", "Sign with a key that Keyturn holds, which stays where it is",
		func(ctx context.Context, who control.Actor, in *signWithKey) (signature, error) {
			s, err := d.plane.SignWithKey(ctx, who, control.Sign{
				Key: in.Key, Data: in.Body.Data, Algorithm: in.Body.Algorithm, HostKey: trust.Fingerprint(in.Body.HostKey), Forwarded: in.Body.Forwarded,
			})
			return signature(s), err
		})
	operation(d, a, http.MethodGet, "/keys/{key}/users", "list-key-users", "Show who may use a key",
		func(ctx context.Context, who control.Actor, in *ByKey) (keyUsers, error) {
			u, err := d.plane.ListKeyUsers(ctx, who, in.Key)
			return keyUsers{u.Limited, texts(u.Users)}, err
		})
	operation(d, a, http.MethodPost, "/keys/{key}/users", "set-key-users", "Limit a key to some users, or lift the limit",
		func(ctx context.Context, who control.Actor, in *setKeyUsers) (keyUsers, error) {
			u, err := d.plane.SetKeyUsers(ctx, who, in.Key, control.SetKeyUsers{Allow: in.Body.Allow, Disallow: in.Body.Disallow, Everybody: in.Body.Everybody})
			return keyUsers{u.Limited, texts(u.Users)}, err
		})
}
