package keyturn

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// What Go files may hold. Each rule's message says what to do instead.

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
			"internal/rotation/a_test.go": "package rotation\nimport (\n_ \"keyturn/internal/dial\"\n_ \"keyturn/internal/lab/sim\"\n)",
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
		keeps: one("docs/a.md", "an overlay with workdir=$h/work/a; https://example.com/work/a"),
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
}

func packageDocs(r *repo) (problems []string) {
	for _, p := range r.packages {
		source := p.source()
		if len(source) == 0 {
			continue
		}
		var doc string
		for _, f := range source {
			doc += f.ast.Doc.Text()
		}
		name := source[0].ast.Name.Name
		begins := "Package " + name + " "
		if name == "main" {
			begins = strings.ToUpper(p.dir[strings.LastIndex(p.dir, "/")+1:][:1])
		}
		if len(doc) < 200 || !strings.HasPrefix(doc, begins) {
			problems = append(problems, fmt.Sprintf("%s: needs a package doc that begins %q and from which a stranger can work: what it hides, what it promises, where to begin (200 characters at the least; it has %d)", p.dir, begins, len(doc)))
		}
	}
	return problems
}

func noInit(r *repo) (problems []string) {
	r.functions(func(f *file, fn *ast.FuncDecl) {
		if fn.Recv == nil && fn.Name.Name == "init" {
			problems = append(problems, r.line(f, fn.Pos())+": init hides wiring: call it from where the program is put together (cmd/keyturn), or make the value a table")
		}
	})
	return problems
}

// constructors return what nobody can change afterwards, or what nobody does.
var constructors = []string{
	"errors.New", "fmt.Errorf", "trust.Errorf", "regexp.MustCompile", "template.Must", "strings.NewReplacer",
	"netip.MustParseAddr", "netip.MustParsePrefix", "time.Date", "uuid.MustParse",
	"base64.StdEncoding.Strict", "base64.RawURLEncoding.Strict", "base64.RawStdEncoding.Strict",
	"argon2id.Params",
}

// allowedVariables are package variables that a rule cannot know to be right.
var allowedVariables = []string{
	"cmd/keyturn.version",     // set by the linker: see Makefile
	"internal/remote.scripts", // a table, put together from embedded files
}

func packageVariables(r *repo) (problems []string) {
	for _, p := range r.packages {
		if slices.Contains(serveTests, short(p.dir)) {
			continue
		}
		for _, f := range p.source() {
			for _, decl := range f.ast.Decls {
				gen, ok := decl.(*ast.GenDecl)
				if !ok || gen.Tok != token.VAR {
					continue
				}
				for _, spec := range gen.Specs {
					spec := spec.(*ast.ValueSpec)
					for i, name := range spec.Names {
						where := r.line(f, name.Pos()) + ": package variable " + name.Name
						switch {
						case name.Name == "_" || slices.Contains(allowedVariables, p.dir+"."+name.Name):
						case !constant(gen, spec, i):
							problems = append(problems, where+": only errors, tables (composite literals), embedded files and compiled patterns may be package variables: pass the value in, or make it a field")
						case p.assigns(name.Name):
							problems = append(problems, where+" is changed after it was made: state belongs in a struct that somebody owns")
						}
					}
				}
			}
		}
	}
	return problems
}

// constant reports whether the i-th name of a var declaration has a value of a
// form that the rule allows.
func constant(gen *ast.GenDecl, spec *ast.ValueSpec, i int) bool {
	if strings.Contains(comments(gen.Doc)+comments(spec.Doc), "//go:embed") {
		return true
	}
	if i >= len(spec.Values) {
		return false
	}
	value := spec.Values[i]
	if u, ok := value.(*ast.UnaryExpr); ok && u.Op == token.AND {
		value = u.X
	}
	switch v := value.(type) {
	case *ast.CompositeLit:
		return true
	case *ast.CallExpr:
		if _, ok := v.Fun.(*ast.ArrayType); ok {
			return true // []byte("...")
		}
		return slices.Contains(constructors, dotted(v.Fun))
	case *ast.SelectorExpr:
		return dotted(v) == "base64.StdEncoding" || dotted(v) == "base64.RawStdEncoding"
	}
	return false
}

func comments(group *ast.CommentGroup) (all string) {
	if group == nil {
		return ""
	}
	for _, c := range group.List {
		all += c.Text + "\n"
	}
	return all
}

// dotted returns an expression such as errors.New as text, or "".
func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if x := dotted(e.X); x != "" {
			return x + "." + e.Sel.Name
		}
	}
	return ""
}

// assigns reports whether some function of p that has no variable of its own
// by that name gives name, or an element of it, another value.
func (p *folder) assigns(name string) (found bool) {
	isIt := func(e ast.Expr) bool {
		for {
			switch v := e.(type) {
			case *ast.IndexExpr:
				e = v.X
			case *ast.SelectorExpr:
				e = v.X
			case *ast.Ident:
				return v.Name == name
			default:
				return false
			}
		}
	}
	for _, f := range p.source() {
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil || declares(fn, name) {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					found = found || slices.ContainsFunc(n.Lhs, isIt)
				case *ast.IncDecStmt:
					found = found || isIt(n.X)
				case *ast.CallExpr:
					called := dotted(n.Fun)
					found = found || len(n.Args) > 0 && (called == "delete" || called == "clear" || called == "copy") && isIt(n.Args[0])
				}
				return true
			})
		}
	}
	return found
}

