package allowlist

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// bareInsert is what SQLite takes to insert the same rows, as one transaction in a
// file that nobody reads and that is synced once.
func bareInsert(b *testing.B, rows []Row) time.Duration {
	b.Helper()
	file := filepath.Join(b.TempDir(), "bare.db")
	started := time.Now()
	db, err := openSQLite(file, fmt.Sprintf("mode=rwc&_journal_mode=OFF&_synchronous=OFF&_locking_mode=EXCLUSIVE&_cache_size=-%d", buildCacheKiB))
	if err != nil {
		b.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	defer db.Close()
	if _, err := db.Exec(schemaSQL); err != nil {
		b.Fatal(err)
	}
	insertAll(b, db, rows)
	if err := syncFile(file); err != nil {
		b.Fatal(err)
	}
	return time.Since(started)
}

func insertAll(b *testing.B, db *sql.DB, rows []Row) {
	b.Helper()
	tx, err := db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	put, err := tx.Prepare(`INSERT INTO credential (key, entry) VALUES (?, ?)`)
	if err != nil {
		b.Fatal(err)
	}
	for i := range rows {
		if _, err := put.Exec(rows[i].Key[:], rows[i].Entry); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
}

// whole is an update of a whole list.
func whole(b *Builder, rows []Row, version uint64) (Update, error) {
	policy, err := b.Policy(Rules{})
	if err != nil {
		return Update{}, err
	}
	s := stream{policy: policy, rows: rows}
	return Update{Version: version, Created: time.Now(), Generation: pepper1, Count: int64(len(rows)), Changes: []func() (Changes, error){s.open}}, nil
}

// BenchmarkApplySnapshot compares putting a snapshot in force, its rows sealed,
// checked, and synced bit by bit, with a bare insert of the same rows.
func BenchmarkApplySnapshot(b *testing.B) {
	const size = 100_000
	s := governed(b)
	builder := NewBuilder(s.keys.Index, nil)
	rows, err := rowsOf(builder, size)
	if err != nil {
		b.Fatal(err)
	}
	src := s.source(0, nil)
	var ours, bare time.Duration
	n := 0
	for b.Loop() {
		n++
		u, err := whole(builder, rows, uint64(n))
		if err != nil {
			b.Fatal(err)
		}
		started := time.Now()
		if err := src.Apply(context.Background(), u); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(started)
		bare += bareInsert(b, rows)
	}
	rate := func(d time.Duration) float64 { return float64(n) * size / d.Seconds() }
	b.ReportMetric(rate(ours), "got-rows/s")
	b.ReportMetric(rate(bare), "limit-rows/s")
	b.ReportMetric(0.25, "min-ratio")
}

// BenchmarkApplyDelta compares a delta of a thousand rows, from its rows to lookups
// by them, with a bare transaction of as many rows in the same file.
func BenchmarkApplyDelta(b *testing.B) {
	const size, change = 100_000, 1000
	s := governed(b)
	builder := NewBuilder(s.keys.Index, nil)
	rows, err := rowsOf(builder, size)
	if err != nil {
		b.Fatal(err)
	}
	src := s.source(0, nil)
	u, err := whole(builder, rows, 1)
	if err != nil {
		b.Fatal(err)
	}
	if err := src.Apply(context.Background(), u); err != nil {
		b.Fatal(err)
	}
	file, _, err := locate(s.path)
	if err != nil {
		b.Fatal(err)
	}
	var ours, bare time.Duration
	version := uint64(1)
	n := 0
	for b.Loop() {
		n++
		var d stream
		for range change {
			d.rows = append(d.rows, rows[rand.N(size)])
		}
		started := time.Now()
		if err := src.Apply(context.Background(), Update{Version: version + 1, From: version, Created: time.Now(), Generation: pepper1, Count: -1,
			Changes: []func() (Changes, error){d.open}}); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(started)
		version++
		bare += bareDelta(b, file, d.rows)
	}
	b.ReportMetric(ours.Seconds()*1e9/float64(n), "got-ns")
	b.ReportMetric(bare.Seconds()*1e9/float64(n), "limit-ns")
	b.ReportMetric(16, "max-ratio")
}

// bareDelta reads and writes rows of another table in the same file.
func bareDelta(b *testing.B, file string, rows []Row) time.Duration {
	b.Helper()
	started := time.Now()
	db, err := openWriter(file)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	put, err := tx.Prepare(`UPDATE credential SET entry = entry WHERE key = ?`)
	if err != nil {
		b.Fatal(err)
	}
	for i := range rows {
		if _, err := put.Exec(rows[i].Key[:]); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	return time.Since(started)
}

// BenchmarkLookupApplied compares lookups in a file that deltas change with those in
// one that never changes: the same file, opened as an import is.
func BenchmarkLookupApplied(b *testing.B) {
	const size, turn = 100_000, 500
	s := governed(b)
	builder := NewBuilder(s.keys.Index, nil)
	rows, err := rowsOf(builder, size)
	if err != nil {
		b.Fatal(err)
	}
	src := s.source(0, nil)
	u, err := whole(builder, rows, 1)
	if err != nil {
		b.Fatal(err)
	}
	if err := src.Apply(context.Background(), u); err != nil {
		b.Fatal(err)
	}
	live := s.open()
	still := s.open()
	file, _, err := locate(s.path)
	if err != nil {
		b.Fatal(err)
	}
	fixed, err := openReadOnly(file, false)
	if err != nil {
		b.Fatal(err)
	}
	former := still.get
	still.look.Conn, err = fixed.Conn(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	if err := still.prepare(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { former.Close(); fixed.Close() })
	var took [2]time.Duration
	cards := make([]badge.Credential, turn)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		for i := range cards {
			cards[i] = benchCard(rand.Uint64N(size))
		}
		for half := range 2 {
			which := (n + half) % 2 // who goes first finds the pages cold
			l := [...]*List{live, still}[which]
			started := time.Now()
			for _, c := range cards {
				if e, err := l.Lookup(c); e == nil || err != nil {
					b.Fatal(e, err)
				}
			}
			took[which] += time.Since(started)
		}
	}
	rate := func(d time.Duration) float64 { return float64(n) * turn / d.Seconds() }
	b.ReportMetric(rate(took[0]), "got-lookups/s")
	b.ReportMetric(rate(took[1]), "limit-lookups/s")
	b.ReportMetric(0.85, "min-ratio")
}
