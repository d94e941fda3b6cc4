package identity

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// jwtOf makes a JWT of any header and claims, signed with a key.
func jwtOf(key []byte, header, claims string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(header)) + "." + b64([]byte(claims))
	return signed + "." + b64(serviceMAC(key, signed))
}

func TestServiceToken(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		token, secret, err := w.createToken(w.admin(), NewToken{Name: "svc", Permissions: []Permission{KeysWrite}})
		must(t, err)
		jwt, expires, err := w.IssueServiceToken(t.Context(), token.ID, secret, "192.0.2.1")
		must(t, err)
		if !expires.Equal(w.clock.Now().Add(serviceTokenLife)) {
			t.Errorf("ends at %s", expires)
		}

		// The wire is AppViewX's.
		parts := strings.Split(jwt, ".")
		if len(parts) != 3 {
			t.Fatalf("jwt %q", jwt)
		}
		for i, want := range []string{
			`{"alg":"HS256","typ":"JWT"}`,
			fmt.Sprintf(`{"sub":%q,"aud":"avx","iss":"avx","clientId":%q,"grant type":"client_credentials","iat":%d,"exp":%d}`,
				token.ID, token.ID, w.clock.Now().Unix(), expires.Unix()),
		} {
			if got, err := base64.RawURLEncoding.DecodeString(parts[i]); err != nil || string(got) != want {
				t.Errorf("part %d is %s, want %s", i, got, want)
			}
		}

		a, err := w.ServiceToken(t.Context(), jwt, "192.0.2.1")
		must(t, err)
		if a.Kind != "token" || a.ID != token.ID || a.Tenant != w.tenant || !a.May(KeysWrite) || a.May(HostsRead) || a.Source != "192.0.2.1" {
			t.Errorf("acts as %+v", a)
		}
		if l := w.events(w.tenant, "token.exchange"); len(l) != 1 || l[0].Subject != "token:"+token.ID {
			t.Errorf("events %+v", l)
		}

		w.clock.Advance(serviceTokenLife - time.Second)
		if _, err := w.ServiceToken(t.Context(), jwt, ""); err != nil {
			t.Errorf("just before its end: %v", err)
		}
		w.clock.Advance(time.Second)
		_, err = w.ServiceToken(t.Context(), jwt, "")
		wantKind(t, "at its end", err, trust.Unauthenticated)

		jwt, _, err = w.IssueServiceToken(t.Context(), token.ID, secret, "")
		must(t, err)
		must(t, w.update(w.tenant, func(tx *store.Tx) error { _, err := w.RevokeToken(tx, token.ID); return err }))
		_, err = w.ServiceToken(t.Context(), jwt, "")
		wantKind(t, "of a revoked token", err, trust.Unauthenticated)
		_, _, err = w.IssueServiceToken(t.Context(), token.ID, secret, "")
		wantKind(t, "for a revoked token", err, trust.Unauthenticated)
	})
}

func TestIssueServiceTokenRefuses(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		token, secret, err := w.createToken(admin, NewToken{Name: "a", Permissions: []Permission{KeysRead}})
		must(t, err)
		brief, briefSecret, err := w.createToken(admin, NewToken{Name: "b", Permissions: []Permission{KeysRead}, Valid: 5 * time.Minute})
		must(t, err)
		for name, c := range map[string][2]string{
			"another's secret": {token.ID, briefSecret},
			"another's id":     {brief.ID, secret},
			"an unknown id":    {newID(), secret},
			"no id":            {"", secret},
			"no secret":        {token.ID, ""},
			"a NUL":            {"\x00", secret},
			"the password":     {token.ID, adminPassword},
		} {
			jwt, _, err := w.IssueServiceToken(t.Context(), c[0], c[1], "")
			wantKind(t, name, err, trust.Unauthenticated)
			if jwt != "" || err.Error() != unauthenticated().Error() {
				t.Errorf("%s: %q, %v", name, jwt, err)
			}
		}
		// It does not outlive what it stands for.
		_, expires, err := w.IssueServiceToken(t.Context(), brief.ID, briefSecret, "")
		if err != nil || expires.After(brief.Expires) {
			t.Errorf("ends at %s, %v; its token at %s", expires, err, brief.Expires)
		}
	})
}