// declares reports whether fn has a parameter, result or variable called name.
func declares(fn *ast.FuncDecl, name string) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		var names []ast.Expr
		switch n := n.(type) {
		case *ast.Field:
			for _, id := range n.Names {
				names = append(names, id)
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				names = append(names, id)
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				names = n.Lhs
			}
		case *ast.RangeStmt:
			names = []ast.Expr{n.Key, n.Value}
		}
		for _, e := range names {
			if id, ok := e.(*ast.Ident); ok && id.Name == name {
				found = true
			}
		}
		return true
	})
	return found
}

// clock is what reads a clock or waits for one.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

func purePackages(r *repo) (problems []string) {
	pure := []string{"trust", "policy", "audit"}
	forbidden := regexp.MustCompile(`^(os|os/.*|net|net/(http|smtp|rpc|textproto|url/.*).*|io/ioutil|syscall|unsafe|database/.*|log/.*|log|golang\.org/x/sys/.*)$`)
	for _, p := range r.packages {
		if !slices.Contains(pure, short(p.dir)) {
			continue
		}
		for _, f := range p.source() {
			for _, imported := range f.imports() {
				if forbidden.MatchString(imported) {
					problems = append(problems, fmt.Sprintf("%s imports %s: %s does no input or output: take bytes and return bytes, and let the caller read and write", f.path, imported, p.dir))
				}
			}
			for _, name := range clock {
				for _, pos := range f.uses("time", name) {
					problems = append(problems, fmt.Sprintf("%s: time.%s: %s reads no clock: take the time as an argument", r.line(f, pos), name, p.dir))
				}
			}
		}
	}
	return problems
}

// uses returns where f says PACKAGE.NAME, under whatever name it imports the
// package with that path.
func (f *file) uses(pkg, name string) (at []token.Pos) {
	local := ""
	for _, spec := range f.ast.Imports {
		if spec.Path.Value == `"`+pkg+`"` {
			local = pkg[strings.LastIndex(pkg, "/")+1:]
			if spec.Name != nil {
				local = spec.Name.Name
			}
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && local != "" && dotted(sel) == local+"."+name {
			at = append(at, sel.Pos())
		}
		return true
	})
	return at
}

func noSleep(r *repo) (problems []string) {
	for _, p := range r.packages {
		if slices.Contains(serveTests, short(p.dir)) {
			continue
		}
		for _, f := range p.source() {
			for _, pos := range f.uses("time", "Sleep") {
				problems = append(problems, r.line(f, pos)+": time.Sleep cannot be cancelled: select on a timer and ctx.Done(), or say when with job.Until")
			}
		}
	}
	return problems
}

func longFiles(r *repo) (problems []string) {
	for _, p := range r.packages {
		for _, f := range p.source() {
			top := f.text
			if lines := strings.SplitAfterN(f.text, "\n", 61); len(lines) > 60 {
				top = strings.Join(lines[:60], "")
			}
			if n := strings.Count(f.text, "\n"); n > 600 && !strings.Contains(top, "Long because") {
				problems = append(problems, fmt.Sprintf("%s has %d lines, over 600: split it by what its parts hide, or say at its top \"Long because ...\"", f.path, n))
			}
		}
	}
	return problems
}

func skips(r *repo) (problems []string) {
	for _, p := range r.packages {
		if short(p.dir) == "need" {
			continue
		}
		for _, f := range p.files {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && dotted(call.Fun) == "f.Fuzz" {
					return false // an input that the target does not speak about
				}
				sel, ok := n.(*ast.SelectorExpr)
				if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
					return true
				}
				if x := dotted(sel.X); x == "t" || x == "tb" || x == "b" {
					problems = append(problems, r.line(f, sel.Pos())+": skip through internal/need (need.Skip, need.Root, need.Program), so that CI fails where it is required")
				}
				return true
			})
		}
	}
	return problems
}

func nothingLeft(r *repo) (problems []string) {
	mark := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	for _, p := range r.packages {
		for _, f := range p.files {
			for _, group := range f.ast.Comments {
				for _, c := range group.List {
					if mark.MatchString(c.Text) {
						problems = append(problems, r.line(f, c.Pos())+": do it now, or write what is wrong where it bites as BUG(subject) and in docs/")
					}
				}
			}
		}
	}
	return problems
}

func shortVerbs(r *repo) (problems []string) {
	r.functions(func(f *file, fn *ast.FuncDecl) {
		if short(f.path[:strings.LastIndex(f.path, "/")]) != "control" || f.test || fn.Recv == nil || !fn.Name.IsExported() {
			return
		}
		lines := r.fset.Position(fn.End()).Line - r.fset.Position(fn.Pos()).Line + 1
		if lines > 60 && !strings.Contains(fn.Doc.Text(), "Long because") {
			problems = append(problems, fmt.Sprintf("%s: the verb %s has %d lines, over 60: take its decision out as a pure function, or say \"Long because ...\" in its doc", r.line(f, fn.Pos()), fn.Name.Name, lines))
		}
	})
	return problems
}

// functions calls visit with every function and method of the repository.
func (r *repo) functions(visit func(*file, *ast.FuncDecl)) {
	for _, p := range r.packages {
		for _, f := range p.files {
			for _, decl := range f.ast.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok {
					visit(f, fn)
				}
			}
		}
	}
}
