package control

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"time"

	"keyturn/internal/identity"
	"keyturn/internal/rotation"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Setting is something that a tenant can choose, of which there is always a
// value that is safe.
type Setting struct {
	Name    string
	Value   string // as it is now
	Default string
	Meaning string
	// ChangedAt is when it was last set, or zero.
	ChangedAt time.Time
	check     func(string) error
}

// The names of settings. To add one, add it here and to settings, and read it
// where it counts.
const (
	rotationSoak     = "rotation.soak"
	rotationProof    = "rotation.proof"
	rotationCanary   = "rotation.canary"
	rotationWave     = "rotation.wave"
	archiveRetention = "archive.retention"
	scanInterval     = "scan.interval"
	rotationApproval = "rotation.approval"
	keysRSAPool      = "keys.rsa-pool"
	revealApproval   = "key.reveal-approval"
	seedOverlap      = "seed.overlap"
	gatewayLease     = "gateway.lease"
	auditKey         = "session.audit-key"
	caOverlap        = "ca.overlap"
)

// The values of settings that are either.
const (
	on  = "on"
	off = "off"
)

// settings is every setting, in the order in which they are listed.
var settings = []Setting{
	{
		Name: rotationSoak, Default: "1h", check: durationBetween(0, 366*24*time.Hour),
		Meaning: "how long a rotation leaves old and new key both accepted before it withdraws the old one; 0s for not at all",
	},
	{
		Name: rotationProof, Default: string(rotation.Login), check: func(v string) error { _, err := rotation.ParseLevel(v); return err },
		Meaning: "the lowest proof of a new key that a rotation goes on with: written, matched, login-here or login; a key that is restricted to sources we cannot use, or that its owner made, is always enough at matched",
	},
	{
		Name: rotationCanary, Default: "1", check: numberBetween(0, 10_000),
		Meaning: "how many places a rotation does first, all the way to the proof, before it goes on to the others",
	},
	{
		Name: rotationWave, Default: "50", check: numberBetween(0, 100_000),
		Meaning: "how many places at a time a rotation goes on with after the canary; 0 for all the rest at once",
	},
	{
		Name: archiveRetention, Default: "720h", check: durationBetween(time.Hour, 10*366*24*time.Hour),
		Meaning: "how long the private halves of rotated keys, and what lay where, are kept for going back; then they are destroyed",
	},
	{
		Name: scanInterval, Default: "0s", check: neverOrBetween(10*time.Minute, 366*24*time.Hour),
		Meaning: "how often all hosts are scanned without being asked, 10m or more; 0s for never",
	},
	{
		Name: rotationApproval, Default: off, check: onOrOff,
		Meaning: "whether a rotation or retirement begins only when another user has approved, within 7 days: on or off; of going back only rollback --force waits; that it is switched off has to be approved too",
	},
	{
		Name: keysRSAPool, Default: "4", check: numberBetween(0, 64),
		Meaning: "how many RSA keys of 4096 bits are kept ready, sealed, once somebody has asked for one: they are made when there is nothing else to do, and handed out at once; 0 for none",
	},
	{
		Name: revealApproval, Default: off, check: onOrOff,
		Meaning: "whether another user has to approve that a private key is revealed, to one user, once, within an hour: on or off; that it is switched off has to be approved too",
	},
	{
		Name: seedOverlap, Default: "168h", check: durationBetween(time.Second, 366*24*time.Hour),
		Meaning: "how long each phase of a seed's rotation lasts: who connects to a host through the gateway in this time is not warned of its new key; longer than gateway.lease",
	},
	{
		Name: gatewayLease, Default: "60s", check: durationBetween(0, 24*time.Hour),
		Meaning: "how long a node of the gateway goes on by what it was told last, when it cannot ask; shorter than seed.overlap",
	},
	{
		Name: auditKey, Default: "", check: checkAuditKey,
		Meaning: "the X25519 public key, in base64, that what is typed in sessions is encrypted to, so that only its holder can read it; nothing for not recording that",
	},
	{
		Name: caOverlap, Default: "24h", check: durationBetween(0, maxOverlap),
		Meaning: "how long hosts have to trust the next key of a certificate authority before it signs, and at least the one before after that; 0s for at once",
	},
}

func durationBetween(least, most time.Duration) func(string) error {
	return func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < least || d > most {
			return trust.Errorf(trust.Invalid, "%q is not a duration between %s and %s, such as 90s, 15m or 24h", clip(v), least, most).WithField("value")
		}
		return nil
	}
}

// neverOrBetween is durationBetween for what a duration of 0 turns off.
func neverOrBetween(least, most time.Duration) func(string) error {
	return func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d != 0 && (d < least || d > most) {
			return trust.Errorf(trust.Invalid, "%q is neither 0s, for never, nor a duration between %s and %s", clip(v), least, most).WithField("value")
		}
		return nil
	}
}

func onOrOff(v string) error {
	if v != on && v != off {
		return trust.Errorf(trust.Invalid, "%q is neither on nor off", clip(v)).WithField("value")
	}
	return nil
}

