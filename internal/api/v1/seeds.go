package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

type seed struct {
	ID        string     `json:"seed_id" doc:"The seed that is presented, or will be at the end of the rotation that is under way"`
	Phase     string     `json:"phase" enum:"settled,present-old,present-new" doc:"Which keys are presented: in present-old those of the seed before, and then both are announced as in present-new"`
	Since     time.Time  `json:"since" doc:"When the phase began"`
	Until     *time.Time `json:"until,omitempty" doc:"When the next one may begin; absent if settled"`
	Run       string     `json:"run,omitempty" doc:"That begins it"`
	Presented string     `json:"presented" doc:"The seed whose keys are presented"`
	Announced []string   `json:"announced" doc:"The seeds whose keys are announced, the one that is presented first"`
	Queued    string     `json:"queued,omitempty" doc:"The seed whose rotation begins after the one that is under way"`
	Revoked   []string   `json:"revoked" doc:"The seeds whose keys are published as revoked"`
}

type rotateSeed struct {
	Body struct {
		Compromised bool `json:"compromised,omitempty" doc:"Somebody else may have the seed: present the new one at once, and revoke all others"`
	}
}

type seedRotation struct {
	Seed string `json:"seed_id"`
	Run  string `json:"run,omitempty" doc:"Absent where the seeds are compromised: that is done when it is answered"`
}

type hostIdentity struct {
	Host        string `json:"host,omitempty" doc:"Its name; absent for the gateway itself"`
	HostID      string `json:"host_id" doc:"Its id; of the gateway itself, the account's"`
	Name        string `json:"name" doc:"What known_hosts calls it, for HostKeyAlias"`
	Type        string `json:"type"`
	PublicKey   string `json:"public_key"`
	Fingerprint string `json:"fingerprint"`
	Seed        string `json:"seed_id"`
	Presented   bool   `json:"presented" doc:"Whether it is shown now; otherwise it is announced besides, or revoked"`
	Revoked     bool   `json:"revoked,omitempty"`
}

type hostIdentities struct {
	Keys []hostIdentity `json:"keys"`
	Next string         `json:"next,omitempty" doc:"Where the page after this one begins; absent on the last. A page has the keys of at most 100 hosts"`
}

type listIdentities struct {
	Paging
	Host string `query:"host" maxLength:"255" doc:"The name or id of one host"`
}

type knownHosts struct {
	Lines []string `json:"lines" doc:"Of a known_hosts file (sshd(8))"`
	Next  string   `json:"next,omitempty" doc:"Where the page after this one begins; absent on the last"`
}

type gatewayKnownHosts struct {
	Paging
	Host   string `query:"host" maxLength:"255" doc:"The name or id of one host"`
	Hashed bool   `query:"hashed" doc:"Whether names are hashed, as by HashKnownHosts. Patterns cannot be"`

	Authorities string `query:"authorities" enum:"too,only,none" default:"none" doc:"Whether there are lines with @cert-authority, for each authority that signs for hosts, and @revoked, for those that were removed: beside the keys, alone, or not. A client that has such a line learns no keys"`
	Revoked     bool   `query:"revoked" doc:"The keys of revoked seeds instead, a line for each, as RevokedHostKeys of ssh_config(5) reads them"`
}

type certifyHost struct {
	Body struct {
		Host      string `json:"host,omitempty" maxLength:"255" doc:"Its name or id; absent for the gateway itself"`
		Authority string `json:"authority,omitempty" maxLength:"100" doc:"The name or id of one that signs for hosts; may be absent where there is only one"`
	}
}

type hostCertificate struct {
	Host        string      `json:"host,omitempty" doc:"Its name; absent for the gateway itself"`
	HostID      string      `json:"host_id"`
	Name        string      `json:"name" doc:"What known_hosts calls it, which is the principal"`
	Seed        string      `json:"seed_id"`
	Presented   bool        `json:"presented" doc:"Whether the key is shown now; otherwise it is announced besides"`
	Type        string      `json:"type" doc:"Of the key"`
	Certificate certificate `json:"certificate"`
}

type hostCertificates struct {
	Certificates []hostCertificate `json:"certificates"`
}

