package control

import (
	"context"
	"strconv"
	"strings"

	"keyturn/internal/identity"
	"keyturn/internal/store"
)

// ListUsers lists the tenant's users by name.
func (p *Plane) ListUsers(ctx context.Context, actor identity.Actor) (list []identity.User, err error) {
	err = p.view(ctx, actor, identity.UsersRead, func(tx *store.Tx) error {
		list, err = p.directory.Users(tx)
		return err
	})
	return list, err
}

// ShowUser returns the user of an id or name.
func (p *Plane) ShowUser(ctx context.Context, actor identity.Actor, idOrName string) (u identity.User, err error) {
	err = p.view(ctx, actor, identity.UsersRead, func(tx *store.Tx) error {
		u, err = p.directory.User(tx, idOrName)
		return err
	})
	return u, err
}

// A NewUser is what AddUser makes a user of.
type NewUser struct {
	Name     string
	Email    string // "" for none
	Password string // empty for a user who cannot log in with one
	Rights   Rights
}

// AddUser adds a user who may do no more than the actor may. One with an address takes
// an actor who may change policies, which go by it.
func (p *Plane) AddUser(ctx context.Context, actor identity.Actor, n NewUser) (u identity.User, err error) {
	if err := require(actor, identity.UsersWrite); err != nil {
		return u, err
	}
	if n.Email != "" {
		if err := require(actor, identity.AppsWrite); err != nil {
			return u, err
		}
	}
	hash, err := p.hash(ctx, n.Password)
	if err != nil {
		return u, err
	}
	err = p.update(ctx, actor, needs(identity.UsersWrite), "user.add", "user:"+subject(n.Name), func(tx *store.Tx) error {
		u, err = p.directory.AddUser(tx, actor, identity.NewUser{Name: n.Name, Email: n.Email, Password: hash, Rights: n.Rights})
		if err != nil {
			return err
		}
		tx.Note("id", u.ID)
		noteRights(tx, u.Rights)
		return nil
	})
	return u, err
}

// SetUserRights says anew what a user may do.
func (p *Plane) SetUserRights(ctx context.Context, actor identity.Actor, idOrName string, r Rights) (u identity.User, err error) {
	err = p.update(ctx, actor, needs(identity.UsersWrite), "user.set", "user:"+subject(idOrName), func(tx *store.Tx) error {
		if u, err = p.directory.User(tx, idOrName); err != nil {
			return err
		}
		if err := p.directory.SetRights(tx, actor, u.ID, r); err != nil {
			return err
		}
		u, err = p.directory.User(tx, u.ID)
		noteRights(tx, u.Rights)
		return err
	})
	return u, err
}

// SetUserEmail gives a user of our own another address, or none.
func (p *Plane) SetUserEmail(ctx context.Context, actor identity.Actor, idOrName, address string) (u identity.User, err error) {
	err = p.update(ctx, actor, needs(identity.UsersWrite, identity.AppsWrite), "user.email", "user:"+subject(idOrName), func(tx *store.Tx) error {
		if u, err = p.directory.User(tx, idOrName); err != nil {
			return err
		}
		if err := p.directory.SetEmail(tx, actor, u.ID, address); err != nil {
			return err
		}
		u, err = p.directory.User(tx, u.ID)
		return err
	})
	return u, err
}

// SetUserPassword gives a user another password, or none, and ends the user's web
// logins. Users may set their own.
func (p *Plane) SetUserPassword(ctx context.Context, actor identity.Actor, idOrName, password string) (u identity.User, err error) {
	if !namesActor(actor, idOrName) {
		if err := require(actor, identity.UsersWrite, identity.AppsWrite); err != nil {
			return u, err
		}
	}
	hash, err := p.hash(ctx, password)
	if err != nil {
		return u, err
	}
	err = p.update(ctx, actor, nil, "user.password", "user:"+subject(idOrName), func(tx *store.Tx) error {
		if u, err = p.directory.User(tx, idOrName); err != nil {
			return err
		}
		if err := requireOver(actor, u.ID); err != nil {
			return err
		}
		if err := p.directory.SetPassword(tx, actor, u.ID, hash); err != nil {
			return err
		}
		u, err = p.directory.User(tx, u.ID)
		return err
	})
	return u, err
}

// RemoveUser removes a user with the user's tokens, and ends the user's web logins.
func (p *Plane) RemoveUser(ctx context.Context, actor identity.Actor, idOrName string) error {
	return p.update(ctx, actor, needs(identity.UsersWrite), "user.remove", "user:"+subject(idOrName), func(tx *store.Tx) error {
		u, err := p.directory.User(tx, idOrName)
		if err != nil {
			return err
		}
		tx.Note("id", u.ID)
		if err := p.directory.RemoveUser(tx, actor, u.ID); err != nil {
			return err
		}
		return p.revokeOf(tx, "the user was removed", u)
	})
}

