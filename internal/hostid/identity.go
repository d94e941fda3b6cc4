package hostid

import (
	"crypto/rand"

	"github.com/google/uuid"

	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// An Identity is one key of a host at the gateway.
type Identity struct {
	Host trust.HostID
	// Name is the name under which known_hosts holds it.
	Name string
	Key  trust.PublicKey
	Seed trust.SeedID
	// Presented keys are what the gateway shows. Of those that are not, Revoked ones are
	// not to be accepted, and the others are announced besides.
	Presented, Revoked bool
}

// Alias returns the name under which known_hosts holds the gateway's keys of a host, and a
// client has as its HostKeyAlias. It is none that the host itself has: under a name that
// both share, a client that learns keys of the one forgets those of the other.
func Alias(tenant trust.TenantID, host trust.HostID) string {
	if host == Gateway(tenant) {
		return "gw." + string(tenant)
	}
	return string(host) + ".gw." + string(tenant)
}

// Gateway returns the id that stands for a tenant's gateway itself, where keys of hosts are
// derived: the tenant's, as a UUID.
func Gateway(tenant trust.TenantID) trust.HostID {
	id, err := uuid.Parse(string(tenant))
	if err != nil {
		return ""
	}
	return trust.HostID(id.String())
}

// Shown are the seeds of a tenant whose keys others have to know, opened.
type Shown struct {
	tenant   trust.TenantID
	standing Standing
	opened   map[trust.SeedID]keyring.Seed
}

// Open opens the seeds that are presented, announced and revoked.
func Open(tx *store.Tx, k *keyring.Keyring, seeds Seeds) (Shown, error) {
	s := Shown{tx.Tenant(), seeds.Standing(), map[trust.SeedID]keyring.Seed{}}
	for _, id := range s.standing.seeds() {
		var err error
		if s.opened[id], err = k.Seed(tx, id); err != nil {
			return Shown{}, err
		}
	}
	return s, nil
}

// seeds returns those that others have to know, the one that is presented first.
func (st Standing) seeds() []trust.SeedID {
	list := []trust.SeedID{st.Present}
	if st.Besides != "" {
		list = append(list, st.Besides)
	}
	return append(list, st.Revoked...)
}

// Identities returns the keys of a host at the gateway: those that are presented first,
// then those that are announced besides, then those that are revoked.
func (s Shown) Identities(host trust.HostID) (list []Identity, err error) {
	for _, id := range s.standing.seeds() {
		for _, algorithm := range keyring.SeedAlgorithms {
			signer, err := s.opened[id].HostKey(s.tenant, host, algorithm)
			if err != nil {
				return nil, err
			}
			list = append(list, Identity{
				Host: host, Name: Alias(s.tenant, host), Key: trust.PublicKeyOf(signer.PublicKey()), Seed: id,
				Presented: id == s.standing.Present, Revoked: id != s.standing.Present && id != s.standing.Besides,
			})
		}
	}
	return list, nil
}

// KnownHosts returns the line by which known_hosts holds the key, with the name hashed or
// not.
func (i Identity) KnownHosts(hashed bool) (string, error) {
	return trust.KnownHostText([]string{name(i.Name, hashed)}, i.Key, "")
}

// name returns a name as known_hosts holds it, hashed or not.
func name(plain string, hashed bool) string {
	if !hashed {
		return plain
	}
	var salt [20]byte
	rand.Read(salt[:])
	return trust.HashHostName(plain, salt)
}
