package store

import (
	"context"
	"errors"
	"fmt"

	"keyturn/internal/trust"
)

// gone returns why the caller of a transaction does not wait any longer:
// Unavailable, with context.Canceled or context.DeadlineExceeded and the cause
// that the context carries in its tree.
func gone(ctx context.Context) error {
	cause := context.Cause(ctx)
	var e *trust.Error
	if errors.As(cause, &e) {
		return cause
	}
	if !errors.Is(cause, ctx.Err()) {
		cause = errors.Join(cause, ctx.Err())
	}
	return trust.Errorf(trust.Unavailable, "database: %w", cause)
}

// explain returns gone(ctx) for an error that only says that ctx has ended, and
// any other as the engine explains it.
func explain(ctx context.Context, err error, engine func(error) error) error {
	var ours *trust.Error
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) && !errors.As(err, &ours) {
		return gone(ctx)
	}
	return engine(err)
}

// errClosed is what a transaction meets after Close.
var errClosed = trust.Errorf(trust.Unavailable, "database is closed")

// errReadOnly is what a statement that writes meets in a View.
const errReadOnly = "database: a View cannot change anything"

// located says which database an error is about, and keeps its kind and hint.
func located(database string, err error) error {
	var ours *trust.Error
	if !errors.As(err, &ours) {
		return fmt.Errorf("%s: %w", database, err)
	}
	e := *ours
	e.Message, e.Err = database+": "+err.Error(), err
	return &e
}

// clip shortens a statement for an error message.
func clip(query string) string {
	if len(query) > 120 {
		return query[:117] + "..."
	}
	return query
}