// A service token ends with the text that it was exchanged for.
func TestServiceTokenEndsWithItsText(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		token, text, err := w.createToken(admin, NewToken{Name: "svc", Permissions: []Permission{All}})
		must(t, err)
		exchange := func(text string) string {
			t.Helper()
			jwt, _, err := w.IssueServiceToken(t.Context(), token.ID, text, "")
			must(t, err)
			return jwt
		}
		rotate := func(overlap time.Duration) (text string) {
			t.Helper()
			must(t, w.update(w.tenant, func(tx *store.Tx) (err error) {
				_, text, err = w.RotateToken(tx, admin, token.ID, overlap)
				return err
			}))
			return text
		}
		holds := func(what, jwt string, want bool) {
			t.Helper()
			if _, err := w.ServiceToken(t.Context(), jwt, ""); (err == nil) != want || err != nil && trust.KindOf(err) != trust.Unauthenticated {
				t.Errorf("%s: %v", what, err)
			}
		}
		first := exchange(text)
		text = rotate(5 * time.Minute)
		second := exchange(text)
		holds("of the text before, in the overlap", first, true)
		holds("of the text after", second, true)
		w.clock.Advance(6 * time.Minute)
		holds("of the text before, after the overlap", first, false)
		holds("of the text after", second, true)
		rotate(0)
		holds("of a text that ended at once", second, false)
	})
}

