package keyturn

import "strings"

// rules is the rulebook, each rule with examples that break it and with what
// comes close and does not.
var rules = []rule{
	{
		name:  "arrows",
		check: arrows,
		breaks: []map[string]string{
			one("internal/trust/a.go", "package trust\nimport _ \"keyturn/internal/store\""),
			one("internal/api/v1/a.go", "package v1\nimport _ \"keyturn/internal/api/appviewx\""),
			one("internal/control/a.go", "package control\nimport _ \"keyturn/internal/dial\""),
			one("internal/control/a_test.go", "package control\nimport _ \"keyturn/internal/api/v1\""),
			one("internal/rotation/a.go", "package rotation\nimport _ \"keyturn/internal/lab\""),
			one("internal/models/a.go", "package models"),
			one("internal/inventory/a.go", "package inventory\nimport _ \"github.com/jackc/pgx/v5\""),
		},
		keeps: map[string]string{
			"internal/rotation/a.go":      "package rotation\nimport _ \"keyturn/internal/remote\"",
			"internal/rotation/a_test.go": "package rotation\nimport (\n_ \"keyturn/internal/dial\"\n_ \"keyturn/internal/lab\"\n)",
			"internal/store/a.go":         "package store\nimport _ \"github.com/jackc/pgx/v5\"",
			"cmd/keyturn/a.go":            "package main\nimport _ \"keyturn/internal/api/v1\"",
			"test/crash/a_test.go":        "package crash\nimport _ \"keyturn/internal/control\"",
		},
	},
	{
		name:  "package docs",
		check: packageDocs,
		breaks: []map[string]string{
			one("internal/store/a.go", "package store"),
			one("internal/store/a.go", "// Package store stores.\npackage store"),
			one("internal/store/a.go", "// "+strings.Repeat("What it is for. ", 20)+"\npackage store"),
		},
		keeps: one("internal/store/a.go", "// Package store "+strings.Repeat("says what it is for. ", 20)+"\npackage store"),
	},
	{
		name:  "exported names are documented",
		check: exportedDocs,
		breaks: []map[string]string{
			one("internal/store/a.go", "package store\nfunc Open() {}"),
			one("internal/store/a.go", "package store\n// A T is one.\ntype T int\nfunc (T) Flush() {}"),
			one("internal/store/a.go", "package store\ntype T int"),
			one("internal/store/a.go", "package store\nconst System = 1"),
		},
		keeps: map[string]string{
			"internal/store/a.go": `package store
// Open opens.
func Open() {}
// Kinds of error.
const (
	A = 1
	B = 2
)
// A T is one.
type T int
func (t T) String() string { return "" }
func (t T) Unwrap() error { return nil }
type t int
func (t) Close() {}
const C = 1 // C is the third.
`,
			"internal/store/a_test.go": "package store\nfunc Help() {}",
		},
	},
	{
		name:  "no any",
		check: noAny,
		breaks: []map[string]string{
			one("internal/store/a.go", "package store\nfunc Save(v any) {}"),
			one("internal/store/a.go", "package store\nfunc Load() map[string]interface{} { return nil }"),
		},
		keeps: one("internal/store/a.go", "package store\nfunc Errorf(format string, args ...any) {}\nfunc save(v any) {}\nfunc All[T any](x T) {}\nfunc (l *List[T]) Add(x T) {}"),
	},
	{
		name:   "no init",
		check:  noInit,
		breaks: []map[string]string{one("internal/store/a.go", "package store\nfunc init() {}")},
		keeps:  one("internal/store/a.go", "package store\ntype a struct{}\nfunc (a) init() {}"),
	},
	{
		name:  "package variables",
		check: packageVariables,
		breaks: []map[string]string{
			one("internal/store/a.go", "package store\nvar count int"),
			one("internal/store/a.go", "package store\nvar cache = map[string]int{}\nfunc f() { cache[\"a\"] = 1 }"),
			one("internal/store/a.go", "package store\nvar list = []int{1}\nfunc f() { list = append(list, 1) }"),
			one("internal/store/a.go", "package store\nvar list = []int{1}\nfunc f() { list[0]++ }"),
			one("internal/store/a.go", "package store\nvar cache = map[string]int{}\nfunc f() { delete(cache, \"a\") }"),
			one("internal/store/a.go", "package store\nvar cache = make(map[string]int)"),
			one("internal/store/a.go", "package store\nvar mu sync.Mutex"),
			one("internal/store/a.go", "package store\nvar now = time.Now"),
			one("internal/store/a.go", "package store\nvar version = \"dev\""),
		},
		keeps: map[string]string{
			"internal/store/a.go": `package store
var ErrClosed = errors.New("closed")
var errGone error = &trust.Error{}
var names = map[string]int{"a": 1}
var sizes = [...]int{1, 2}
var magic = []byte("SSHKRL")
var line = regexp.MustCompile("a")
var loopback = netip.MustParsePrefix("127.0.0.0/8")
var params = &argon2id.Params{}
var _ I = T{}
//go:embed migrations/*.sql
var Schema embed.FS
func f(cache map[string]int) { names := map[string]int{}; names["a"] = 2; params := 1; params++; _ = cache }
`,
			"internal/store/a_test.go": "package store\nvar update = flag.Bool(\"update\", false, \"\")",
			"cmd/keyturn/main.go":      "package main\nvar version = \"dev\"",
		},
	},
	{
		name:  "pure packages",
		check: purePackages,
		breaks: []map[string]string{
			one("internal/trust/a.go", "package trust\nimport \"os\""),
			one("internal/trust/a.go", "package trust\nimport \"os/exec\""),
			one("internal/audit/a.go", "package audit\nimport \"net\""),
			one("internal/audit/a.go", "package audit\nimport \"time\"\nvar _ = time.Now()"),
			one("internal/trust/a.go", "package trust\nimport clock \"time\"\nvar _ = clock.Since"),
		},
		keeps: map[string]string{
			"internal/trust/a.go":      "package trust\nimport (\n\"net/netip\"\n\"time\"\n)\nvar _ time.Time\nvar _ netip.Addr",
			"internal/trust/a_test.go": "package trust\nimport \"os\"",
			"internal/dial/a.go":       "package dial\nimport \"net\"",
		},
	},
	{
		name:  "no sleep",
		check: noSleep,
		breaks: []map[string]string{
			one("internal/dial/a.go", "package dial\nimport \"time\"\nfunc f() { time.Sleep(1) }"),
			one("internal/dial/a.go", "package dial\nimport t \"time\"\nfunc f() { t.Sleep(1) }"),
		},
		keeps: one("internal/dial/a_test.go", "package dial\nimport \"time\"\nfunc f() { time.Sleep(1) }"),
	},
	{
		name:   "long files",
		check:  longFiles,
		breaks: []map[string]string{one("internal/dial/a.go", "package dial\n"+strings.Repeat("\n", 600))},
		keeps: map[string]string{
			"internal/dial/a.go":      "package dial\n\n// Long because one table is read in one go.\n" + strings.Repeat("\n", 600),
			"internal/dial/b.go":      "package dial\n" + strings.Repeat("\n", 590),
			"internal/dial/a_test.go": "package dial\n" + strings.Repeat("\n", 900),
		},
	},
	{
		name:  "skips",
		check: skips,
		breaks: []map[string]string{
			one("internal/dial/a_test.go", "package dial\nfunc TestA(t *testing.T) { t.Skip(\"no sshd\") }"),
			one("internal/dial/a_test.go", "package dial\nfunc help(tb testing.TB) { tb.Skipf(\"no sshd\") }"),
		},
		keeps: map[string]string{
			"internal/dial/a_test.go": "package dial\nfunc TestA(t *testing.T) { need.Skip(t, \"no sshd\") }\nfunc FuzzA(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) { if len(b) > 9 { t.Skip() } }) }",
			"internal/need/need.go":   "package need\nfunc Skip(t testing.TB) { t.Skip() }",
		},
	},
	{
		name:   "nothing left to do",
		check:  nothingLeft,
		breaks: []map[string]string{one("internal/dial/a.go", "package dial\n\n// TO"+"DO: time out.\n")},
		keeps:  one("internal/dial/a.go", "package dial\n\n// BUG(dial): a server that lies about its version is believed.\n"),
	},
	{
		name:  "verbs fit on a screen",
		check: shortVerbs,
		breaks: []map[string]string{
			one("internal/control/a.go", "package control\nfunc (p *Plane) Rotate() {\n"+strings.Repeat("\n", 60)+"}"),
		},
		keeps: one("internal/control/a.go", "package control\n// Long because it is.\nfunc (p *Plane) Rotate() {\n"+strings.Repeat("\n", 60)+"}\nfunc help() {\n"+strings.Repeat("\n", 60)+"}"),
	},
	{
		name:  "migrations",
		check: migrations,
		breaks: []map[string]string{
			{"internal/store/migrations/00001_store_log.sql": "", "internal/job/migrations/00001_job_runs.sql": ""},
			one("internal/job/migrations/0041_job_runs.sql", ""),
			one("internal/job/migrations/00041_store_runs.sql", ""),
			one("internal/job/schema/00041_job_runs.sql", "CREATE TABLE runs (tenant TEXT NOT NULL)"),
			{
				"internal/job/migrations/00041_job_runs.sql":        "CREATE TABLE runs (tenant TEXT NOT NULL)",
				"internal/inventory/migrations/00030_inventory.sql": "CREATE TABLE runs (tenant TEXT NOT NULL)",
			},
		},
		keeps: map[string]string{
			"internal/store/migrations/00001_store_log.sql": "CREATE TABLE log (n BIGINT)",
			"internal/job/migrations/00041_job_runs.sql":    "CREATE TABLE runs (tenant TEXT NOT NULL)",
		},
	},
	{
		name:  "tables have one owner",
		check: tableOwners,
		breaks: []map[string]string{
			{
				"internal/job/migrations/00041_job_runs.sql": "CREATE TABLE runs (tenant TEXT NOT NULL)",
				"internal/control/sql.go":                    "package control\nconst q = `SELECT id FROM runs WHERE tenant = $1`",
			},
			{
				"internal/job/migrations/00041_job_runs.sql": "CREATE TABLE runs (tenant TEXT NOT NULL)",
				"internal/job/engine.go":                     "package job\nconst q = `SELECT id FROM runs WHERE tenant = $1`",
			},
		},
		keeps: map[string]string{
			"internal/job/migrations/00041_job_runs.sql": "CREATE TABLE runs (tenant TEXT NOT NULL)",
			"internal/job/sql.go":                        "package job\nconst q = `SELECT id FROM runs WHERE tenant = $1`",
			"internal/job/engine.go":                     "package job\nconst sentence = `deletes from runs what is past`",
		},
	},
	{
		name:  "no machine paths",
		check: machinePaths,
		breaks: []map[string]string{
			one("docs/a.md", "see /wo"+"rk/shared"),
			one("internal/dial/a_test.go", "package dial\nconst dir = \"/tmp/ba"+"sh_jobs.0\""),
		},
		keeps: one("docs/a.md", "an overlay with workdir=$h/wo"+"rk/a; https://example.com/wo"+"rk/a"),
	},
	{
		name:  "links",
		check: links,
		breaks: []map[string]string{
			one("docs/a.md", "[gone](b.md)"),
			one("docs/a.md", "[gone](#nowhere)"),
			{"docs/a.md": "[gone](b.md#nowhere)", "docs/b.md": "# Here"},
		},
		keeps: map[string]string{
			"docs/a.md": "# A `title`, this\n[b](b.md#here-it-is) [top](#a-title-this) [up](../README.md) [web](https://example.com) `[not](a.link)`\n```\n[nor](this)\n```\n",
			"docs/b.md": "## Here it is\n",
			"README.md": "[docs](docs/)",
		},
	},
	{
		name:  "named tests exist",
		check: namedTests,
		breaks: []map[string]string{
			one("docs/a.md", "proved by `TestGone`"),
			{"docs/a.md": "proved by `dial.TestHere`", "internal/job/a_test.go": "package job\nfunc TestHere(t *testing.T) {}"},
		},
		keeps: map[string]string{
			"docs/a.md":               "proved by `dial.TestHere`, `TestHere/refused`, `FuzzHere` and soaks named `TestSoak...`",
			"internal/dial/a_test.go": "package dial\nfunc TestHere(t *testing.T) {}\nfunc FuzzHere(f *testing.F) {}",
		},
	},
	{
		name:   "named documents exist",
		check:  namedDocuments,
		breaks: []map[string]string{one("internal/dial/a.go", "// Package dial is explained in docs/gone.md.\npackage dial")},
		keeps: map[string]string{
			"internal/dial/a.go": "// Package dial is explained in docs/here.md.\npackage dial",
			"docs/here.md":       "",
		},
	},
	{
		name:  "maps are complete",
		check: completeMaps,
		breaks: []map[string]string{
			{"docs/design/README.md": "| [0000](0000-template.md) |", "docs/design/0004-a.md": ""},
			{"ARCHITECTURE.md": "`trust` and `audit`", "internal/store/a.go": "package store"},
			{"ARCHITECTURE.md": "`store`", "internal/store/a.go": "package store", "go.mod": "module keyturn"},
		},
		keeps: map[string]string{
			"docs/design/README.md": "| [0004](0004-a.md) |",
			"docs/design/0004-a.md": "",
			"ARCHITECTURE.md":       "`store`",
			"internal/store/a.go":   "package store",
		},
	},
	{
		name:  "named commands exist",
		check: namedCommands,
		breaks: []map[string]string{
			{"cmd/keyturn/main.go": program, "README.md": "run `keyturn dance`"},
			{"cmd/keyturn/main.go": program, "README.md": "```\nbin/keyturn host dance\n```"},
			{"cmd/keyturn/main.go": program, "internal/dial/a.go": "package dial\nvar err = e.WithHint(\"keyturn run dance %s\", id)"},
		},
		keeps: map[string]string{
			"cmd/keyturn/main.go": program,
			"README.md":           "Since keyturn dances: `keyturn host list web1`, `keyturn --help`, `KEYTURN_X=1 keyturn run back RUN`",
			"internal/dial/a.go":  "package dial\nvar err = e.WithHint(\"keyturn host list, then again\")",
		},
	},
}

// program is a command line with the commands host, run, back and list.
const program = "package main\nvar _ = []any{parent(\"host\", \"\"), parent(\"run\", \"\"), ask(\"back\"), cobra.Command{Use: \"list NAME\" + more}}\nfunc parent(use, short string) {}\nfunc ask(verb string) {}"
