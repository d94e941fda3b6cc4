package store

import (
	"context"
	"errors"

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

// explainContext returns gone(ctx) for an error that only says that ctx has
// ended, and any other as it is.
func explainContext(ctx context.Context, err error) error {
	var ours *trust.Error
	if err == nil || ctx.Err() == nil || errors.As(err, &ours) || !errors.Is(err, ctx.Err()) {
		return err
	}
	return gone(ctx)
}

// errClosed is what a transaction meets after Close.
var errClosed = trust.Errorf(trust.Unavailable, "database is closed")

// clip shortens a statement for an error message.
func clip(query string) string {
	if len(query) > 120 {
		return query[:117] + "..."
	}
	return query
}
