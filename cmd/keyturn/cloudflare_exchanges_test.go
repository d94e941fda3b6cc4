package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the exchanges anew")

// Exchanges with Cloudflare's wire, byte for byte: requests as documented and as
// Terraform sends them, and what is answered. Ids stand for themselves by the order in
// which they came, as {id1} and {aud1}, and times as {time}.
func TestCloudflareExchanges(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/cloudflare/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no exchanges: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newWorld(t, 0).exchange(string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := strings.Split(string(text), "\n")
			for i, line := range strings.Split(got, "\n") {
				if i >= len(want) || line != want[i] {
					t.Fatalf("%s:%d (go test -update writes it): got\n%s\nwant\n%s", file, i+1, line, append(want, "")[min(i, len(want))])
				}
			}
			if len(got) != len(text) {
				t.Errorf("%s has more than was answered", file)
			}
		})
	}
}

// exchange sends the requests of a text, and returns it with the answers that come. A
// request is a method and a path, and maybe a line of body; "----" begins the answer.
func (w *world) exchange(text string) string {
	w.t.Helper()
	c := w.cloudflare()
	values := map[string]string{"{account}": c.account, "{zone}": c.account[16:] + c.account[:16]}
	names := map[string]string{c.account: "{account}", values["{zone}"]: "{zone}"}
	counts := map[string]int{}
	identifiers := regexp.MustCompile(`[0-9a-f]{64}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}`)
	times := regexp.MustCompile(`"20[0-9-]+T[0-9:.]+Z"`)
	fill := func(s string) string {
		for name, value := range values {
			s = strings.ReplaceAll(s, name, value)
		}
		return s
	}
	var blocks []string
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		said, _, _ := strings.Cut(block, "\n----")
		var request []string
		for line := range strings.SplitSeq(said, "\n") {
			if !strings.HasPrefix(line, "#") {
				request = append(request, fill(line))
			}
		}
		if len(request) == 0 {
			blocks = append(blocks, said)
			continue
		}
		method, path, _ := strings.Cut(request[0], " ")
		status, answer := c.do(method, path, strings.Join(request[1:], "\n"))
		answer = identifiers.ReplaceAllStringFunc(answer, func(id string) string {
			if names[id] == "" {
				kind := "id"
				if len(id) == 64 {
					kind = "aud"
				}
				counts[kind]++
				names[id] = fmt.Sprintf("{%s%d}", kind, counts[kind])
				values[names[id]] = id
			}
			return names[id]
		})
		blocks = append(blocks, fmt.Sprintf("%s\n----\n%d\n%s", said, status, times.ReplaceAllString(answer, `"{time}"`)))
	}
	return strings.Join(blocks, "\n\n") + "\n"
}
