package identity

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"

	"keyturn/internal/audit"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// cheap is how tests hash that are not about hashing.
var cheap = &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// schemas are those of the tables that a Directory needs.
var schemas = []fs.FS{keyring.Schema, Schema}

// A clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A world is a Directory with its database, whose admin has the password
// "correct horse".
type world struct {
	*Directory
	t      *testing.T
	clock  *clock
	tenant trust.TenantID
	dir    string // of the database, where it is SQLite
}

const adminPassword = "correct horse"

// both runs a test in a new world on either engine.
func both(t *testing.T, test func(*testing.T, *world)) {
	t.Run("sqlite", func(t *testing.T) {
		url := storetest.SQLite(t, schemas...)
		w := newWorld(t, url)
		w.dir = filepath.Dir(strings.TrimPrefix(url, "sqlite:"))
		test(t, w)
	})
	t.Run("postgres", func(t *testing.T) { test(t, newWorld(t, storetest.Postgres(t, schemas...))) })
}

func newWorld(t *testing.T, url string) *world {
	t.Helper()
	w := emptyWorld(t, url)
	b, err := w.First(t.Context(), adminPassword)
	must(t, err)
	w.tenant = b.Tenant
	return w
}

func emptyWorld(t *testing.T, url string) *world {
	t.Helper()
	c := &clock{now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}
	var ring *keyring.Keyring
	s, err := store.Open(t.Context(), store.Options{
		URL: url, Schema: schemas, Now: c.Now,
		Personal: func(tx *store.Tx, tenant trust.TenantID, person string, plain []byte) ([]byte, error) {
			return ring.SealPersonal(tx, tenant, person, plain)
		},
	})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	kek, err := keyring.LoadKEK(filepath.Join(t.TempDir(), "kek"), "", true)
	must(t, err)
	ring, err = keyring.Open(t.Context(), s, kek)
	must(t, err)
	d, err := open(s, ring, Options{Now: c.Now, Log: slog.New(slog.DiscardHandler)}, cheap)
	must(t, err)
	return &world{Directory: d, t: t, clock: c}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, what string, err error, want trust.Kind) {
	t.Helper()
	if err == nil || trust.KindOf(err) != want {
		t.Errorf("%s: %v (%v), want an error of kind %v", what, err, trust.KindOf(err), want)
	}
}

// update runs fn in an Update of tenant.
func (w *world) update(tenant trust.TenantID, fn func(*store.Tx) error) error {
	ev := storetest.Event()
	ev.Tenant = tenant
	return w.store.Update(context.Background(), ev, fn)
}

func (w *world) admin() Actor {
	w.t.Helper()
	a, err := w.Password(w.t.Context(), "admin", adminPassword, "", "192.0.2.1")
	must(w.t, err)
	return a
}

// addUser adds a user with a password that is the name twice.
func (w *world) addUser(by Actor, name string, permissions ...Permission) User {
	w.t.Helper()
	hash, err := w.HashPassword(w.t.Context(), name+name)
	must(w.t, err)
	var u User
	must(w.t, w.update(by.Tenant, func(tx *store.Tx) (err error) {
		u, err = w.AddUser(tx, by, NewUser{Name: name, Password: hash, Rights: Rights{Permissions: permissions}})
		return err
	}))
	return u
}

func (w *world) createToken(by Actor, n NewToken) (Token, string, error) {
	var t Token
	var text string
	err := w.update(by.Tenant, func(tx *store.Tx) (err error) {
		t, text, err = w.CreateToken(tx, by, n)
		return err
	})
	return t, text, err
}

// otherTenant makes a second tenant with a user of the same name and password as
// the first one's admin, and returns that user.
func (w *world) otherTenant() Actor {
	w.t.Helper()
	hash, err := w.hasher.hash(w.t.Context(), adminPassword)
	must(w.t, err)
	u := User{ID: newID(), Name: AdminUser, Permissions: []Permission{All}, Rights: Rights{Permissions: []Permission{All}}}
	must(w.t, w.update(storetest.Other, func(tx *store.Tx) error {
		if err := insertTenant(tx, "other"); err != nil {
			return err
		}
		return insertUser(tx, u, hash)
	}))
	return Actor{Tenant: storetest.Other, Kind: "user", ID: u.ID, Name: u.Name, Owner: u.ID, Permissions: u.Permissions}
}

// events returns those of the tenant with that action, oldest first.
func (w *world) events(tenant trust.TenantID, action string) []audit.Leaf {
	w.t.Helper()
	all, err := w.store.Events(w.t.Context(), tenant, "", "", 1000)
	must(w.t, err)
	var list []audit.Leaf
	for _, e := range all {
		if e.Leaf.Action == action {
			list = append(list, e.Leaf)
		}
	}
	return list
}

