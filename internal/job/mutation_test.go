package job

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSoakMutations changes the engine for the worse, one line at a time, and
// runs the other tests on what came of it: each change must be noticed. The
// changed files exist only in an overlay of the build. KEYTURN_MUTATION=text runs
// only those whose names hold that text.
func TestSoakMutations(t *testing.T) {
	if os.Getenv("KEYTURN_SOAK") == "" || os.Getenv("KEYTURN_MUTATED") != "" {
		t.Log("only with KEYTURN_SOAK=1: each mutation is a build")
		return
	}
	only := os.Getenv("KEYTURN_MUTATION")
	for _, m := range []struct{ name, file, from, to string }{
		{"no barrier: the next stage begins while targets wait", "finish.go", "case st.waiting > 0:\n\t\treturn true, r.sleep(st)", "case false:\n\t\treturn true, r.sleep(st)"},
		{"the way back in the order of the way forward", "table.go", "return t.previous(s)", "if s == bottom || s == top {\n\t\t\treturn t.previous(s)\n\t\t}\n\t\treturn t.next(s, Forward)"},
		{"waves are ignored", "table.go", "return min(canary+wave*t.Wave, n), min(canary+(wave+1)*t.Wave, n)", "return canary, n"},
		{"what was in flight in a crash is taken for done", "sql_journal.go", "THEN 'left' ELSE 'waiting' END", "THEN 'left' ELSE 'done' END"},
		{"what was in flight in a crash is forgotten", "engine.go", `if r.owner != "" {`, `if r.owner == "nobody" {`},
		{"a failure does not hold", "step.go", `return holdRun(tx, l.run.id, l.name()+": "+l.outcome.reason)`, "return nil"},
		{"a verb does not stop what begins", "sql_runs.go", "AND epoch = $3 AND asked = $4 AND state = 'running'", "AND epoch = $3 AND $4 = $4 AND state <> 'done'"},
		{"a lost claim can write outcomes", "sql_journal.go", "AND n = $5 AND epoch = $6 AND state = 'intended'", "AND n = $5 AND $6 = $6 AND state <> 'left'"},
		{"claims do not raise the fence", "engine.go", "\t\tr.epoch++\n", ""},
		{"a claim is taken from one who lives", "engine.go", "return left <= 0", "return true"},
		{"the turn is not looked at", "back.go", `if r.table.Turn == "" {`, `if r.table.Turn != "" {`},
		{"going back does not wait for what is in flight", "back.go", "if past && !r.inFlight() {", "if past {"},
		{"Final is not looked at", "back.go", "if !row.Final {", "if row.Final || !row.Final {"},
		{"the run that was taken back is not told", "back.go", "case old.backBy != r.id:", "case true:"},
		{"names stay taken", "sql_runs.go", "DELETE FROM job_exclusive WHERE tenant = $1 AND run = $2", "DELETE FROM job_exclusive WHERE tenant = $1 AND run = $2 AND run = what"},
		{"names are not looked at", "verbs.go", `if owner != "" && owner != r.backOf && owner != r.id {`, "if false {"},
		{"what a step records is not written", "step.go", "err := guard(func() error { return l.record(tx) })", "err := error(nil)"},
		{"an undo for what was never begun", "sql_journal.go", "if r.direction == Backward {\n\t\tquery =", "if false {\n\t\tquery ="},
		{"left targets go on", "sql_journal.go", "if (!t.Left || parting) && !begun[t.N] {", "if !begun[t.N] {"},
		{"nobody parts from left targets", "sql_journal.go", "if (!t.Left || parting) && !begun[t.N] {", "if !t.Left && !begun[t.N] {"},
		{"a run of which something was left is done", "back.go", "if left > 0 {", "if false {"},
		{"skipped rows are run", "runner.go", "!slices.Contains(r.run.skipped, row.Name)", "true"},
		{"two steps on one host", "hands.go", `if w.Host != "" && h.busy[w.Host] {`, "if false {"},
		{"the first run takes all hands", "hands.go", "return (h.total + wanting - 1) / wanting", "return h.total"},
		{"schedules make up for a downtime", "schedule.go", "return s.Next.Add((missed + 1) * s.Every)", "return s.Next.Add(min(missed, 0)*s.Every + s.Every)"},
	} {
		if !strings.Contains(m.name, only) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			source, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(source), m.from) != 1 {
				t.Fatalf("%s holds %q %d times", m.file, m.from, strings.Count(string(source), m.from))
			}
			dir := t.TempDir()
			changed, overlay := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
			original, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(changed, []byte(strings.Replace(string(source), m.from, m.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(overlay, replace, 0o600); err != nil {
				t.Fatal(err)
			}
			binary := filepath.Join(dir, "job.test")
			if out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, ".").CombinedOutput(); err != nil {
				t.Fatalf("does not build: %v\n%s", err, out)
			}
			cmd := exec.CommandContext(t.Context(), binary, "-test.failfast", "-test.timeout=2m", "-test.skip=postgres|Soak", "-test.run=Order|After|Hands|Changed|Timeout|Transcripts//sqlite|/sqlite|CrashesAndVerbs|CrashEverywhere//sqlite")
			cmd.Env = append(os.Environ(), "KEYTURN_MUTATED=1", "KEYTURN_SOAK=")
			cmd.WaitDelay = 10 * time.Second
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("was not noticed:\n%s", out)
				return
			}
			for line := range strings.SplitSeq(string(out), "\n") {
				if strings.Contains(line, "_test.go:") || strings.HasPrefix(line, "panic:") {
					t.Log(strings.TrimSpace(line))
					break
				}
			}
		})
	}
}
