// Package keyturn holds no code, only the rules that this repository keeps:
// arch_test.go is the table of who may import whom, rulebook_test.go lists all
// rules with examples, code_test.go checks what Go files may hold, docs_test.go
// what documents and migrations may say, and rules_test.go reads the repository,
// runs the rules, and proves on the broken examples that each bites.
//
// "make arrows" runs them alone.
package keyturn

import (
	"fmt"
	"slices"
	"strings"
)

// mayImport is the drawing in ARCHITECTURE.md as a table: each package of this
// module and the packages it may import besides internal/trust, which everything
// may. Arrows point down only. A package that is not here fails, so that a new
// one, like a new arrow, is a line that somebody reviews.
//
// Names are folders below internal/, or below the module for what is outside.
var mayImport = map[string]string{
	// the ground: pure, or knowing no noun
	"trust":  "",
	"policy": "",
	"audit":  "",
	"store":  "audit",

	// rows, and who asks
	"keyring":   "store audit",
	"oidc":      "",
	"identity":  "store audit keyring oidc",
	"inventory": "store audit",
	"access":    "policy store audit",

	// what a certificate may be
	"authority": "store audit keyring",

	// hands
	"agent":  "",
	"dial":   "",
	"remote": "dial",
	"job":    "store audit",

	// which credential opens a host, and connections that are kept
	"reach": "store inventory keyring agent dial remote",

	// mechanisms
	"discovery": "store inventory job remote reach",
	"hostid":    "store audit keyring authority job",
	"jwk":       "store audit keyring job",
	"rotation":  "store audit inventory job remote dial keyring reach",

	// verbs: never a host's wire, so neither dial nor remote
	"control": "audit policy store keyring authority identity access inventory job discovery rotation hostid jwk",

	// front doors: a protocol comes in, one verb goes out; they never meet
	"api":            "control",
	"api/v1":         "api control",
	"api/appviewx":   "api control",
	"api/cfengine":   "api control",
	"api/cloudflare": "api control",
	"api/metrics":    "api control",
	"cmd/keyturn":    "*",

	// throw-away servers, for the demo and for tests
	"lab":      "",
	"lab/sim":  "lab",
	"test/lab": "lab need",

	// what only tests import
	"need":            "",
	"store/storetest": "store audit need",
	"oidc/oidctest":   "",
}

// forTests may be imported by the tests of every package, which may also import
// whatever their own package reaches in mayImport, however many arrows down.
var forTests = []string{"need", "store/storetest", "oidc/oidctest", "lab", "lab/sim"}

// serveTests are the packages that are no tests themselves and run in none but
// them (lab in the demo too). They may wait by polling, skip, and keep one
// server for the whole test process.
var serveTests = []string{"need", "store/storetest", "oidc/oidctest", "lab", "lab/sim", "test/lab"}

// secretOf names the package whose business a module is, with those below it.
// Nobody else imports it: that is what makes it possible to exchange it.
var secretOf = map[string]string{
	"modernc.org/sqlite":              "store",
	"github.com/jackc/pgx/":           "store",
	"github.com/pressly/goose/":       "store",
	"github.com/tink-crypto/":         "keyring",
	"gocloud.dev/":                    "keyring",
	"github.com/alexedwards/argon2id": "identity",
	"github.com/coreos/go-oidc/":      "oidc",
	"golang.org/x/oauth2":             "oidc",
	"github.com/spf13/cobra":          "cmd/keyturn",
	"github.com/prometheus/":          "api/metrics",
}

const module = "keyturn"

// short returns a package's name in the tables above: its folder, without
// "internal/".
func short(dir string) string { return strings.TrimPrefix(dir, "internal/") }

// reaches returns every package that lies below name, however many arrows down.
func reaches(name string) []string {
	var all []string
	for _, below := range strings.Fields(mayImport[name]) {
		if !slices.Contains(all, below) {
			all = append(all, below)
			all = append(all, reaches(below)...)
		}
	}
	return all
}

func arrows(r *repo) (problems []string) {
	for _, p := range r.packages {
		name := short(p.dir)
		allowed, known := mayImport[name]
		if !known && strings.HasPrefix(p.dir, "test/") {
			allowed, known = "*", true // scenarios over the whole product
		}
		if !known {
			problems = append(problems, fmt.Sprintf("%s: a package that the table mayImport in arch_test.go does not know: give it a line there and a place in the drawing in ARCHITECTURE.md", p.dir))
			continue
		}
		for _, f := range p.files {
			for _, imported := range f.imports() {
				problems = append(problems, wrongArrow(f, name, allowed, imported)...)
			}
		}
	}
	return problems
}

// wrongArrow says why the file f of the package name may not import what it
// imports.
func wrongArrow(f *file, name, allowed, imported string) []string {
	for secret, owner := range secretOf {
		if strings.HasPrefix(imported, secret) && name != owner && !strings.HasPrefix(name, owner+"/") && !f.test {
			return []string{fmt.Sprintf("%s imports %s, which is the secret of %s: ask that package for what you need", f.path, imported, owner)}
		}
	}
	target, ours := strings.CutPrefix(imported, module+"/")
	target = short(target)
	if !ours || target == "trust" || target == name || allowed == "*" || slices.Contains(strings.Fields(allowed), target) {
		return nil
	}
	if f.test && (slices.Contains(forTests, target) || slices.Contains(reaches(name), target)) {
		return nil
	}
	return []string{fmt.Sprintf("%s imports %s, but %s may import only trust and [%s]: move the code to where the arrow points down, or argue for the new arrow in arch_test.go and ARCHITECTURE.md", f.path, target, name, allowed)}
}
