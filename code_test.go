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

// documentsItself are methods whose meaning their interface fixes.
var documentsItself = []string{"String", "Error", "Unwrap", "Is", "As", "Close", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "LogValue", "Format", "GoString", "Len", "Less", "Swap"}

func exportedDocs(r *repo) (problems []string) {
	say := func(f *file, name *ast.Ident) {
		problems = append(problems, fmt.Sprintf("%s: %s is exported and says nothing: write what it is, its units, its errors and where the rule comes from", r.line(f, name.Pos()), name.Name))
	}
	for _, p := range r.packages {
		for _, f := range p.source() {
			for _, decl := range f.ast.Decls {
				switch d := decl.(type) {
				case *ast.FuncDecl:
					owner := receiver(d)
					if d.Doc == nil && d.Name.IsExported() && (owner == "" || ast.IsExported(owner) && !slices.Contains(documentsItself, d.Name.Name)) {
						say(f, d.Name)
					}
				case *ast.GenDecl:
					for _, spec := range d.Specs {
						switch s := spec.(type) {
						case *ast.TypeSpec:
							if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
								say(f, s.Name)
							}
						case *ast.ValueSpec:
							if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
								say(f, s.Names[0])
							}
						}
					}
				}
			}
		}
	}
	return problems
}

// receiver returns the name of the type that fn is a method of, or "".
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	switch generic := t.(type) {
	case *ast.IndexExpr:
		t = generic.X
	case *ast.IndexListExpr:
		t = generic.X
	}
	return dotted(t)
}

// wire are packages that encode and decode other people's values: job those that
// steps keep in the journal.
var wire = []string{"job", "api", "api/v1", "api/appviewx", "api/cfengine", "cmd/keyturn"}

// noAny: what goes in and out of an exported function has a type. Variadic
// ...any is for formats and the arguments of SQL.
func noAny(r *repo) (problems []string) {
	r.functions(func(f *file, fn *ast.FuncDecl) {
		owner := receiver(fn)
		if f.test || !fn.Name.IsExported() || owner != "" && !ast.IsExported(owner) || slices.Contains(wire, short(f.dir())) {
			return
		}
		check := func(fields *ast.FieldList) {
			if fields == nil {
				return
			}
			for _, field := range fields.List {
				if _, variadic := field.Type.(*ast.Ellipsis); variadic {
					continue
				}
				ast.Inspect(field.Type, func(n ast.Node) bool {
					id, isName := n.(*ast.Ident)
					in, isInterface := n.(*ast.InterfaceType)
					if isName && id.Name == "any" || isInterface && len(in.Methods.List) == 0 {
						problems = append(problems, r.line(f, n.Pos())+": any in the signature of "+fn.Name.Name+": name the type that it takes or gives")
					}
					return true
				})
			}
		}
		check(fn.Type.Params)
		check(fn.Type.Results)
	})
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
		if short(f.dir()) != "control" || f.test || fn.Recv == nil || !fn.Name.IsExported() {
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
