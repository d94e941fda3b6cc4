package rotation

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"

	"keyturn/internal/job"
)

var update = flag.Bool("update", false, "write the tables anew")

// The tables are the product's argument that nobody is locked out. They are
// written out in testdata/tables.txt, so that a change of any of them shows in
// a diff that a reviewer reads.
func TestTables(t *testing.T) {
	const file = "testdata/tables.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var why []string // the comment above each table
	for block := range strings.SplitSeq(strings.TrimRight(string(text), "\n"), "\n\n") {
		comment, _, _ := strings.Cut(block, "\nprocedure ")
		why = append(why, comment)
	}
	procedures := New(nil, nil, nil, nil).Procedures()
	if len(why) != len(procedures) {
		t.Fatalf("%s has %d tables, and there are %d procedures", file, len(why), len(procedures))
	}
	var out strings.Builder
	for i, p := range procedures {
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(why[i] + "\n" + table(p))
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got := out.String(); got != string(text) {
		t.Errorf("the tables are not as %s has them (go test -update writes it):\n%s", file, got)
	}
}

// table returns a procedure as text: what each row goes through, which rows go
// wave by wave together, which can be undone, and from where on going back is
// a run of its own.
func table(p job.Procedure) string {
	var out strings.Builder
	fmt.Fprintf(&out, "procedure %s\n----\n", p.Name)
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, s := range p.Steps {
		on, marks := "once", []string(nil)
		if s.On != job.Once {
			on = "each of " + string(s.On)
		}
		if s.Name == p.Turn {
			marks = append(marks, "turn")
		}
		if s.Undo != nil {
			marks = append(marks, "undo")
		}
		if s.Final {
			marks = append(marks, "final")
		}
		if s.Parting {
			marks = append(marks, "parting")
		}
		if s.Group != "" {
			marks = append(marks, "group "+s.Group)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, on, strings.Join(marks, ", "))
	}
	_ = w.Flush()
	can := func(ok bool, what string) {
		if !ok {
			what = "no " + what
		}
		fmt.Fprintf(&out, "%s\n", what)
	}
	can(p.Reverse != nil, "way back by a run of its own")
	can(p.Leave != nil, "way on without a place")
	can(p.Started != nil, "commit of keys with the start")
	can(p.Ended != nil, "commit of keys with the end")
	return trimmed(out.String())
}

// trimmed returns text without the blanks at the ends of its lines.
func trimmed(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
