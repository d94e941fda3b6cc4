package rotation

import (
	"slices"

	"keyturn/internal/trust"
)

// This file holds what a rotation does to the bytes of an authorized_keys file:
// pure functions from old bytes to new, each of which may be applied again to
// what it made, and to what another writer made of it.

// A Succession is one line of the old key and the line of the new key that was
// put after it, as exact texts without line endings. A run notes them so that a
// later run can bring the old text back byte for byte.
type Succession struct {
	Old string `json:"old"`
	New string `json:"new"`
}

// addSuccessors puts a line of next after each line of old that has none with
// the same options. The text is With(next) of the old line, unless known tells
// that this very line once succeeded another: then that other text comes back.
// It returns the new bytes and every succession in the file, those that were
// there before included.
func addSuccessors(data []byte, old, next trust.PublicKey, known []Succession) ([]byte, []Succession, error) {
	f := trust.ParseAuthorizedKeys(data)
	present := linesOf(f, next)
	var made []Succession
	for i := 0; i < f.Len(); i++ {
		l := f.Line(i)
		if l.Kind() != trust.KeyLine || l.Key() != old {
			continue
		}
		heirs := present
		if i+1 < f.Len() {
			// What an earlier call put there stands right after its line: of several
			// heirs with the same options that one is meant.
			if below := f.Line(i + 1); below.Key() == next {
				heirs = append([]trust.AuthorizedLine{below}, present...)
			}
		}
		if at := slices.IndexFunc(heirs, func(h trust.AuthorizedLine) bool { return trust.SameOptions(h, l) }); at >= 0 {
			made = append(made, Succession{Old: l.Text(), New: heirs[at].Text()})
			continue
		}
		text := l.With(next)
		if k := slices.IndexFunc(known, func(s Succession) bool { return s.New == l.Text() }); k >= 0 && holds(known[k].Old, next) {
			text = known[k].Old
		}
		if err := f.Insert(i+1, text); err != nil {
			return nil, nil, err
		}
		made = append(made, Succession{Old: l.Text(), New: text})
		i++
	}
	return f.Bytes(), made, nil
}

// withdraw removes every line of old. With a successor, each of them must be
// outlived by a line of next with the same options in the very bytes that are
// replaced; the error names the first that is not.
func withdraw(data []byte, old, next trust.PublicKey, path string) ([]byte, []string, error) {
	f := trust.ParseAuthorizedKeys(data)
	if !next.IsZero() {
		heirs := linesOf(f, next)
		for _, l := range linesOf(f, old) {
			if !slices.ContainsFunc(heirs, func(h trust.AuthorizedLine) bool { return trust.SameOptions(h, l) }) {
				return nil, nil, trust.Errorf(trust.Conflict, "%s no longer holds the new key %s with the options of the old one %s: the old key stays", path, next.Fingerprint(), old.Fingerprint()).
					WithHint("find out what else writes that file; put the line of the new key back and resume the run, or take the run back")
			}
		}
	}
	removed := f.RemoveKey(old)
	return f.Bytes(), removed, nil
}

// undoAuthorize takes out of data the lines of next, but for those that were
// there before the run: kept holds their texts.
func undoAuthorize(data []byte, next trust.PublicKey, kept []string) ([]byte, error) {
	f := trust.ParseAuthorizedKeys(data)
	kept = slices.Clone(kept)
	for _, i := range slices.Backward(f.Find(next)) {
		l := f.Line(i)
		if k := slices.Index(kept, l.Text()); k >= 0 {
			kept = slices.Delete(kept, k, k+1)
			continue
		}
		f.RemoveLine(i)
	}
	return f.Bytes(), nil
}

// linesOf returns the lines of f that hold key.
func linesOf(f *trust.AuthorizedKeys, key trust.PublicKey) []trust.AuthorizedLine {
	var lines []trust.AuthorizedLine
	for _, i := range f.Find(key) {
		lines = append(lines, f.Line(i))
	}
	return lines
}

// textsOf returns the exact texts of the lines of f that hold key.
func textsOf(data []byte, key trust.PublicKey) []string {
	var texts []string
	for _, l := range linesOf(trust.ParseAuthorizedKeys(data), key) {
		texts = append(texts, l.Text())
	}
	return texts
}

// holds reports whether text is one line that holds key.
func holds(text string, key trust.PublicKey) bool {
	f := trust.ParseAuthorizedKeys([]byte(text))
	return f.Len() == 1 && len(f.Find(key)) == 1
}
