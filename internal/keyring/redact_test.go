package keyring

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"keyturn/internal/store/storetest"
)

// forms returns how raw might show up in text or in a file: as it is, in hex, in
// base64 at each of the three places where it may start within a longer text,
// and as fmt prints a slice of bytes.
func forms(raw []byte) [][]byte {
	list := [][]byte{
		raw,
		[]byte(hex.EncodeToString(raw)),
		[]byte(strings.ToUpper(hex.EncodeToString(raw))),
		[]byte(strings.Trim(fmt.Sprint(raw), "[]")),
	}
	for shift := range 3 {
		padded := append(make([]byte, shift), raw...)
		encoded := base64.RawStdEncoding.EncodeToString(padded)
		// Only what depends on raw alone: not the characters it shares
		// with its neighbours.
		encoded = encoded[(shift*8+5)/6 : len(encoded)-2]
		list = append(list, []byte(encoded))
		list = append(list, []byte(strings.NewReplacer("+", "-", "/", "_").Replace(encoded)))
	}
	return list
}

// contains reports whether haystack holds raw in any form. Line breaks within
// base64 are looked past.
func contains(haystack, raw []byte) bool {
	joined := []byte(strings.NewReplacer("\r", "", "\n", "", `\n`, "").Replace(string(haystack)))
	for _, form := range forms(raw) {
		if bytes.Contains(haystack, form) || bytes.Contains(joined, form) {
			return true
		}
	}
	return false
}

// No value of this package gives its secret to fmt, slog or encoding/json, alone
// or within other values.
func TestNothingPrints(t *testing.T) {
	for _, spec := range specs {
		p, err := Generate(spec)
		if err != nil {
			t.Fatal(err)
		}
		p.Comment = "comment"
		text, err := p.text(PEM)
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Signer()
		if err != nil {
			t.Fatal(err)
		}
		secrets := rawHalves(t, p)
		secrets["text"] = bytes.Clone(text[40:140])
		for name, value := range map[string]any{"Private": p, "Signer": s, "Secret": NewSecret(text)} {
			checkPrints(t, spec.Type+" "+name, value, secrets)
		}
	}

	raw := bytes.Repeat([]byte{0x5a, 0xc3, 0x11}, 11)[:32]
	kek, err := newKEK(raw, "a test")
	if err != nil {
		t.Fatal(err)
	}
	checkPrints(t, "KEK", kek, map[string][]byte{"key": raw})

	st := storetest.Open(t, Schema)
	k, err := Open(t.Context(), st, kek)
	if err != nil {
		t.Fatal(err)
	}
	r, err := readRoot(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	checkPrints(t, "Keyring", k, map[string][]byte{"kek": raw, "root": openRootKey(t, kek, r.wrapped)})
}

type within struct {
	Public any
	hidden any
}

func checkPrints(t *testing.T, name string, value any, secrets map[string][]byte) {
	t.Helper()
	var out bytes.Buffer
	for _, v := range []any{value, &value, within{value, value}, &within{value, value}, []any{value}, map[string]any{"key": value}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v, fmt.Errorf("failed with %v: %w", v, errors.New("cause")))
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "value", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "value", v)
		if j, err := json.Marshal(v); err == nil {
			out.Write(j)
		}
	}
	if out.Len() < 500 || !strings.Contains(out.String(), "[redacted]") {
		t.Fatalf("%s: nothing was printed: %s", name, &out)
	}
	for what, raw := range secrets {
		if contains(out.Bytes(), raw) {
			t.Errorf("%s prints its %s", name, what)
		}
	}
}

// The search itself finds what it looks for.
func TestContains(t *testing.T) {
	raw := []byte("0123456789abcdefghijklmnopqrstuv")
	for name, text := range map[string]string{
		"raw":        "x" + string(raw) + "y",
		"hex":        hex.EncodeToString(raw),
		"slice":      fmt.Sprint(raw),
		"base64":     base64.StdEncoding.EncodeToString(raw),
		"base64 +1":  base64.StdEncoding.EncodeToString([]byte("!" + string(raw) + "??")),
		"base64 +2":  base64.RawStdEncoding.EncodeToString([]byte("!!" + string(raw) + "?")),
		"url base64": base64.URLEncoding.EncodeToString([]byte("!!" + string(raw) + "?")),
		"broken":     base64.StdEncoding.EncodeToString(raw)[:20] + "\n" + base64.StdEncoding.EncodeToString(raw)[20:],
	} {
		if !contains([]byte(text), raw) {
			t.Errorf("not found as %s: %s", name, text)
		}
	}
	if contains([]byte("something else that is long enough to hold it"), raw) {
		t.Error("found where it is not")
	}
}
