package allowlist

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

const benchRows = 1_000_000

// benchCard is the card in row i of a large file. H10302 has 35 bits of number.
func benchCard(i uint64) badge.Credential {
	return badge.Credential{Format: "H10302", Number: 1_000_000_007 + i*31}
}

// largeCSV is a CSV file of n rows, made as it is read.
func largeCSV(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		var b bytes.Buffer
		b.WriteString("person,name,kind,format,number,from,until,doors,schedule\n")
		for i := range n {
			fmt.Fprintf(&b, "p-%d,Person Number %d,staff,H10302,%d,2026-01-01,2030-12-31,server-room-a;lab,always\n", i, i, benchCard(uint64(i)).Number)
			if b.Len() > 1<<16 {
				w.Write(b.Bytes()) // fails only where the reader has gone
				b.Reset()
			}
		}
		w.Write(b.Bytes())
		w.Close()
	}()
	return r
}

func (s *site) importLarge(n int) time.Duration {
	s.t.Helper()
	started := time.Now()
	imp, err := Begin(s.dir, s.keys)
	if err != nil {
		s.t.Fatal(err)
	}
	defer imp.Close()
	plan, err := imp.ReadCSV(largeCSV(n), s.readOptions())
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := imp.Apply(context.Background(), plan, ApplyOptions{Signer: s.signer, Now: time.Now()}); err != nil {
		s.t.Fatal(err)
	}
	return time.Since(started)
}

// BenchmarkLookup compares lookups at a million rows with bare point lookups
// by a ready key in the same file, turn by turn.
func BenchmarkLookup(b *testing.B) {
	s := newSite(b)
	s.importLarge(benchRows)
	l, err := Open(s.path, s.keys)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	db, err := openReadOnly(s.path, false)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	get, err := db.Prepare(lookupSQL)
	if err != nil {
		b.Fatal(err)
	}
	defer get.Close()
	const turn = 500
	cards, indexes := make([]badge.Credential, turn), make([][16]byte, turn)
	var ours, bare time.Duration
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		for i := range cards {
			cards[i] = benchCard(rand.Uint64N(benchRows))
			indexes[i] = s.keys.Index.Index(cards[i].Canonical())
		}
		for half := range 2 { // who goes first finds the pages cold
			if (n+half)%2 == 0 {
				started := time.Now()
				for _, c := range cards {
					if e, err := l.Lookup(c); e == nil || err != nil {
						b.Fatal(e, err)
					}
				}
				ours += time.Since(started)
				continue
			}
			started := time.Now()
			for _, k := range indexes {
				var sealed []byte
				if err := get.QueryRow(k[:]).Scan(&sealed); err != nil {
					b.Fatal(err)
				}
			}
			bare += time.Since(started)
		}
	}
	rate := func(d time.Duration) float64 { return float64(n) * turn / d.Seconds() }
	b.ReportMetric(rate(ours), "got-lookups/s")
	b.ReportMetric(rate(bare), "limit-lookups/s")
	b.ReportMetric(0.7, "min-ratio")
}
