package keyturn

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What the schema and the documents may say.

var (
	migrationName = regexp.MustCompile(`^internal/([a-z]+)/migrations/(\d{5})_([a-z]+)_[a-z0-9_]+\.sql$`)
	createTable   = regexp.MustCompile(`(?i)\bCREATE TABLE (?:IF NOT EXISTS )?([a-z_]+)`)
)

func migrations(r *repo) (problems []string) {
	byNumber, byTable := map[string]string{}, map[string]string{}
	for _, t := range r.texts {
		if !strings.HasSuffix(t.path, ".sql") || strings.Contains(t.path, "/testdata/") {
			continue
		}
		m := migrationName.FindStringSubmatch(t.path)
		if m == nil || m[1] != m[3] {
			problems = append(problems, t.path+": a migration is called internal/OWNER/migrations/NNNNN_OWNER_what.sql, by the package that owns its tables")
			continue
		}
		if other := byNumber[m[2]]; other != "" {
			problems = append(problems, fmt.Sprintf("%s has the number of %s: all migrations have one order; take the next free number of %s's ten", t.path, other, m[1]))
		}
		byNumber[m[2]] = t.path
		for _, m := range createTable.FindAllStringSubmatch(t.content, -1) {
			if other := byTable[m[1]]; other != "" {
				problems = append(problems, fmt.Sprintf("%s makes table %s, as %s does: a table has one owner", t.path, m[1], other))
			}
			byTable[m[1]] = t.path
		}
	}
	return problems
}

var (
	statement  = regexp.MustCompile(`^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\s`)
	namesTable = regexp.MustCompile(`\b(?:FROM|JOIN|INTO|UPDATE)\s+([a-z_]+)`)
)

// tableOwners: the package that makes a table holds every query on it, in files
// called sql.go or sql_*.go.
func tableOwners(r *repo) (problems []string) {
	owner := map[string]string{}
	for _, t := range r.texts {
		if m := migrationName.FindStringSubmatch(t.path); m != nil {
			for _, table := range createTable.FindAllStringSubmatch(t.content, -1) {
				owner[table[1]] = m[1]
			}
		}
	}
	for _, p := range r.packages {
		for _, f := range p.source() {
			name := path.Base(f.path)
			inSQL := name == "sql.go" || strings.HasPrefix(name, "sql_")
			ast.Inspect(f.ast, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				query, err := strconv.Unquote(lit.Value)
				if err != nil || !statement.MatchString(query) {
					return true
				}
				for _, m := range namesTable.FindAllStringSubmatch(query, -1) {
					switch who := owner[m[1]]; {
					case who == "":
					case who != short(p.dir):
						problems = append(problems, fmt.Sprintf("%s: table %s is %s's: ask that package, or give it the query", r.line(f, lit.Pos()), m[1], who))
					case !inSQL:
						problems = append(problems, fmt.Sprintf("%s: queries lie in %s/sql.go (or sql_*.go), where one reads what a table is asked", r.line(f, lit.Pos()), p.dir))
					}
				}
				return true
			})
		}
	}
	return problems
}

func machinePaths(r *repo) (problems []string) {
	// Written in parts, so that this file is none that names them.
	mark := regexp.MustCompile(`(^|[^\w./$}-])(/wo` + `rk/|/tmp/ba` + `sh_jobs|/tmp/w` + `t/|/tmp/br` + `ief)`)
	for _, t := range r.texts {
		for i, line := range strings.Split(t.content, "\n") {
			if m := mark.FindStringSubmatch(line); m != nil {
				problems = append(problems, fmt.Sprintf("%s:%d names %s, a path of somebody's machine: use a flag, a temporary directory or a path of the repository", t.path, i+1, m[2]))
			}
		}
	}
	return problems
}

