package visitorlog

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// bare writes the rows of a log that was made before, each batch in one
// transaction of the same schema and pragmas: what the log adds is signing,
// sealing and hashing.
type bare struct {
	b            *testing.B
	rows         []stored
	nodes        map[int64][]byte
	conn         *sql.Conn
	rec, node    *sql.Stmt
	next, lastIx int64
}

func newBare(b *testing.B, n int) *bare {
	b.Helper()
	ctx := context.Background()
	dir := b.TempDir()
	l := open(b, dir, shared().options())
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { appendN(b, l, (n+63)/64) })
	}
	wg.Wait()
	x := &bare{b: b}
	var err error
	size := int64(head(b, l).Size)
	if x.rows, err = l.store.rows(ctx, 0, int(size)); err != nil {
		b.Fatal(err)
	}
	if x.nodes, err = l.store.nodes(ctx, 0, tlog.StoredHashCount(size)); err != nil {
		b.Fatal(err)
	}
	s, err := openStore(ctx, filepath.Join(b.TempDir(), databaseFile), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.close() })
	if x.conn, err = s.write.Conn(ctx); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { x.conn.Close() })
	if x.rec, err = x.conn.PrepareContext(ctx, `INSERT INTO rec (seq, leaf, body) VALUES (?, ?, ?)`); err != nil {
		b.Fatal(err)
	}
	if x.node, err = x.conn.PrepareContext(ctx, `INSERT INTO node (ix, hash) VALUES (?, ?)`); err != nil {
		b.Fatal(err)
	}
	return x
}

func (x *bare) exec(query string) {
	if _, err := x.conn.ExecContext(context.Background(), query); err != nil {
		x.b.Fatal(err)
	}
}

// write writes the next n records in one transaction.
func (x *bare) write(n int) {
	x.exec(`BEGIN IMMEDIATE`)
	for range n {
		r := x.rows[x.next]
		x.next++
		if _, err := x.rec.Exec(r.seq, r.leaf, r.body); err != nil {
			x.b.Fatal(err)
		}
		for end := tlog.StoredHashCount(x.next); x.lastIx < end; x.lastIx++ {
			if _, err := x.node.Exec(x.lastIx, x.nodes[x.lastIx]); err != nil {
				x.b.Fatal(err)
			}
		}
	}
	x.exec(`COMMIT`)
}

func p99(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)*99/100].Nanoseconds())
}

// BenchmarkAppendAlone measures how long a badge waits for its record, beside
// the same rows written bare, turn and turn about on the same disk.
func BenchmarkAppendAlone(b *testing.B) {
	const least, most = 2000, 20_000 // of fewer, a 99th percentile says little
	l := open(b, b.TempDir(), shared().options())
	x := newBare(b, most)
	ours, limit := make([]time.Duration, 0, most), make([]time.Duration, 0, most)
	pair := func() {
		start := time.Now()
		appendN(b, l, 1)
		ours = append(ours, time.Since(start))
		start = time.Now()
		x.write(1)
		limit = append(limit, time.Since(start))
	}
	for b.Loop() {
		if len(ours) < most { // the rows that were made before are used up then
			pair()
		}
	}
	for len(ours) < least {
		pair()
	}
	b.ReportMetric(p99(ours), "got-ns")
	b.ReportMetric(p99(limit), "limit-ns")
	b.ReportMetric(1.5, "max-ratio")
}

func BenchmarkAppend8Waiting(b *testing.B)  { benchmarkWaiting(b, 8) }
func BenchmarkAppend64Waiting(b *testing.B) { benchmarkWaiting(b, 64) }

// benchmarkWaiting measures how many records a second a log takes from writers
// that wait for each other's commits, beside as many rows a transaction
// written bare.
func benchmarkWaiting(b *testing.B, waiting int) {
	const round = 32 // records of each writer
	const rounds = 12
	l := open(b, b.TempDir(), shared().options())
	x := newBare(b, rounds*round*waiting)
	var ours, limit time.Duration
	done := 0
	for b.Loop() {
		if done == rounds {
			continue
		}
		done++
		start := time.Now()
		var wg sync.WaitGroup
		for range waiting {
			wg.Go(func() { appendN(b, l, round) })
		}
		wg.Wait()
		ours += time.Since(start)
		start = time.Now()
		for range round {
			x.write(waiting)
		}
		limit += time.Since(start)
	}
	records := float64(done * round * waiting)
	b.ReportMetric(records/ours.Seconds(), "got-records/s")
	b.ReportMetric(records/limit.Seconds(), "limit-records/s")
}

// BenchmarkVerify measures the whole verification, signatures and all.
func BenchmarkVerify(b *testing.B) {
	const records = 4096
	k := shared()
	dir := b.TempDir()
	l := open(b, dir, k.options())
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { appendN(b, l, records/64) })
	}
	wg.Wait()
	entries, err := l.Entries(context.Background(), 0, records)
	if err != nil {
		b.Fatal(err)
	}
	var ours, limit time.Duration
	n := 0
	for b.Loop() {
		n++
		start := time.Now()
		if _, err := k.verify(b, filepath.Join(dir, databaseFile)); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(start)
		start = time.Now()
		for _, e := range entries { // the limit: the signatures alone
			if _, err := k.verifier.Verify(e.JWS); err != nil {
				b.Fatal(err)
			}
		}
		limit += time.Since(start)
	}
	b.ReportMetric(float64(n)*records/ours.Seconds(), "got-records/s")
	b.ReportMetric(float64(n)*records/limit.Seconds(), "limit-records/s")
	b.ReportMetric(0.6, "min-ratio")
}

// BenchmarkOpening is of a log with records that the CRM does not have, all of
// which a start looks at.
func BenchmarkOpening(b *testing.B) {
	dir := b.TempDir()
	l := open(b, dir, shared().options())
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { appendN(b, l, 16) })
	}
	wg.Wait()
	l.Close()
	for b.Loop() {
		l := open(b, dir, shared().options())
		if l.Opened().New {
			b.Fatalf("%+v", l.Opened())
		}
		l.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "got-ms")
	b.ReportMetric(250, "max-ms")
	b.ReportMetric(0, "ns/op")
}