func numberBetween(least, most int) func(string) error {
	return func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > most {
			return trust.Errorf(trust.Invalid, "%q is not a whole number between %d and %d", clip(v), least, most).WithField("value")
		}
		return nil
	}
}

// ListSettings lists every setting.
func (p *Plane) ListSettings(ctx context.Context, actor identity.Actor) (list []Setting, err error) {
	err = p.view(ctx, actor, identity.SettingsRead, func(tx *store.Tx) error {
		list = slices.Clone(settings)
		for i := range list {
			list[i].Value, list[i].ChangedAt, err = setting(tx, list[i].Name)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

// SetSetting changes a setting, and returns it as it is now. Runs that have
// begun keep what they were planned with.
func (p *Plane) SetSetting(ctx context.Context, actor identity.Actor, name, value string) (s Setting, err error) {
	if err := require(actor, identity.SettingsWrite); err != nil {
		return Setting{}, err
	}
	i := slices.IndexFunc(settings, func(s Setting) bool { return s.Name == name })
	if i < 0 {
		return Setting{}, trust.Errorf(trust.NotFound, "there is no setting %q", clip(name)).WithHint("keyturn settings list")
	}
	if err := settings[i].check(value); err != nil {
		return Setting{}, trust.Errorf(trust.Invalid, "setting %s: %w", name, err).WithField("value").
			WithHint("keyturn settings list says what it means; keyturn settings set %s %s is the default", name, settings[i].Default)
	}
	alone := true
	err = p.update(ctx, actor, needs(identity.SettingsWrite), "setting.set", "setting:"+name, func(tx *store.Tx) error {
		old, _, err := setting(tx, name)
		if err != nil {
			return err
		}
		if alone = value != off || old != on; !alone {
			return errApproval
		}
		s, err = p.set(tx, actor, name, value)
		return err
	})
	if !alone {
		return s, p.askForSetting(ctx, actor, name, value)
	}
	return s, p.wake(err)
}

// set writes a setting, as the commit of a verb.
func (p *Plane) set(tx *store.Tx, actor identity.Actor, name, value string) (s Setting, err error) {
	old, _, err := setting(tx, name)
	if err != nil {
		return s, err
	}
	tx.Note("from", old)
	tx.Note("to", value)
	s = settings[slices.IndexFunc(settings, func(s Setting) bool { return s.Name == name })]
	s.Value, s.ChangedAt = value, tx.Now()
	if err := putSetting(tx, name, value); err != nil {
		return s, err
	}
	switch name {
	case scanInterval:
		err = p.scheduleScans(tx, actor, value)
	case keysRSAPool:
		err = p.dropReady(tx)
	case seedOverlap, gatewayLease:
		err = p.checkOverlap(tx, name)
	}
	return s, err
}

// dropReady destroys the keys that lie ready beyond what the setting says now.
func (p *Plane) dropReady(tx *store.Tx) error {
	most, err := numberSetting(tx, keysRSAPool)
	if err != nil {
		return err
	}
	return p.keyring.Drop(tx, most)
}

// Stock keeps RSA keys ready, as the setting says, until ctx ends. What goes wrong it
// tells failed, and tries again.
func (p *Plane) Stock(ctx context.Context, failed func(error)) {
	p.keyring.Stock(ctx, func(tx *store.Tx) (int, error) { return numberSetting(tx, keysRSAPool) }, failed)
}

// askForSetting asks for approval of what one user cannot switch off alone.
func (p *Plane) askForSetting(ctx context.Context, actor identity.Actor, name, value string) error {
	var a Approval
	err := p.update(ctx, actor, needs(identity.SettingsWrite), "approval.ask", "setting:"+name, func(tx *store.Tx) (err error) {
		a, err = ask(tx, actor, "setting:"+name, value, tx.Now().Add(requestLapses))
		return err
	})
	if err != nil {
		return err
	}
	return trust.Errorf(trust.Conflict, "%s stays on until another user approves that it goes off, which was asked for until %s", name, a.Until.Format(time.RFC3339)).
		WithHint("keyturn settings approve %s, by another user", name)
}

// setting returns the value of a setting that is in the table above.
func setting(tx *store.Tx, name string) (value string, changed time.Time, err error) {
	var at int64
	err = tx.QueryRow(sqlSetting, string(tx.Tenant()), name).Scan(&value, &at)
	if errors.Is(err, sql.ErrNoRows) {
		i := slices.IndexFunc(settings, func(s Setting) bool { return s.Name == name })
		return settings[i].Default, time.Time{}, nil
	}
	return value, store.Time(at), err
}

func durationSetting(tx *store.Tx, name string) (time.Duration, error) {
	v, _, err := setting(tx, name)
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(v)
}

func numberSetting(tx *store.Tx, name string) (int, error) {
	v, _, err := setting(tx, name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(v)
}

func putSetting(tx *store.Tx, name, value string) error {
	n, err := tx.Exec(sqlUpdateSetting, string(tx.Tenant()), name, value, store.Micros(tx.Now()))
	if err == nil && n == 0 {
		_, err = tx.Exec(sqlInsertSetting, string(tx.Tenant()), name, value, store.Micros(tx.Now()))
	}
	return err
}

// clip shortens what a caller sent for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
