package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"keyturn/internal/trust"
)

// This file holds how a command follows a run.

// watch follows a run until it ends or is held, with progress on a terminal. Where there
// is none, nor JSON wanted, it says for what the run waits when that begins, once a row.
func (c *client) watch(cmd *cobra.Command, id string) (runJSON, error) {
	tty := terminal(cmd)
	said, asked, waited := false, false, map[string]bool{}
	r, err := c.watchEach(cmd.Context(), id, func(r runJSON) error {
		if r.ApproveBy != nil && !asked {
			asked = true
			fmt.Fprintln(cmd.ErrOrStderr(), awaiting(r))
		}
		if tty == nil {
			if at := r.Direction + r.Row; r.State == "waiting" && r.ApproveBy == nil && !waited[at] && !asJSON(cmd) {
				waited[at] = true
				fmt.Fprintf(cmd.ErrOrStderr(), "run %s waits: %s\n", r.Run, plain(r.Reason))
			}
			return nil
		}
		if r.Until != nil && !said && r.Procedure == "rotate" {
			said = true
			fmt.Fprintf(tty, "\r\033[KThe old key stays valid until %s at least. You may leave: the server goes on.\n", when(r.Until))
		}
		_, err := fmt.Fprintf(tty, "\r\033[K%s", progress(r))
		return err
	})
	if tty != nil {
		fmt.Fprintf(tty, "\r\033[K")
	}
	return r, err
}

// watchEach calls each with a run whenever it changed, until it ends or is held.
// A server that is started again meanwhile is waited for: the run goes on. So it does
// when ctx ends, and the error says so.
func (c *client) watchEach(ctx context.Context, id string, each func(runJSON) error) (r runJSON, err error) {
	const patience = time.Minute
	since, why, lost := int64(0), "", time.Time{}
	for {
		err := c.call(ctx, http.MethodGet, fmt.Sprintf("/runs/%s?wait=20s&since=%d", url.PathEscape(id), since), nil, &r)
		if trust.KindOf(err) == trust.Unavailable && ctx.Err() == nil {
			if lost.IsZero() {
				lost = time.Now()
			}
			if time.Since(lost) > patience {
				return r, err
			}
			if err := pause(ctx, 200*time.Millisecond); err != nil {
				return r, left(ctx, id, err)
			}
			continue
		}
		if err != nil {
			return r, left(ctx, id, err)
		}
		lost = time.Time{}
		if r.Revision != since || r.Reason != why {
			since, why = r.Revision, r.Reason
			if err := each(r); err != nil {
				return r, err
			}
		}
		if r.ended() || r.State == "held" || r.State == "paused" {
			return r, nil
		}
	}
}

// left is err, of a command that followed a run. One that was interrupted says that
// the run was not.
func left(ctx context.Context, id string, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return trust.Errorf(trust.Unavailable, "%w; run %s goes on without this command", context.Cause(ctx), id).WithHint("keyturn run watch %s", id)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// awaiting says what a run waits for that has to be approved.
func awaiting(r runJSON) string {
	return fmt.Sprintf("run %s waits for approval by another user, until %s: keyturn run approve %s", r.Run, when(r.ApproveBy), r.Run)
}

// progress is one line about a run.
func progress(r runJSON) string {
	line := r.State
	if r.Direction == "back" {
		line += ", going back"
	}
	for _, x := range r.Rows {
		if x.Name == r.Row {
			line += fmt.Sprintf("  %s %d/%d", x.Name, x.Done, x.Places)
		}
	}
	if r.Reason != "" {
		line += "  " + plain(r.Reason)
	}
	return line
}
