package main

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"
	"testing"
)

// certs returns what anybody is told who asks a host for the keys of an account.
func (w *world) certs(host string) (status int, p struct {
	Keys []struct {
		KID, Kty, Alg, Use, E, N string
	}
	PublicCert  *struct{ KID, Cert string }  `json:"public_cert"`
	PublicCerts []struct{ KID, Cert string } `json:"public_certs"`
},
) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), "GET", w.client.server+"/cdn-cgi/access/certs", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, p
}

// Whoever verifies tokens of an account finds the key that signs, and those before it, at
// the host of the account, in both forms that libraries read.
func TestJWKs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	account := w.account().ID
	const host = "keyturn.example.com"
	if status, p := w.certs(host); status != 200 || p.Keys == nil || len(p.Keys) != 0 || p.PublicCerts == nil || p.PublicCert != nil {
		t.Errorf("before anybody asked by a credential: %d %+v", status, p)
	}
	var first, second jwksJSON
	w.json(&first, "jwk", "show")
	w.json(&second, "jwk", "rotate")
	if first.Days != 42 || first.Left != 42 || len(first.Keys) != 1 || len(second.Keys) != 2 || second.Keys[0].KID == first.Keys[0].KID ||
		second.Keys[1].KID != first.Keys[0].KID || second.Keys[0].Until != nil || second.Keys[1].Until == nil {
		t.Fatalf("first %+v, and after a rotation %+v", first, second)
	}
	w.json(&second, "jwk", "set", "--rotate-after-days", "365")
	if second.Days != 365 || second.Left != 365 || len(second.Keys) != 2 {
		t.Errorf("set to 365 days it is %+v", second)
	}
	if out := w.ok("jwk", "show"); !strings.Contains(out, "365 days") || !strings.Contains(out, second.Keys[0].KID) {
		t.Errorf("shown as\n%s", out)
	}
	status, p := w.certs(account + ".example.com:443")
	if _, same := w.certs(host); status != 200 || len(p.Keys) != 2 || len(p.PublicCerts) != 2 || p.PublicCert == nil || p.PublicCert.KID != second.Keys[0].KID || len(same.Keys) != 2 {
		t.Fatalf("published %d %+v", status, p)
	}
	for i, k := range p.Keys {
		block, _ := pem.Decode([]byte(p.PublicCerts[i].Cert))
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		public := certificate.PublicKey.(*rsa.PublicKey)
		n, err := base64.RawURLEncoding.DecodeString(k.N)
		if err != nil || public.N.BitLen() != 2048 || public.N.Cmp(new(big.Int).SetBytes(n)) != 0 || k.E != "AQAB" || k.Kty != "RSA" || k.Alg != "RS256" || k.Use != "sig" {
			t.Errorf("the key %+v is not that of its certificate: %v", k, err)
		}
		if k.KID != second.Keys[i].KID || len(k.KID) != 64 || p.PublicCerts[i].KID != k.KID || p.PublicCerts[i].Cert != second.Keys[i].Certificate {
			t.Errorf("published is %+v, and shown %+v", k, second.Keys[i])
		}
		if err := certificate.CheckSignature(certificate.SignatureAlgorithm, certificate.RawTBSCertificate, certificate.Signature); err != nil {
			t.Error(err)
		}
	}
	if status, _ := w.certs(strings.Repeat("9", 32) + ".example.com"); status != 404 {
		t.Errorf("an account that is not there: %d", status)
	}
	// Each account has its own.
	var added addedAccountJSON
	w.json(&added, "account", "add", "other")
	if status, p := w.certs(added.ID + ".example.com"); status != 200 || len(p.Keys) != 0 {
		t.Errorf("another account: %d %+v", status, p)
	}
}
