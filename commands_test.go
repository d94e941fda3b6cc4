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

// commands are the words that the program in cmd/keyturn answers to, and which
// of them are followed by another such word.
type commands struct{ words, parents []string }

// commandsOf reads the commands out of cmd/keyturn: the first words of each
// Use of a cobra.Command, and of what is passed to functions that take a use or
// a verb and make such a command of it.
func commandsOf(r *repo) (c commands) {
	makers := map[string]bool{}
	first := func(e ast.Expr) string {
		if sum, ok := e.(*ast.BinaryExpr); ok {
			e = sum.X
		}
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return ""
		}
		text, err := strconv.Unquote(lit.Value)
		if err != nil {
			return ""
		}
		word, _, _ := strings.Cut(text, " ")
		return word
	}
	var program []*file
	for _, p := range r.packages {
		if p.dir == "cmd/keyturn" {
			program = p.source()
		}
	}
	for _, f := range program {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && len(fn.Type.Params.List) > 0 && len(fn.Type.Params.List[0].Names) > 0 {
				makers[fn.Name.Name] = slices.Contains([]string{"use", "verb"}, fn.Type.Params.List[0].Names[0].Name)
			}
		}
	}
	for _, f := range program {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			word := ""
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if dotted(n.Key) == "Use" {
					word = first(n.Value)
				}
			case *ast.CallExpr:
				if called := dotted(n.Fun); makers[called] && len(n.Args) > 0 {
					if word = first(n.Args[0]); called == "parent" {
						c.parents = append(c.parents, word)
					}
				}
			}
			if word != "" {
				c.words = append(c.words, word)
			}
			return true
		})
	}
	// cobra's own.
	c.words = append(c.words, "help", "completion", "bash", "zsh", "fish", "powershell")
	c.parents = append(c.parents, "completion")
	return c
}

var command = regexp.MustCompile(`(?:^|[ /(;|'"` + "`" + `])keyturn ([a-z-]+)(?: ([a-z-]+))?`)

// prose are words that follow "keyturn" in a sentence about it.
var prose = []string{"that", "or", "and", "is", "has"}

// unknown returns the commands that text tells its reader to run and that the
// program does not have.
func (c commands) unknown(text string) (all []string) {
	for _, m := range command.FindAllStringSubmatch(text, -1) {
		switch {
		case strings.HasPrefix(m[1], "-") || slices.Contains(prose, m[1]):
		case !slices.Contains(c.words, m[1]):
			all = append(all, m[1])
		case slices.Contains(c.parents, m[1]) && m[2] != "" && !strings.HasPrefix(m[2], "-") && !slices.Contains(c.words, m[2]):
			all = append(all, m[1]+" "+m[2])
		}
	}
	return all
}

var fenced = regexp.MustCompile("(?s)```(.*?)```|`([^`\n]+)`")

// namedCommands: what documents and hints of errors tell people to run is there.
func namedCommands(r *repo) (problems []string) {
	there := commandsOf(r)
	if len(there.parents) < 2 {
		return nil // no program yet
	}
	const say = "%s tells its reader to run \"keyturn %s\", and there is no such command: name one that cmd/keyturn has"
	for _, t := range r.texts {
		if path.Ext(t.path) != ".md" || strings.HasPrefix(t.path, "docs/design/") {
			continue // decisions also quote what is written on disks and wires
		}
		for _, m := range fenced.FindAllStringSubmatch(t.content, -1) {
			for line := range strings.Lines(m[1] + m[2]) {
				for _, name := range there.unknown(line) {
					problems = append(problems, fmt.Sprintf(say, t.path, name))
				}
			}
		}
	}
	for _, p := range r.packages {
		for _, f := range p.source() {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				var hint ast.Expr
				switch n := n.(type) {
				case *ast.CallExpr:
					if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "WithHint" && len(n.Args) > 0 {
						hint = n.Args[0]
					}
				case *ast.KeyValueExpr:
					if dotted(n.Key) == "Hint" {
						hint = n.Value
					}
				}
				if lit, ok := hint.(*ast.BasicLit); ok {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						for _, name := range there.unknown(text) {
							problems = append(problems, fmt.Sprintf(say, r.line(f, lit.Pos()), name))
						}
					}
				}
				return true
			})
		}
	}
	return problems
}
