package main

import (
	"strings"
	"testing"
	"time"
)

// Scans of some hosts, or all, have a name, a first run at once, and a next time.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	stranger := w.keyFile(w.dir+"/stranger", "stranger@elsewhere")
	if err := w.servers[0].Authorize(stranger, ""); err != nil {
		t.Fatal(err)
	}
	var dmz, nightly, once discoveryJSON
	w.json(&dmz, "discovery", "create", "dmz", "web1", "WEB1", "--every", "1h", "--wait")
	if dmz.All || strings.Join(dmz.Hosts, " ") != "web1" || dmz.Every != "1h0m0s" || dmz.State != "done" || dmz.NextAt == nil || time.Until(*dmz.NextAt) > time.Hour || time.Until(*dmz.NextAt) < 50*time.Minute {
		t.Errorf("dmz is %+v", dmz)
	}
	if k := w.key(stranger); len(k.Authorized) != 1 || k.Authorized[0].Host != "web1" {
		t.Errorf("its scan found the stranger at %+v", k.Authorized)
	}
	w.json(&nightly, "discovery", "create", "nightly", "--daily", "02:30", "--wait")
	if !nightly.All || nightly.Daily != "02:30" || nightly.NextAt == nil || nightly.NextAt.UTC().Format("15:04") != "02:30" {
		t.Errorf("nightly is %+v", nightly)
	}
	w.json(&once, "discovery", "create", "once", "web2", "--wait")
	if once.NextAt != nil || once.Every != "" || once.Daily != "" || once.State != "done" {
		t.Errorf("once is %+v", once)
	}
	if code, _, errs := w.try("discovery", "create", "dmz"); code == 0 || !strings.Contains(errs, `there is a discovery "dmz" already`) {
		t.Errorf("a second dmz: exit %d, %s", code, errs)
	}
	var all []discoveryJSON
	w.json(&all, "discovery", "list")
	if len(all) != 3 || all[0].Name != "dmz" || all[1].Name != "nightly" || all[2].Name != "once" {
		t.Errorf("discoveries: %+v", all)
	}
	if text := w.ok("discovery", "list"); !strings.Contains(text, "daily at 02:30 UTC") || !strings.Contains(text, "every 1h0m0s") {
		t.Errorf("discovery list printed\n%s", text)
	}

	w.ok("host", "remove", "web2")
	w.json(&once, "discovery", "show", "once")
	if once.Gone != 1 || len(once.Hosts) != 0 {
		t.Errorf("after its host was removed, once is %+v", once)
	}
	w.ok("discovery", "remove", "dmz")
	if code, _, errs := w.try("discovery", "show", "dmz"); code == 0 || !strings.Contains(errs, "there is no discovery") {
		t.Errorf("dmz, removed: exit %d, %s", code, errs)
	}
	if code, _, errs := w.try("discovery", "remove", "dmz"); code == 0 || !strings.Contains(errs, "there is no discovery") {
		t.Errorf("dmz, removed twice: exit %d, %s", code, errs)
	}
}