type sshSettings struct {
	AuditKey  string    `json:"audit_key" doc:"The X25519 public key, in base64, that what is typed in sessions is encrypted to; empty for not recording that"`
	Seed      string    `json:"seed_id" doc:"The seed that was asked for last"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

type setSSHSettings struct {
	Body struct {
		AuditKey string `json:"audit_key" maxLength:"100" doc:"An X25519 public key in base64, or nothing"`
	}
}

func (d door) seedRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/seed", "show-seed", "Show what the gateway's host keys are derived from, and how its rotation stands",
		func(ctx context.Context, who control.Actor, _ *none) (seed, error) {
			s, err := d.plane.ShowSeed(ctx, who)
			return showSeed(s), err
		})
	operation(d, a, http.MethodPost, "/seed/rotate", "rotate-seed", "Start to rotate the seed",
		func(ctx context.Context, who control.Actor, in *rotateSeed) (seedRotation, error) {
			id, run, err := d.plane.RotateSeed(ctx, who, control.SeedRotation{Compromised: in.Body.Compromised})
			return seedRotation{string(id), string(run)}, err
		})
	operation(d, a, http.MethodGet, "/seed/keys", "list-host-identities", "List the host keys by which hosts are known at the gateway",
		func(ctx context.Context, who control.Actor, in *listIdentities) (hostIdentities, error) {
			list, next, err := d.plane.ListHostIdentities(ctx, who, in.Host, in.page())
			out := hostIdentities{Keys: make([]hostIdentity, len(list)), Next: next}
			for i, k := range list {
				out.Keys[i] = hostIdentity{
					Host: k.HostName, HostID: string(k.Host), Name: k.Name, Type: k.Key.Type(), PublicKey: k.Key.String(),
					Fingerprint: string(k.Key.Fingerprint()), Seed: string(k.Seed), Presented: k.Presented, Revoked: k.Revoked,
				}
			}
			return out, err
		})
	operation(d, a, http.MethodGet, "/known-hosts", "print-known-hosts", "List the same keys as lines of a known_hosts file, the authorities that sign for hosts, or the keys that are revoked",
		func(ctx context.Context, who control.Actor, in *gatewayKnownHosts) (knownHosts, error) {
			lines, next, err := d.plane.PrintKnownHosts(ctx, who, control.KnownHostsRequest{
				Host: in.Host, Hashed: in.Hashed, Authorities: control.AuthorityLines(in.Authorities), Revoked: in.Revoked,
			}, in.page())
			return knownHosts{Lines: append([]string{}, lines...), Next: next}, err
		})
	operation(d, a, http.MethodPost, "/seed/certificates", "certify-host", "Have host certificates for the keys by which a host is known at the gateway",
		func(ctx context.Context, who control.Actor, in *certifyHost) (hostCertificates, error) {
			list, err := d.plane.CertifyHost(ctx, who, in.Body.Host, in.Body.Authority)
			out := hostCertificates{Certificates: make([]hostCertificate, len(list))}
			for i, c := range list {
				out.Certificates[i] = hostCertificate{
					Host: c.HostName, HostID: string(c.Host), Name: c.Name, Seed: string(c.Seed), Presented: c.Presented,
					Type: c.Key.Type(), Certificate: showCertificate(c.Certificate, c.Signed),
				}
			}
			return out, err
		})
	operation(d, a, http.MethodGet, "/ssh-settings", "show-ssh-settings", "Show what sessions are recorded for, and the newest seed",
		func(ctx context.Context, who control.Actor, _ *none) (sshSettings, error) {
			s, err := d.plane.ShowSSHSettings(ctx, who)
			return showSSHSettings(s), err
		})
	operation(d, a, http.MethodPut, "/ssh-settings", "set-ssh-settings", "Say what sessions are recorded for",
		func(ctx context.Context, who control.Actor, in *setSSHSettings) (sshSettings, error) {
			s, err := d.plane.SetAuditKey(ctx, who, in.Body.AuditKey)
			return showSSHSettings(s), err
		})
}

func showSeed(s control.SeedStanding) seed {
	out := seed{
		ID: string(s.Comes()), Phase: string(s.Phase), Since: s.Since.UTC(), Until: at(s.Until), Run: string(s.Run),
		Presented: string(s.Present), Announced: []string{string(s.Present)}, Queued: string(s.Queued), Revoked: texts(s.Revoked),
	}
	if s.Besides != "" {
		out.Announced = append(out.Announced, string(s.Besides))
	}
	return out
}

func showSSHSettings(s control.SSHSettings) sshSettings {
	return sshSettings{AuditKey: s.AuditKey, Seed: string(s.Newest), CreatedAt: s.CreatedAt.UTC(), UpdatedAt: s.UpdatedAt.UTC()}
}
