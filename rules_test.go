package keyturn

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// A repo is this repository as its rules see it.
type repo struct {
	fset     *token.FileSet
	packages []*folder
	texts    []text // every file that is text, Go or not
}

// A folder is the Go files of one folder, tests of both kinds included.
type folder struct {
	dir   string // "." or "internal/store"
	files []*file
}

type file struct {
	path string
	test bool
	text string
	ast  *ast.File
}

type text struct{ path, content string }

// source returns the files that are not tests.
func (p *folder) source() []*file {
	return slices.DeleteFunc(slices.Clone(p.files), func(f *file) bool { return f.test })
}

func (f *file) dir() string { return path.Dir(f.path) }

func (f *file) imports() (paths []string) {
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// line returns "path:line" of a node of f.
func (r *repo) line(f *file, pos token.Pos) string {
	return f.path + ":" + strconv.Itoa(r.fset.Position(pos).Line)
}

// notOurs is what git ignores at the top (see .gitignore), and git's own: a
// folder, or a file in a linked work tree.
var notOurs = []string{".git", "bin", "dist", "keyturn-data", "keyturn"}

func load(fsys fs.FS) (*repo, error) {
	r := &repo{fset: token.NewFileSet()}
	byDir := map[string]*folder{}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains(notOurs, name) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil && name != "." {
				return fs.SkipDir // a module of its own
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		content, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		if strings.Contains(string(content[:min(len(content), 8000)]), "\x00") {
			return nil // not text
		}
		r.texts = append(r.texts, text{name, string(content)})
		if !strings.HasSuffix(name, ".go") || strings.Contains("/"+name, "/testdata/") {
			return nil
		}
		parsed, err := parser.ParseFile(r.fset, name, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if byDir[dir] == nil {
			byDir[dir] = &folder{dir: dir}
			r.packages = append(r.packages, byDir[dir])
		}
		byDir[dir].files = append(byDir[dir].files, &file{
			path: name, test: strings.HasSuffix(name, "_test.go"), text: string(content), ast: parsed,
		})
		return nil
	})
	// The root folder is these rules alone, and they name what they forbid.
	r.packages = slices.DeleteFunc(r.packages, func(p *folder) bool { return p.dir == "." })
	return r, err
}

// A rule is something that every change to this repository keeps. Its check
// returns one line for each place that breaks it, which says what to do.
type rule struct {
	name   string
	check  func(*repo) []string
	breaks []map[string]string // each of these trees, by file, breaks the rule
	keeps  map[string]string   // and this one does not
}

func TestRules(t *testing.T) {
	r, err := load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			for _, problem := range rule.check(r) {
				t.Error(problem)
			}
		})
	}
}

// TestRulesBite breaks every rule, so that none is kept only because it looks
// the wrong way.
func TestRulesBite(t *testing.T) {
	check := func(t *testing.T, rule rule, tree map[string]string) []string {
		fsys := fstest.MapFS{}
		for name, content := range tree {
			fsys[name] = &fstest.MapFile{Data: []byte(content)}
		}
		r, err := load(fsys)
		if err != nil {
			t.Fatal(err)
		}
		return rule.check(r)
	}
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			if len(rule.breaks) == 0 {
				t.Error("no example that breaks it")
			}
			for _, tree := range rule.breaks {
				if problems := check(t, rule, tree); len(problems) == 0 {
					t.Errorf("not caught: %q", tree)
				}
			}
			if problems := check(t, rule, rule.keeps); len(problems) > 0 {
				t.Errorf("caught what keeps the rule: %s", strings.Join(problems, "\n"))
			}
		})
	}
}

// one is a tree of one file.
func one(name, content string) map[string]string { return map[string]string{name: content} }
