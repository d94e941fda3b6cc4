package rotation

import (
	"context"
	"slices"
	"strings"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds the table that takes a key away without a successor, and the
// one that brings its lines back.

func (ro *Rotator) retire() job.Procedure {
	return job.Procedure{
		Name: RetireProcedure,
		Steps: []job.Step{
			{Name: "Baseline", On: Places, Do: ro.baseline, Undo: ro.release, Parting: true},
			{Name: "Withdraw", On: Authorized, Do: ro.retireLines, Group: "drop"},
			{Name: "Disprove", On: Authorized, Do: ro.retired, Group: "drop"},
			{Name: "Archive", On: job.Once, Do: ro.archive},
			{Name: "Release", On: Places, Do: ro.release, Parting: true},
		},
		Turn:    "Withdraw",
		Reverse: ro.reverseRetirement,
		Leave:   func(*store.Tx, job.Run, job.Target) (job.Effect, error) { return job.Effect{}, nil },
		Started: ro.started,
		Ended:   ro.ended,
	}
}

// A Removed is a line that was taken out of a file, with its number then, from 0, or -1
// where that is not known, and its ending.
type Removed struct {
	At   int    `json:"at"`
	Text string `json:"text"`
	End  string `json:"end,omitempty"`
}

// A Taken is what was taken out of a file, and what it takes to put it back byte for
// byte where nobody has written to the file since.
type Taken struct {
	Lines []Removed `json:"lines"`
	// Tail is the ending that the last line lost which stayed, when the last line of
	// all had none.
	Tail string `json:"tail,omitempty"`
	// Before and SHA256 are of the file before and afterwards; Before is empty where it
	// is not known.
	Before string `json:"before,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
}

// retireLines is row Withdraw of a retirement.
func (ro *Rotator) retireLines(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host, c.pair.Old)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var k, now Taken
	if _, err := r.ResultOf(ctx, "Withdraw", t, &k); err != nil {
		return nil, err
	}
	change, err := h.Edit(ctx, c.lock(), c.spec.User, c.spec.Path, func(old []byte) (data []byte, _ error) {
		data, now = takeOut(old, c.pair.OldKey)
		return data, nil
	})
	if err != nil {
		return nil, err
	}
	switch {
	case len(k.Lines) == 0 && len(now.Lines) > 0:
		k = now
	case len(k.Lines) == 0:
		// An attempt whose outcome was lost took them away: Baseline still has them.
		k = f.taken()
	case len(now.Lines) > 0: // somebody had put some back
		k = Taken{Lines: append(k.Lines, now.Lines...)}
	}
	if k.SHA256 != change.SHA256 {
		k.Before, k.SHA256 = "", change.SHA256
	}
	if err := r.Save(k); err != nil {
		return nil, err
	}
	record := recordFile(c, change.After, h.Server())
	return func(tx *store.Tx) error {
		if err := record(tx); err != nil {
			return err
		}
		host, err := inventory.HostBrief(tx, c.spec.Host)
		if err != nil || !f.Opens || !opens(host, c.pair.Old) {
			return err
		}
		return inventory.RemoveCredential(tx, host.ID, c.pair.Old)
	}, nil
}

// retired is row Disprove of a retirement: where Keyturn logs in to that very
// account by another key, the server is asked whether it still takes the old
// one, in a connection that ends in that login. Elsewhere a question would end
// in a failed login, which the server counts against us: what Withdraw read
// back has to do.
func (ro *Rotator) retired(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	accepted, asked, err := ro.disproveByOwn(ctx, c)
	switch {
	case err != nil:
		return nil, err
	case accepted:
		return nil, stillAccepted(c)
	case !asked:
		return nil, r.Save(proven{Level: Written, At: time.Now().UTC()})
	}
	return nil, r.Save(proven{Level: Login, At: time.Now().UTC()})
}

// disproveByOwn asks the server about the old key in a connection that ends in
// Keyturn's own login to that account, where it has one by another key.
func (ro *Rotator) disproveByOwn(ctx context.Context, c cell) (accepted, asked bool, err error) {
	host, err := ro.host(ctx, c)
	if err != nil {
		return false, false, err
	}
	at := slices.IndexFunc(host.Credentials, func(x inventory.Credential) bool { return x.Key != c.pair.Old })
	if host.User != c.spec.User || at < 0 {
		return false, false, nil
	}
	good, err := ro.reach.Signer(ctx, c.run.Tenant, host.Credentials[at].Key)
	if err != nil {
		return false, false, err
	}
	accepted, err = ro.reach.Disprove(ctx, c.run.Tenant, c.spec.login(), c.pair.OldKey, good)
	return accepted, err == nil, err
}

func (ro *Rotator) restore() job.Procedure {
	return job.Procedure{
		Name: RestoreProcedure,
		Steps: []job.Step{
			{Name: "Baseline", On: Places, Do: ro.baselineRestore, Undo: ro.release, Parting: true},
			{Name: "Restore", On: Authorized, Do: ro.restoreLines, Undo: ro.takeAgain, Group: "add"},
			{Name: "Prove", On: Authorized, Do: ro.restored, Undo: ro.unprove, Group: "add"},
			{Name: "Release", On: Places, Do: ro.release, Parting: true},
		},
		Leave:   func(*store.Tx, job.Run, job.Target) (job.Effect, error) { return job.Effect{}, nil },
		Started: ro.startedRestore,
		Ended:   ro.ended,
	}
}

// reverseRetirement plans the run that brings a retired key's lines back.
func (ro *Rotator) reverseRetirement(tx *store.Tx, r job.Run) (job.Plan, error) {
	var args Args
	if err := r.Decode(&args); err != nil {
		return job.Plan{}, err
	}
	var places []spec
	journal := r.In(tx)
	for t, err := range journal.Targets(Authorized) {
		if err != nil {
			return job.Plan{}, err
		}
		c, err := decode(r, t)
		if err != nil {
			return job.Plan{}, err
		}
		var f found
		if ok, err := journal.ResultOf("Baseline", job.Target{List: Places, N: c.spec.Place, Name: t.Name}, &f); err != nil {
			return job.Plan{}, err
		} else if !ok || f.untouched() != "" {
			continue
		}
		var k Taken
		if ok, err := journal.ResultOf("Withdraw", t, &k); err != nil {
			return job.Plan{}, err
		} else if !ok {
			k = f.taken()
		}
		s := c.spec
		s.Taken, s.Worked, s.Opens = k, f.Works, f.Opens
		places = append(places, s)
	}
	for i := range args.Pairs {
		p := &args.Pairs[i]
		p.New, p.NewKey = p.Old, p.OldKey
		p.Old, p.OldKey = "", trust.PublicKey{}
	}
	if err := findAgain(tx, places); err != nil {
		return job.Plan{}, err
	}
	plan, err := planOf(RestoreProcedure, 1, 0, args, places)
	plan.Subject = "key:" + string(args.Pairs[0].New)
	return plan, err
}

// startedRestore makes the key active again in the commit that starts the run.
func (ro *Rotator) startedRestore(tx *store.Tx, r job.Run) error {
	var args Args
	if err := r.Decode(&args); err != nil {
		return err
	}
	for _, p := range args.Pairs {
		if p.Out {
			continue
		}
		if err := inventory.BringBack(tx, r.ID, p.New); err != nil {
			return err
		}
	}
	return nil
}

// baselineRestore is row Baseline of a restoration: which lines of the key are there
// already, under the lock that the file is changed under.
func (ro *Rotator) baselineRestore(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, err := decode(r, t)
	if err != nil {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if err := enforced(h); err != nil {
		return nil, err
	}
	var file remote.File
	err = c.hold(ctx, h, func() (err error) {
		file, _, err = h.HoldFile(ctx, c.lock(), c.spec.User, c.spec.Path, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !file.Absent { // else row Restore makes it anew
		if _, err := fit(c, file); err != nil {
			return nil, err
		}
	}
	return nil, r.Save(found{
		SHA: file.SHA256, NewLines: textsOf(file.Content, c.pair.NewKey),
		Opens: c.spec.Opens, Opened: opens(h.Row, c.pair.New),
	})
}

// restoreLines puts each line back where it stood, if nobody changed the file
// since, or else at its end.
func (ro *Rotator) restoreLines(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, err := decode(r, t)
	if err != nil {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	change, err := h.Edit(ctx, c.lock(), c.spec.User, c.spec.Path, func(old []byte) ([]byte, error) {
		return putBack(old, c.spec.Taken)
	})
	if err != nil {
		return nil, err
	}
	return recordFile(c, change.After, h.Server()), nil
}

// taken returns what a retirement takes out of the file if that is as Baseline found it.
func (f found) taken() Taken {
	if f.Taken != nil {
		return *f.Taken
	}
	return Taken{}
}

// takeOut removes every line of a key, and returns what that was.
func takeOut(data []byte, key trust.PublicKey) (after []byte, t Taken) {
	f := trust.ParseAuthorizedKeys(data)
	ours, kept := f.Find(key), []byte(nil)
	for i, l := range f.Lines() {
		if slices.Contains(ours, i) {
			t.Lines = append(t.Lines, Removed{At: i, Text: l.Text(), End: l.Ending()})
		} else {
			kept = append(append(kept, l.Text()...), l.Ending()...)
		}
	}
	f.RemoveKey(key)
	after = f.Bytes()
	t.Tail, t.Before, t.SHA256 = string(kept[len(after):]), sum(data), sum(after)
	return after, t
}

// putBack puts those lines back that are not there, each as often as it was taken out:
// where they stood, byte for byte, if the file is as it was when they were taken out,
// else at its end.
func putBack(data []byte, t Taken) ([]byte, error) {
	if sum(data) == t.SHA256 {
		if whole := t.undo(data); sum(whole) == t.Before {
			return whole, nil
		}
	}
	f := trust.ParseAuthorizedKeys(data)
	there := map[string]int{} // how many of a text
	for _, x := range f.Lines() {
		there[x.Text()]++
	}
	for _, l := range t.Lines {
		if there[l.Text] > 0 {
			there[l.Text]--
			continue
		}
		if err := f.Append(l.Text); err != nil {
			return nil, err
		}
	}
	return f.Bytes(), nil
}

// undo returns what takeOut made data of, if it made that.
func (t Taken) undo(data []byte) []byte {
	var lines []string // with their endings
	f := trust.ParseAuthorizedKeys(append(slices.Clone(data), t.Tail...))
	for _, x := range f.Lines() {
		lines = append(lines, x.Text()+x.Ending())
	}
	for _, l := range t.Lines {
		if l.At < 0 || l.At > len(lines) {
			return nil
		}
		lines = slices.Insert(lines, l.At, l.Text+l.End)
	}
	return []byte(strings.Join(lines, ""))
}

// takeBack takes out of data the lines that a restoration put there, but for those
// that were there before it: kept holds their texts, and they are the first of their
// kind. A line of the same key that it does not know is somebody else's.
func takeBack(data []byte, lines []Removed, kept []string) []byte {
	f := trust.ParseAuthorizedKeys(data)
	kept = slices.Clone(kept)
	var ours []int
	for i, x := range f.Lines() {
		if !slices.ContainsFunc(lines, func(l Removed) bool { return l.Text == x.Text() }) {
			continue
		}
		if k := slices.Index(kept, x.Text()); k >= 0 {
			kept = slices.Delete(kept, k, k+1)
			continue
		}
		ours = append(ours, i)
	}
	for _, i := range slices.Backward(ours) {
		f.RemoveLine(i)
	}
	return f.Bytes()
}

// takeAgain takes back restoreLines. The connection is not one that the key opened.
func (ro *Rotator) takeAgain(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host, c.pair.New)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	change, err := h.Edit(ctx, c.lock(), c.spec.User, c.spec.Path, func(old []byte) ([]byte, error) {
		return takeBack(old, c.spec.Taken.Lines, f.NewLines), nil
	})
	if err != nil {
		return nil, err
	}
	return recordFile(c, change.After, h.Server()), nil
}

// restored is row Prove of a restoration: the key opens the account again if it did
// before, as far as that can be known of a key that the keyring need not hold.
func (ro *Rotator) restored(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, err := decode(r, t)
	if err != nil {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	files, why, err := ro.authorizedFiles(ctx, c, h)
	h.Close()
	if err != nil {
		return nil, err
	}
	now := offered{Why: why}
	if why == "" {
		if now, err = ro.proveKey(ctx, c, c.pair.New, files, h); err != nil {
			return nil, err
		}
	}
	if now.Level == "" && c.spec.Worked == Written {
		now.Level = Written // it opened nothing before, either
	}
	if now.Level == "" {
		return nil, trust.Errorf(trust.Conflict, "%s", now.Why)
	}
	if err := r.Save(proven{Level: now.Level, At: time.Now().UTC()}); err != nil {
		return nil, err
	}
	return func(tx *store.Tx) error {
		if !c.spec.Opens {
			return nil
		}
		return addProven(tx, c.spec.Host, c.pair.New, -1, now.Level)
	}, nil
}