// revokeOf revokes the certificates of users who are removed, which hosts would take
// until they end.
func (p *Plane) revokeOf(tx *store.Tx, reason string, users ...identity.User) error {
	revoked := 0
	for _, u := range users {
		n, err := p.authorities.RevokePerson(tx, u.ID, reason)
		if err != nil {
			return err
		}
		revoked += n
	}
	tx.Note("certificates", strconv.Itoa(revoked))
	return nil
}

// hash returns a password as it is stored; of none, that of a user who has none.
func (p *Plane) hash(ctx context.Context, password string) (identity.PasswordHash, error) {
	if password == "" {
		return identity.PasswordHash{}, nil
	}
	return p.directory.HashPassword(ctx, password)
}

func noteRights(tx *store.Tx, r identity.Rights) {
	tx.Note("permissions", join(r.Permissions))
	tx.Note("roles", strings.Join(r.Roles, ", "))
}

func join(list []identity.Permission) string {
	var names []string
	for _, p := range list {
		names = append(names, string(p))
	}
	return strings.Join(names, ", ")
}

// ListRoles lists the roles that users can have.
func (p *Plane) ListRoles(ctx context.Context, actor identity.Actor) (list []identity.Role, err error) {
	err = p.view(ctx, actor, identity.UsersRead, func(tx *store.Tx) error {
		list, err = p.directory.Roles(tx)
		return err
	})
	return list, err
}

// SetRole makes a role, or changes what it and all who have it may do.
func (p *Plane) SetRole(ctx context.Context, actor identity.Actor, name string, list []identity.Permission) (r identity.Role, err error) {
	err = p.update(ctx, actor, needs(identity.UsersWrite), "role.set", "role:"+subject(name), func(tx *store.Tx) error {
		tx.Note("permissions", join(list))
		r, err = p.directory.SetRole(tx, actor, name, list)
		return err
	})
	return r, err
}

// RemoveRole removes a role that nobody has.
func (p *Plane) RemoveRole(ctx context.Context, actor identity.Actor, name string) error {
	return p.update(ctx, actor, needs(identity.UsersWrite), "role.remove", "role:"+subject(name), func(tx *store.Tx) error {
		return p.directory.RemoveRole(tx, actor, name)
	})
}

// OfferTOTP makes a second factor for the actor, a user in person. It counts once
// ConfirmTOTP has seen a code of it.
func (p *Plane) OfferTOTP(ctx context.Context, actor identity.Actor) (t identity.TOTP, err error) {
	err = p.update(ctx, actor, nil, "user.totp-offer", "user:"+subject(actor.ID), func(tx *store.Tx) error {
		t, err = p.directory.OfferTOTP(tx, actor)
		return err
	})
	return t, err
}

// ConfirmTOTP has the second factor that was offered to the actor count.
func (p *Plane) ConfirmTOTP(ctx context.Context, actor identity.Actor, code string) error {
	return p.update(ctx, actor, nil, "user.totp-confirm", "user:"+subject(actor.ID), func(tx *store.Tx) error {
		return p.directory.ConfirmTOTP(tx, actor, code)
	})
}

// RemoveTOTP takes a user's second factor away. Users may take away their own.
func (p *Plane) RemoveTOTP(ctx context.Context, actor identity.Actor, idOrName string) (u identity.User, err error) {
	if !namesActor(actor, idOrName) {
		if err := require(actor, identity.UsersWrite, identity.AppsWrite); err != nil {
			return u, err
		}
	}
	err = p.update(ctx, actor, nil, "user.totp-remove", "user:"+subject(idOrName), func(tx *store.Tx) error {
		if u, err = p.directory.User(tx, idOrName); err != nil {
			return err
		}
		if err := requireOver(actor, u.ID); err != nil {
			return err
		}
		if err := p.directory.RemoveTOTP(tx, actor, u.ID); err != nil {
			return err
		}
		u, err = p.directory.User(tx, u.ID)
		return err
	})
	return u, err
}

// requireOver refuses an actor who is neither the user of an id, in person, nor may
// write users.
func requireOver(actor identity.Actor, id string) error {
	if actor.Kind == "user" && id == actor.ID {
		return nil
	}
	return actor.Require(identity.UsersWrite)
}

// namesActor reports whether an actor may have meant itself by an id or name. Whom that
// is of is known once it was looked up: a name may be what another's id is.
func namesActor(actor identity.Actor, idOrName string) bool {
	return actor.Kind == "user" && (idOrName == actor.ID || strings.EqualFold(idOrName, actor.Name))
}
