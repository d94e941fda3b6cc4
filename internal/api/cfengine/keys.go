package cfengine

import (
	"net/http"
	"strconv"
	"time"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// What every key is that this dialect makes.
const (
	keyType    = "rsa"
	keyBits    = 4096
	keyComment = "generated-by-cfengine-ssh-api"
)

// A generatedKey is the answer to the call that makes one.
type generatedKey struct {
	ID        int64  `json:"id"`
	PublicKey string `json:"public_key"`
}

// An sshKey is a key as it is listed.
type sshKey struct {
	ID          int64  `json:"id"`
	PublicKey   string `json:"public_key"`
	GeneratedBy string `json:"generated_by"`
	GeneratedAt string `json:"generated_at"`
}

func (d door) generate(r *http.Request, a control.Actor) (any, error) {
	k, err := d.plane.GenerateNumberedKey(r.Context(), a, control.KeySpec{Type: keyType, Bits: keyBits}, keyComment)
	if err != nil {
		return nil, err
	}
	return generatedKey{ID: k.Number, PublicKey: line(k)}, nil
}

func (d door) list(r *http.Request, a control.Actor) (any, error) {
	keys, err := d.plane.ListNumberedKeys(r.Context(), a)
	if err != nil {
		return nil, err
	}
	list := make([]sshKey, len(keys)) // never null
	for i, k := range keys {
		list[i] = showKey(k)
	}
	return list, nil
}

func (d door) show(r *http.Request, a control.Actor) (any, error) {
	id, err := number(r)
	if err != nil {
		return nil, err
	}
	k, err := d.plane.ShowNumberedKey(r.Context(), a, id)
	if err != nil {
		return nil, err
	}
	return showKey(k), nil
}

func (d door) delete(r *http.Request, a control.Actor) (any, error) {
	id, err := number(r)
	if err != nil {
		return nil, err
	}
	return nil, d.plane.DeleteNumberedKey(r.Context(), a, id)
}

// number reads the id in a request's path. What no key can have is not found.
func number(r *http.Request) (int64, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 63)
	if err != nil {
		return 0, trust.Errorf(trust.NotFound, "the id is not a number")
	}
	return int64(id), nil
}

func showKey(k control.NumberedKey) sshKey {
	return sshKey{ID: k.Number, PublicKey: line(k), GeneratedBy: k.By, GeneratedAt: timestamp(k.CreatedAt)}
}

// line returns the public half as a line of authorized_keys.
func line(k control.NumberedKey) string { return k.Public.String() + " " + k.Comment }

// timestamp writes a time as PostgreSQL writes a timestamptz in UTC: microseconds,
// without zeros at their end, and without a point where nothing is left.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999-07") }
