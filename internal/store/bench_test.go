package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
)

// BenchmarkUpdate64 measures audited writes by 64 callers at once, and in turns with
// these by one: "x-single" is how many times as many writes the 64 get done, on the same
// disk, durably, whatever else the machine does meanwhile.
func BenchmarkUpdate64(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchmarkUpdate(b, storetest.Open(b, schemas...)) })
	b.Run("postgres", func(b *testing.B) {
		server := storetest.StartPostgres(b)
		benchmarkUpdate(b, storetest.OpenURL(b, server.Database(b), schemas...))
	})
}

func benchmarkUpdate(b *testing.B, s *store.Store) {
	rounds := 0
	write := func(callers, n int) {
		rounds++
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for i := c; i < n; i += callers {
					id := fmt.Sprintf("%d-%d", rounds, i)
					if err := s.Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
						_, err := tx.Exec(`INSERT INTO things (tenant, id, n) VALUES ($1, $2, $3)`, string(tx.Tenant()), id, i)
						return err
					}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	write(64, 640) // prepares every connection
	const turns = 20
	of64, of1 := max(b.N/turns, 64), max(b.N/turns/20, 10)
	var time64, time1 time.Duration
	b.ResetTimer()
	for range turns {
		start := time.Now()
		write(64, of64)
		time64 += time.Since(start)
		start = time.Now()
		write(1, of1)
		time1 += time.Since(start)
	}
	b.StopTimer()
	many, one := float64(turns*of64)/time64.Seconds(), float64(turns*of1)/time1.Seconds()
	b.ReportMetric(many, "writes/s")
	b.ReportMetric(one, "single-writes/s")
	b.ReportMetric(many/one, "x-single")
	b.ReportMetric(float64(syncTime(b).Microseconds()), "sync-us")
	b.ReportMetric(0, "ns/op") // of two kinds: says nothing
}

// syncTime returns the median time in which the disk of temporary files takes
// 4 KiB for good: what one commit costs at least, and x-single is made of.
func syncTime(b *testing.B) time.Duration {
	f, err := os.Create(filepath.Join(b.TempDir(), "sync"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	times := make([]time.Duration, 101)
	page := make([]byte, 4096)
	for i := range times {
		begun := time.Now()
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		times[i] = time.Since(begun)
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// BenchmarkLimit reads one row, by a limit that is a parameter. "x-literal" is
// how many times as long that takes as with the number in the query: about 1,
// unless the statement is prepared again for each value.
func BenchmarkLimit(b *testing.B) {
	s := storetest.Open(b, schemas...)
	read := func(limit string, args ...any) time.Duration {
		begun := time.Now()
		err := s.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
			for range b.N {
				rows, err := tx.Query(`SELECT id, n FROM things WHERE tenant = $1 ORDER BY id LIMIT `+limit, args...)
				if err != nil {
					return err
				}
				if err := rows.Close(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		return time.Since(begun)
	}
	parameter := read("$2", storetest.Tenant, 10)
	literal := read("10", storetest.Tenant)
	b.ReportMetric(float64(parameter)/float64(b.N), "ns/op")
	b.ReportMetric(float64(parameter)/float64(literal), "x-literal")
}
