package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// BenchmarkCloudflareCAs lists 2,000 authorities of applications as the SDKs do, page by
// page until one is empty, and reads what comes; ratio is how much longer that takes than
// to fetch the same bytes, ready-made, from a server that has nothing else to do, and
// to read them.
func BenchmarkCloudflareCAs(b *testing.B) {
	const count = 2000
	w := newWorld(b, 0)
	c := w.cloudflare()
	for i := range count {
		a := w.addApplication(fmt.Sprintf("app-%d", i), "deploy")
		if status, text := c.do("POST", "/accounts/{account}/access/apps/"+a.ID+"/ca", ""); status != http.StatusOK {
			b.Fatal(status, text)
		}
	}
	path := "/client/v4/accounts/" + c.account + "/access/apps/ca"
	pages := map[string][]byte{}
	list := func(base string, seen func(page string, body []byte)) (n int) {
		for page := ""; ; {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, base+path+page, nil)
			if err != nil {
				b.Fatal(err)
			}
			req.Header = c.header
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			var read struct {
				Result []struct {
					ID        string `json:"id"`
					Aud       string `json:"aud"`
					PublicKey string `json:"public_key"`
				} `json:"result"`
			}
			if err == nil {
				err = json.Unmarshal(body, &read)
			}
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Fatalf("%s: %s, %v", page, resp.Status, err)
			}
			seen(page, body)
			if len(read.Result) == 0 {
				return n
			}
			n += len(read.Result)
			page = fmt.Sprintf("?page=%d", 1+n/1000)
		}
	}
	nothing := func(string, []byte) {}
	if n := list(w.client.server, func(page string, body []byte) { pages[page] = body }); n != count || len(pages) != 3 {
		b.Fatalf("%d by %d pages", n, len(pages))
	}
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := ""
		if r.URL.RawQuery != "" {
			page = "?" + r.URL.RawQuery
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(pages[page])
	}))
	defer bare.Close()
	var ours, theirs []time.Duration
	for b.Loop() {
		began := time.Now()
		list(w.client.server, nothing)
		between := time.Now()
		list(bare.URL, nothing)
		ours, theirs = append(ours, between.Sub(began)), append(theirs, time.Since(between))
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	median := len(ours) / 2
	b.ReportMetric(float64(ours[median].Microseconds())/1000, "ms/listing")
	b.ReportMetric(ours[median].Seconds()/theirs[median].Seconds(), "ratio")
}