var (
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// links: relative links lead somewhere, headings included.
func links(r *repo) (problems []string) {
	known := map[string]bool{".": true}
	anchors := map[string][]string{}
	for _, t := range r.texts {
		for name := t.path; name != "."; name = path.Dir(name) {
			known[name] = true
		}
		if path.Ext(t.path) == ".md" {
			for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(t.content, ""), -1) {
				// As GitHub and Forgejo make them.
				slug := strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
				anchors[t.path] = append(anchors[t.path], slug)
			}
		}
	}
	for _, t := range r.texts {
		if path.Ext(t.path) != ".md" {
			continue
		}
		prose := code.ReplaceAllString(fence.ReplaceAllString(t.content, ""), "")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			target, anchor, _ := strings.Cut(m[1], "#")
			to := t.path
			if target != "" {
				to = path.Join(path.Dir(t.path), target)
			}
			if !known[to] {
				problems = append(problems, fmt.Sprintf("%s links to %s, which is not there", t.path, m[1]))
			} else if anchor != "" && !slices.Contains(anchors[to], anchor) {
				problems = append(problems, fmt.Sprintf("%s links to %s, but %s has no such heading", t.path, m[1], to))
			}
		}
	}
	return problems
}

var testName = regexp.MustCompile("`(?:([a-z0-9/]+)\\.)?((?:Test|Fuzz|Benchmark)[A-Z]\\w*)(/[^`]*)?`")

// namedTests: a document that says what proves something names a test that is
// there, as `TestName`, or `package.TestName` where the package matters.
func namedTests(r *repo) (problems []string) {
	there := map[string]bool{}
	r.functions(func(f *file, fn *ast.FuncDecl) {
		if f.test && fn.Recv == nil {
			dir := path.Dir(f.path)
			there[fn.Name.Name] = true
			there[path.Base(dir)+"."+fn.Name.Name] = true
			there[short(dir)+"."+fn.Name.Name] = true
		}
	})
	for _, name := range []string{"TestRules", "TestRulesBite"} {
		there[name] = true // this folder's, which the rules do not read
	}
	for _, t := range r.texts {
		if path.Ext(t.path) != ".md" {
			continue
		}
		for i, line := range strings.Split(t.content, "\n") {
			for _, m := range testName.FindAllStringSubmatch(line, -1) {
				name := strings.TrimPrefix(m[1]+"."+m[2], ".")
				if !there[name] {
					problems = append(problems, fmt.Sprintf("%s:%d names %s, and there is no such test: name the one that proves it, or say that none does", t.path, i+1, name))
				}
			}
		}
	}
	return problems
}

var documentName = regexp.MustCompile(`[\w./-]*\w\.md\b`)

// namedDocuments: code sends its reader only to pages that are there. A page is
// named by its path from the top of the repository.
func namedDocuments(r *repo) (problems []string) {
	there := map[string]bool{}
	for _, t := range r.texts {
		there[t.path] = true
	}
	for _, t := range r.texts {
		if !slices.Contains([]string{".go", ".sql", ".sh"}, path.Ext(t.path)) || !strings.Contains(t.path, "/") {
			continue
		}
		for i, line := range strings.Split(t.content, "\n") {
			for _, name := range documentName.FindAllString(line, -1) {
				if !there[name] && !strings.Contains(name, "NNNN") {
					problems = append(problems, fmt.Sprintf("%s:%d sends its reader to %s, which is not there: name a page by its path from the top of the repository, or say here what it would say", t.path, i+1, name))
				}
			}
		}
	}
	return problems
}

// completeMaps: the two pages that one begins with leave nothing out.
func completeMaps(r *repo) (problems []string) {
	content := map[string]string{}
	for _, t := range r.texts {
		content[t.path] = t.content
	}
	const index, overview = "docs/design/README.md", "ARCHITECTURE.md"
	for _, t := range r.texts {
		if ok, _ := path.Match("docs/design/[0-9]*.md", t.path); ok && !strings.Contains(content[index], "("+path.Base(t.path)+")") {
			problems = append(problems, fmt.Sprintf("%s has no line for %s: add one, with the decision as a sentence", index, t.path))
		}
	}
	for name := range mayImport {
		if there := slices.ContainsFunc(r.packages, func(p *folder) bool { return short(p.dir) == name }); !there && content["go.mod"] != "" {
			problems = append(problems, fmt.Sprintf("arch_test.go: mayImport has a line for %s, which is not there: packages appear when they have something to hide", name))
		}
	}
	for _, p := range r.packages {
		name := short(p.dir)
		if _, listed := mayImport[name]; listed && len(p.source()) > 0 && !strings.Contains(content[overview], "`"+name+"`") {
			problems = append(problems, fmt.Sprintf("%s has no line for %s in its table of packages: say there what it hides", overview, p.dir))
		}
	}
	return problems
}
