package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// show prints a value: as JSON where that was asked for, else by text.
func show(cmd *cobra.Command, v any, text func(io.Writer) error) error {
	if asJSON(cmd) {
		return printJSON(cmd.OutOrStdout(), v)
	}
	return text(cmd.OutOrStdout())
}

// showLine shows v to people as a line of text.
func showLine(cmd *cobra.Command, v any, format string, args ...any) error {
	return show(cmd, v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, format, args...)
		return err
	})
}

// showTable shows a list to people as a table with a row for each entry.
func showTable[T any](cmd *cobra.Command, list []T, header string, row func(T) []string) error {
	return show(cmd, list, func(w io.Writer) error {
		rows := make([][]string, len(list))
		for i, entry := range list {
			rows[i] = row(entry)
		}
		return table(w, header, rows)
	})
}

func asJSON(cmd *cobra.Command) bool {
	v, err := cmd.Flags().GetBool("json")
	return err == nil && v
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints rows under a header, in columns. Cells come from the server and
// from hosts: what a terminal would act on is taken out.
func table(w io.Writer, header string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if _, err := fmt.Fprintln(t, strings.ReplaceAll(header, " ", "\t")); err != nil {
		return err
	}
	for _, r := range rows {
		for i := range r {
			if r[i] = plain(r[i]); r[i] == "" {
				r[i] = "-"
			}
		}
		if _, err := fmt.Fprintln(t, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// plain takes control characters out of text that others wrote.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}

// fields prints names and values, one pair a line; empty values are left out.
func fields(w io.Writer, pairs ...string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(t, "%s\t%s\n", pairs[i], plain(pairs[i+1])); err != nil {
			return err
		}
	}
	return t.Flush()
}

// when prints a time for people.
func when(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// terminal returns standard error where it is a terminal that shows progress,
// or nil.
func terminal(cmd *cobra.Command) *os.File {
	f, ok := cmd.ErrOrStderr().(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || asJSON(cmd) {
		return nil
	}
	return f
}
