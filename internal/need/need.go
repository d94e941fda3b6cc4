// Package need says what a test cannot do without, and what happens when the
// machine does not have it: on a developer's machine the test is skipped and
// says why; where KEYTURN_CI is set it fails, because CI installs and is given
// all that the tests need, and a capability that goes missing there would
// otherwise take the tests that prove a promise with it, silently.
//
// Only tests and the packages that serve them (storetest, lab) import it. A
// test is skipped through this package or not at all; a test in the root folder
// holds that rule.
package need

import (
	"flag"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Skip skips the test for the reason given, or fails it where KEYTURN_CI is
// set. The reason names what is missing and what provides it, such as
// "sshd is not installed (package openssh-server)".
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("KEYTURN_CI") != "" {
		t.Fatalf("required in CI: "+format, args...)
	}
	t.Skipf(format, args...)
}

// Optional skips the test for the reason given, in CI too. It is for what CI is
// not promised to have, such as the root of an OpenSSH release that its mirror
// may have dropped.
func Optional(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Skipf("optional: "+format, args...)
}

// Long skips the test with -short, as the race detector's stage runs the tests: for what
// takes long, and is proven without it in the stage before. Of all such tests a plain "go
// test ./..." makes one in longShare, drawn by a seed that is said, and 'make test' all,
// see Full; so does "go test -run", which asks for a test by its name.
func Long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("long: not with -short")
	}
	if Full() || flag.Lookup("test.run").Value.String() != "" {
		return
	}
	seed := shareSeed(t)
	name := fnv.New64a()
	name.Write([]byte(t.Name()))
	if rand.New(rand.NewPCG(seed, name.Sum64())).IntN(longShare) != 0 {
		t.Skipf("long: one in %d is made, and not this one by KEYTURN_SHARE_SEED=%d; all with KEYTURN_FULL=1", longShare, seed)
	}
}

// longShare is which part of the long tests a plain "go test ./..." makes.
const longShare = 4

// Full reports whether a proof that takes minutes is to be made whole, as 'make
// test' has it: with KEYTURN_FULL set. Without, as under a plain "go test ./...",
// it is made for a share of its cases, which it draws by a seed and says.
func Full() bool {
	return os.Getenv("KEYTURN_FULL") != "" || os.Getenv("KEYTURN_SOAK") != ""
}

// Share returns all cases of a proof that is to be made whole, see Full, and else n
// of them, which it draws by a seed that it logs. KEYTURN_SHARE_SEED repeats a draw.
func Share[T any](t testing.TB, n int, cases ...T) []T {
	t.Helper()
	if Full() || n >= len(cases) {
		return cases
	}
	seed := shareSeed(t)
	t.Logf("%d of %d cases, by KEYTURN_SHARE_SEED=%d; all with KEYTURN_FULL=1", n, len(cases), seed)
	drawn := rand.New(rand.NewPCG(seed, 0)).Perm(len(cases))[:n]
	slices.Sort(drawn)
	share := make([]T, n)
	for i, at := range drawn {
		share[i] = cases[at]
	}
	return share
}

// shareSeed is what a share is drawn by.
func shareSeed(t testing.TB) uint64 {
	t.Helper()
	text := os.Getenv("KEYTURN_SHARE_SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("KEYTURN_SHARE_SEED is %q, want a number", text)
	}
	return seed
}

// Root skips the test unless it runs as uid 0.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root (namespaces, mounts, several accounts): run the tests as root")
	}
}

// Program returns the path of a program that the Debian package provides, and
// skips the test when it is not there. Besides PATH it looks where Debian keeps
// daemons, which an ordinary user's PATH leaves out.
func Program(t testing.TB, name, debianPackage string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	Skip(t, "%s is not installed (package %s): run 'make deps'", name, debianPackage)
	return ""
}

// Within ends the tests of the package, with the test's name and what every goroutine
// is at, when the test takes longer than limit: one that waits without end is told
// within minutes, and not when all of them have used up the time of go test. It is
// for tests that talk to hosts or servers, and starts to count where it is called:
// after t.Parallel, and not in a bubble of synctest. Soaks have no limit.
func Within(t testing.TB, limit time.Duration) {
	t.Helper()
	if os.Getenv("KEYTURN_SOAK") != "" {
		return
	}
	late := time.AfterFunc(limit, func() {
		debug.SetTraceback("all")
		panic(t.Name() + " has not ended after " + limit.String())
	})
	t.Cleanup(func() { late.Stop() })
}

// Soak skips the test unless KEYTURN_SOAK is set, as 'make soak' sets it: for
// tests named TestSoak..., which take hours or gigabytes.
func Soak(t testing.TB) {
	t.Helper()
	if os.Getenv("KEYTURN_SOAK") == "" {
		t.Skip("a soak: run 'make soak'")
	}
}
