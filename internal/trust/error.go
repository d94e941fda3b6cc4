package trust

import (
	"errors"
	"fmt"
)

// A Kind says what a caller can do about an error. Front doors map kinds to
// their protocol's statuses, each in one table.
type Kind int

const (
	// Internal is the kind of every error that is not an *Error: a fault of
	// ours, of which a caller is told nothing more.
	Internal Kind = iota
	// Invalid is a request that can never work as it stands.
	Invalid
	// Unauthenticated is a request without a credential that holds.
	Unauthenticated
	// Denied is a request that its actor may not make.
	Denied
	// NotFound is a request about something that is not there, or not there
	// for this actor.
	NotFound
	// Conflict is a request that the present state does not allow.
	Conflict
	// Exhausted is a request beyond a limit: of size, count, rate or attempts.
	Exhausted
	// Unavailable is a request that may work later: a host that does not
	// answer, a database that is away. Steps that meet it are tried again.
	Unavailable
)

// String returns the kind in lower case, as logs and api/v1 write it.
func (k Kind) String() string {
	switch k {
	case Invalid:
		return "invalid"
	case Unauthenticated:
		return "unauthenticated"
	case Denied:
		return "denied"
	case NotFound:
		return "not found"
	case Conflict:
		return "conflict"
	case Exhausted:
		return "exhausted"
	case Unavailable:
		return "unavailable"
	}
	return "internal"
}

// An Error is an error that its reader can act on. Message names the thing
// concerned, in lower case and without a full stop; Hint, where there is one,
// is the next thing to do, such as a command to run.
type Error struct {
	Kind    Kind
	Message string
	Hint    string
	// Field is the part of the request that is at fault, by its wire name,
	// where Kind is Invalid and one part is.
	Field string
	// Err is the cause, for errors.Is and errors.As; Message already says
	// of it what a reader should know.
	Err error
}

func (e *Error) Error() string {
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an *Error of the given kind. A %w verb sets its cause.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint returns a copy of e with the next thing to do.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithField returns a copy of e that blames one part of the request.
func (e *Error) WithField(name string) *Error {
	c := *e
	c.Field = name
	return &c
}

// KindOf returns the kind of the first *Error in err's tree, or Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