func field(l audit.Leaf, name string) string {
	for _, f := range l.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func TestFirst(t *testing.T) {
	for name, url := range map[string]func() string{
		"sqlite":   func() string { return storetest.SQLite(t, schemas...) },
		"postgres": func() string { return storetest.Postgres(t, schemas...) },
	} {
		t.Run(name, func(t *testing.T) {
			w := emptyWorld(t, url())
			if _, err := w.Password(t.Context(), "admin", "", "", "192.0.2.1"); trust.KindOf(err) != trust.Unauthenticated {
				t.Errorf("a login before there is anybody: %v", err)
			}
			b, err := w.First(t.Context(), "")
			must(t, err)
			if !b.Created || len(b.Password) < 20 || !audit.IsTenant(b.Tenant) {
				t.Errorf("made %+v", b)
			}
			a, err := w.Password(t.Context(), "admin", b.Password, "", "192.0.2.1:4711")
			must(t, err)
			if a.Tenant != b.Tenant || a.Kind != "user" || a.Name != "admin" || a.Source != "192.0.2.1" || !a.May(KeysReveal) {
				t.Errorf("admin is %+v", a)
			}
			again, err := w.First(t.Context(), "another password")
			must(t, err)
			if again.Created || again.Password != "" || again.Tenant != b.Tenant {
				t.Errorf("the second time gives %+v", again)
			}
			if _, err := w.Password(t.Context(), "admin", "another password", "", "192.0.2.1"); trust.KindOf(err) != trust.Unauthenticated {
				t.Errorf("the second time has changed the password: %v", err)
			}
			must(t, w.store.View(t.Context(), b.Tenant, func(tx *store.Tx) error {
				tenant, err := w.Tenant(tx)
				if tenant.ID != b.Tenant || tenant.Name != "default" || tenant.Created.IsZero() {
					t.Errorf("tenant is %+v", tenant)
				}
				return err
			}))
			if l := w.events(b.Tenant, "tenant.create"); len(l) != 1 {
				t.Errorf("%d events tell of the tenant", len(l))
			}
		})
	}
}

// Nodes that start at the same time make one tenant.
func TestFirstRaces(t *testing.T) {
	for name, url := range map[string]func() string{
		"sqlite":   func() string { return storetest.SQLite(t, schemas...) },
		"postgres": func() string { return storetest.Postgres(t, schemas...) },
	} {
		t.Run(name, func(t *testing.T) {
			w := emptyWorld(t, url())
			var mu sync.Mutex
			made := map[trust.TenantID]int{}
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					b, err := w.First(context.Background(), adminPassword)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					if b.Created {
						made[b.Tenant]++
					} else {
						made[b.Tenant] += 0
					}
				})
			}
			wg.Wait()
			for tenant, n := range made {
				if len(made) != 1 || n != 1 {
					t.Errorf("%d tenants, %s made %d times", len(made), tenant, n)
				}
			}
		})
	}
}

func TestPassword(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.addUser(w.admin(), "Alice.L", KeysRead)
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			_, err := w.AddUser(tx, System(w.tenant), NewUser{Name: "nopass", Rights: Rights{Permissions: []Permission{KeysRead}}})
			return err
		}))
		// Whoever knew the password that nobody has would not be anybody by it.
		nobody, err := argon2id.CreateHash("nobody's password", cheap)
		must(t, err)
		w.hasher.nobody = nobody
		hashings := 0
		w.hasher.check = func(password, hash string) (bool, *argon2id.Params, error) {
			hashings++
			return argon2id.CheckHash(password, hash)
		}
		for i, c := range []struct {
			user, password string
			ok             bool
		}{
			{"admin", adminPassword, true},
			{"ADMIN", adminPassword, true},
			{"default/admin", adminPassword, true},
			{string(w.tenant) + "/admin", adminPassword, true},
			{"alice.l", "Alice.LAlice.L", true},
			{"admin", "wrong", false},
			{"admin", "", false},
			{"admin", adminPassword + " ", false},
			{"admin", strings.Repeat("x", 100_000), false},
			{"nopass", "", false},
			{"nopass", "x", false},
			{"nopass", "nobody's password", false},
			{"nobody", "nobody's password", false},
			{"nobody", adminPassword, false},
			{"", adminPassword, false},
			{"/admin", adminPassword, false},
			{"other/admin", adminPassword, false},
			{"default/default/admin", adminPassword, false},
			{"admin\x00", adminPassword, false},
			{"' OR 1=1 --", adminPassword, false},
			{strings.Repeat("x", 100_000), adminPassword, false},
		} {
			hashings = 0
			a, err := w.Password(t.Context(), c.user, c.password, "", fmt.Sprintf("198.51.100.%d", i))
			if c.ok != (err == nil) || (c.ok && a.Tenant != w.tenant) {
				t.Errorf("%.40q with %.40q: %+v, %v", c.user, c.password, a, err)
			}
			if !c.ok && (trust.KindOf(err) != trust.Unauthenticated || err.Error() != unauthenticated().Error()) {
				t.Errorf("%.40q with %.40q is refused with %v (%v)", c.user, c.password, err, trust.KindOf(err))
			}
			if hashings != 1 {
				t.Errorf("%.40q with %.40q: %d hashings, want one", c.user, c.password, hashings)
			}
		}
	})
}