func TestServiceTokenRefusesForgeries(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		token, secret, err := w.createToken(w.admin(), NewToken{Name: "svc", Permissions: []Permission{All}})
		must(t, err)
		good, _, err := w.IssueServiceToken(t.Context(), token.ID, secret, "")
		must(t, err)
		var key []byte
		must(t, w.store.View(t.Context(), w.tenant, func(tx *store.Tx) (err error) {
			key, err = w.keyring.Unseal(tx, signingKind, signingID)
			return err
		}))
		hash, err := tokenHash(secret)
		must(t, err)
		key = serviceMAC(key, string(hash))
		now := w.clock.Now().Unix()
		claims := func(change func(m map[string]any)) string {
			m := map[string]any{
				"sub": token.ID, "aud": "avx", "iss": "avx", "clientId": token.ID, "grant type": "client_credentials",
				"iat": now, "exp": now + 600,
			}
			change(m)
			text, err := json.Marshal(m)
			must(t, err)
			return string(text)
		}
		const header = `{"alg":"HS256","typ":"JWT"}`
		fine := claims(func(map[string]any) {})
		if _, err := w.ServiceToken(t.Context(), jwtOf(key, header, fine), ""); err != nil {
			t.Fatalf("the forger's tools do not make a good one: %v", err)
		}
		set := func(name string, value any) string { return claims(func(m map[string]any) { m[name] = value }) }
		without := func(name string) string { return claims(func(m map[string]any) { delete(m, name) }) }
		parts := strings.Split(good, ".")
		// The last of 43 characters for 32 bytes holds two bits that mean nothing.
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		respelled := string(alphabet[strings.IndexByte(alphabet, good[len(good)-1])+1])
		stranger := w.otherTenant()
		strangers, strangersSecret, err := w.createToken(stranger, NewToken{Name: "s", Permissions: []Permission{All}})
		must(t, err)
		_, _, err = w.IssueServiceToken(t.Context(), strangers.ID, strangersSecret, "")
		must(t, err)

		for name, jwt := range map[string]string{
			"nothing":                  "",
			"dots":                     "..",
			"no signature":             parts[0] + "." + parts[1] + ".",
			"two parts":                parts[0] + "." + parts[1],
			"four parts":               good + ".",
			"signature cut":            good[:len(good)-2],
			"signature of something":   parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(serviceMAC([]byte("x"), parts[0]+"."+parts[1])),
			"signed with nothing":      jwtOf(nil, header, fine),
			"line break within":        parts[0][:4] + "\n" + parts[0][4:] + "." + parts[1] + "." + parts[2],
			"another spelling":         good[:len(good)-1] + respelled,
			"padded":                   parts[0] + "=." + parts[1] + "." + parts[2],
			"other claims":             parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(set("exp", now+700))) + "." + parts[2],
			"no algorithm":             jwtOf(key, `{"alg":"none","typ":"JWT"}`, fine),
			"no algorithm, unsigned":   base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + ".",
			"algorithm in lower case":  jwtOf(key, `{"alg":"hs256","typ":"JWT"}`, fine),
			"another algorithm":        jwtOf(key, `{"alg":"HS512","typ":"JWT"}`, fine),
			"a public key's algorithm": jwtOf(key, `{"alg":"RS256","typ":"JWT"}`, fine),
			"another type":             jwtOf(key, `{"alg":"HS256","typ":"at+jwt"}`, fine),
			"no type":                  jwtOf(key, `{"alg":"HS256"}`, fine),
			"a key of its own":         jwtOf(key, `{"alg":"HS256","typ":"JWT","kid":"../../dev/null"}`, fine),
			"critical header":          jwtOf(key, `{"alg":"HS256","typ":"JWT","crit":["x"],"x":1}`, fine),
			"header followed by more":  jwtOf(key, header+`{}`, fine),
			"header not JSON":          jwtOf(key, `alg`, fine),
			"claims not JSON":          jwtOf(key, header, `x`),
			"claims followed by more":  jwtOf(key, header, fine+fine),
			"one claim more":           jwtOf(key, header, set("nbf", now)),
			"another issuer":           jwtOf(key, header, set("iss", "evil")),
			"no issuer":                jwtOf(key, header, without("iss")),
			"another audience":         jwtOf(key, header, set("aud", "other")),
			"a list of audiences":      jwtOf(key, header, set("aud", []string{"avx"})),
			"no audience":              jwtOf(key, header, without("aud")),
			"another grant":            jwtOf(key, header, set("grant type", "password")),
			"another subject":          jwtOf(key, header, set("sub", "admin")),
			"no end":                   jwtOf(key, header, without("exp")),
			"ended":                    jwtOf(key, header, set("exp", now)),
			"ends in words":            jwtOf(key, header, set("exp", "9999999999")),
			"ends in a fraction":       jwtOf(key, header, set("exp", float64(now)+600.5)),
			"lives too long":           jwtOf(key, header, set("exp", now+3600)),
			"lives for ever":           jwtOf(key, header, set("exp", int64(1)<<62)),
			"from the future":          jwtOf(key, header, claims(func(m map[string]any) { m["iat"], m["exp"] = now+300, now+900 })),
			"from before time":         jwtOf(key, header, set("iat", int64(-1)<<62)),
			"beyond all numbers":       jwtOf(key, header, claims(func(m map[string]any) { m["iat"], m["exp"] = int64(-1)<<62, int64(1)<<62 })),
			"unknown client":           jwtOf(key, header, claims(func(m map[string]any) { id := newID(); m["sub"], m["clientId"] = id, id })),
			"no client":                jwtOf(key, header, claims(func(m map[string]any) { m["sub"], m["clientId"] = "", "" })),
			"another tenant's client":  jwtOf(key, header, claims(func(m map[string]any) { m["sub"], m["clientId"] = strangers.ID, strangers.ID })),
			"an API token":             secret,
			"too long":                 jwtOf(key, header, set("sub", strings.Repeat("x", 1<<20))),
		} {
			a, err := w.ServiceToken(t.Context(), jwt, "")
			if err == nil {
				t.Errorf("%s: acts as %+v", name, a)
			} else if trust.KindOf(err) != trust.Unauthenticated || err.Error() != unauthenticated().Error() {
				t.Errorf("%s: refused with %v (%v)", name, err, trust.KindOf(err))
			}
		}
	})
}

// FuzzServiceToken looks for panics, and for a JWT that is read as one of another
// spelling.
func FuzzServiceToken(f *testing.F) {
	id := strings.Repeat("0123456789abcdef", 2)
	good, err := signServiceToken([]byte("key"), serviceClaims{Subject: id, Audience: "avx", Issuer: "avx", ClientID: id, GrantType: serviceGrant, IssuedAt: 1, Expires: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("e30.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, jwt string) {
		c, signed, mac, ok := parseServiceToken(jwt)
		if !ok {
			return
		}
		if again := signed + "." + base64.RawURLEncoding.EncodeToString(mac); again != jwt {
			t.Fatalf("%q is read as %q", jwt, again)
		}
		if !isID(c.ClientID) {
			t.Fatalf("client id %q", c.ClientID)
		}
	})
}

// FuzzToken looks for panics, and for text of another form that passes.
func FuzzToken(f *testing.F) {
	f.Add(newToken())
	f.Add("kt_")
	f.Fuzz(func(t *testing.T, text string) {
		hash, err := tokenHash(text)
		if err == nil && (len(text) != tokenLength || len(hash) != 32) {
			t.Fatalf("%q passes", text)
		}
	})
}