// A name that nobody has is compared with a hash that costs what others cost.
func TestHashOfNobody(t *testing.T) {
	used, _, _, err := argon2id.DecodeHash(hashOfNobody(params))
	if err != nil || *used != *params {
		t.Errorf("the hash asks for %+v, want %+v: %v", used, params, err)
	}
	if one, other := hashOfNobody(params), hashOfNobody(params); one == other {
		t.Error("it is always the same")
	}
	if ok, err := argon2id.ComparePasswordAndHash("", hashOfNobody(cheap)); ok || err != nil {
		t.Errorf("the empty password fits: %v, %v", ok, err)
	}
}

// What is stored of a password is argon2id with the params that are documented,
// and one stored with others is stored anew at the next login.
func TestPasswordIsStoredAsArgon2id(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		stored := func() (hash string) {
			must(t, w.store.View(t.Context(), w.tenant, func(tx *store.Tx) (err error) {
				return tx.QueryRow(`SELECT password FROM users WHERE tenant = $1`, w.tenant).Scan(&hash)
			}))
			return hash
		}
		if !strings.HasPrefix(stored(), "$argon2id$v=19$m=64,t=1,p=1$") {
			t.Fatalf("stored as %s", stored())
		}
		h := newHasher(params)
		w.hasher = h
		w.admin()
		if !strings.HasPrefix(stored(), "$argon2id$v=19$m=65536,t=3,p=4$") {
			t.Errorf("after a login stored as %s", stored())
		}
		before := stored()
		w.admin()
		if stored() != before {
			t.Error("stored anew without need")
		}
		// A hash that would cost more than one of ours is not tried.
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE users SET password = $1 WHERE tenant = $2`, strings.Replace(before, "m=65536", "m=4194304", 1), w.tenant)
			return err
		}))
		if _, err := w.Password(t.Context(), "admin", adminPassword, "", "192.0.2.1"); err == nil {
			t.Error("a hash of 4 GiB was tried")
		}
	})
}

func TestPermissions(t *testing.T) {
	names := []string{
		"All", "Account Read", "Users Read", "Users Write", "Tokens Read", "Tokens Write", "Hosts Read", "Hosts Write", "Keys Read", "Keys Write",
		"Keys Supply", "Keys Use", "Keys Reveal", "Runs Read", "Runs Write", "Settings Read", "Settings Write", "Audit Read", "Metrics Read",
		"Certificates Read", "Certificates Write", "Certificates Issue",
		"Zero Trust Read", "Zero Trust Write", "Access: Apps and Policies Read", "Access: Apps and Policies Write", "Access: SSH Auditing Read", "Access: SSH Auditing Write",
		"Access: Organizations, Identity Providers, and Groups Read", "Access: Organizations, Identity Providers, and Groups Write",
		"Access: Audit Logs Read", "Access: Policy Test Read", "Access: Policy Test Write",
	}
	list, err := ParsePermissions(names)
	if err != nil || len(list) != len(Permissions) {
		t.Errorf("parsed as %v, %v", list, err)
	}
	if list, err := ParsePermissions([]string{"keys read", " Keys Read", "KEYS READ"}); err != nil || !slices.Equal(list, []Permission{KeysRead}) {
		t.Errorf("parsed as %v, %v", list, err)
	}
	for _, bad := range [][]string{nil, {}, {""}, {"Keys"}, {"Keys Read", "Keys Reed"}, {"Keys Read\nAll"}, {strings.Repeat("x", 10_000)}} {
		_, err := ParsePermissions(bad)
		wantKind(t, fmt.Sprintf("%.60q", bad), err, trust.Invalid)
		for _, name := range names {
			if !strings.Contains(err.Error(), `"`+name+`"`) {
				t.Errorf("%.60q: the error does not list %q", bad, name)
			}
		}
		if len(err.Error()) > 1000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}

	for _, c := range []struct {
		holds []Permission
		p     Permission
		want  bool
	}{
		{nil, KeysRead, false},
		{[]Permission{KeysRead}, KeysRead, true},
		{[]Permission{KeysRead}, KeysWrite, false},
		{[]Permission{KeysWrite}, KeysRead, true},
		{[]Permission{KeysWrite}, KeysReveal, false},
		{[]Permission{KeysReveal}, KeysRead, false},
		{[]Permission{KeysWrite}, HostsRead, false},
		{[]Permission{All}, KeysReveal, true},
		{[]Permission{All}, All, true},
		{[]Permission{KeysWrite}, All, false},
		{[]Permission{All}, "Something Later", true},
	} {
		a := Actor{Kind: "user", Name: "x", Permissions: c.holds}
		if got := a.May(c.p); got != c.want {
			t.Errorf("%v may %q: %t, want %t", c.holds, c.p, got, c.want)
		}
		err := a.Require(c.p)
		if c.want != (err == nil) || (err != nil && (trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), string(c.p)))) {
			t.Errorf("%v requires %q: %v", c.holds, c.p, err)
		}
	}
	if got := decodePermissions("Keys Read\nMoons Write\n\nKeys Reveal"); !slices.Equal(got, []Permission{KeysRead, KeysReveal}) {
		t.Errorf("a newer version's column reads as %v", got)
	}
}

// What the documents say of a token's form, its scanner finds and its checksum
// confirms.
func TestTokenFormat(t *testing.T) {
	form := regexp.MustCompile(`^kt_[0-9A-Za-z]{49}$`)
	seen := map[string]bool{}
	for range 1000 {
		text := newToken()
		if !form.MatchString(text) || seen[text] {
			t.Fatalf("token %q", text)
		}
		seen[text] = true
		if _, err := tokenHash(text); err != nil {
			t.Fatalf("token %q: %v", text, err)
		}
	}
	// A known one: whoever wrote a scanner by the document relies on it.
	known := tokenPrefix + toBase62(make([]byte, 32), tokenDigits)
	known += checksum(known[3:])
	if want := "kt_0000000000000000000000000000000000000000000" + "2CZclj"; known != want {
		t.Errorf("the token of 32 zeros is %q, want %q", known, want)
	}
	ones := toBase62([]byte(strings.Repeat("\xff", 32)), tokenDigits)
	if len(ones) != 43 || ones[0] == '0' {
		t.Errorf("the greatest number is %q", ones)
	}
	good := newToken()
	for _, bad := range []string{
		"", "kt_", "x", good[:len(good)-1], good + "0", " " + good, strings.Replace(good, "kt_", "KT_", 1), strings.Replace(good, "kt_", "kt-", 1),
		good[:3] + strings.Repeat("!", 49), flipAt(good, 5), flipAt(good, 45), flipAt(good, 50), strings.Repeat("a", 1<<20),
	} {
		_, err := tokenHash(bad)
		wantKind(t, fmt.Sprintf("%.60q", bad), err, trust.Unauthenticated)
		if len(bad) > 20 && err != nil && strings.Contains(err.Error(), bad[10:20]) {
			t.Errorf("the error quotes the token: %v", err)
		}
	}
}

// flipAt changes one character.
func flipAt(s string, i int) string {
	c := byte('a')
	if s[i] == c {
		c = 'b'
	}
	return s[:i] + string(c) + s[i+1:]
}

func TestSource(t *testing.T) {
	for text, want := range map[string][2]string{
		"192.0.2.1":                {"192.0.2.1", "192.0.2.1"},
		"192.0.2.1:80":             {"192.0.2.1", "192.0.2.1"},
		"::ffff:192.0.2.1":         {"192.0.2.1", "192.0.2.1"},
		"[::ffff:192.0.2.1]:80":    {"192.0.2.1", "192.0.2.1"},
		"2001:db8:1:2:3:4:5:6":     {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		"[2001:db8:1:2::9]:443":    {"2001:db8:1:2::9", "2001:db8:1:2::/64"},
		"[fe80::1%eth0]:443":       {"fe80::1", "fe80::/64"},
		"":                         {"", ""},
		"unix":                     {"unix", "unix"},
		"a\x00b\xff":               {"ab", "ab"},
		strings.Repeat("x", 10000): {strings.Repeat("x", 64), strings.Repeat("x", 64)},
	} {
		if shown, counted := source(text); shown != want[0] || counted != want[1] {
			t.Errorf("%.40q is %q, counted as %q, want %q", text, shown, counted, want)
		}
	}
}
