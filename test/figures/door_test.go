package figures

import (
	"context"
	"database/sql"
	"math/bits"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	_ "github.com/mattn/go-sqlite3"
)

// BenchmarkImport is the command that makes an allowlist of a million rows.
func BenchmarkImport(b *testing.B) {
	millionSite(b)
	figure(b, "1M credentials", map[string]float64{"got-rows/s": credentials / million.took.Seconds()})
	figure(b, "1M credentials, memory", map[string]float64{"got-MB": float64(million.memory) / 1e6})
}

// BenchmarkStart is from the process's start until it says that its doors are
// ready.
func BenchmarkStart(b *testing.B) {
	_, file := millionSite(b)
	var took []time.Duration
	for range starts {
		d, t := startDaemon(b, nil, "gatehouse", "run", "--demo", "--config", file)
		took = append(took, t)
		d.Stop(b)
	}
	figure(b, "1M credentials, slowest", map[string]float64{"got-ns": percentile(took, 100), "max-ns": 1e9})
}

// BenchmarkSwipe is from the frame that is written to the reader's wire until
// the daemon has given the strike its command. The record of the decision is
// durable before the strike moves. In turn with each swipe the same rows are
// written bare.
func BenchmarkSwipe(b *testing.B) {
	dir, file := millionSite(b)
	d, _ := startDaemon(b, nil, "gatehouse", "run", "--demo", "--config", file)
	site, err := sim.Dial(filepath.Join(dir, "site.sock"))
	must(b, err)
	defer site.Close()
	format, ok := badge.Builtin().Format("H10302")
	if !ok {
		b.Fatal("no format H10302")
	}
	made := openRecords(b, filepath.Join(dir, "records.db"))
	limit := newBare(b, dir, made)

	var ours, bare, alone []time.Duration
	for i := range warmUp + swipes {
		frame, err := format.Encode(card(rand.Uint64N(credentials)))
		must(b, err)
		began := time.Now()
		must(b, site.Swipe("in", frame))
		took := await(b, site, sim.Unlocked).Sub(began)
		must(b, site.Set("contact", true))
		must(b, site.Set("contact", false))
		await(b, site, sim.Locked)

		rows := made.next(b)
		same, one := limit.write(b, rows[:1]), limit.one(b, rows[0])
		limit.write(b, rows[1:]) // of the passage: both databases grow alike
		if i >= warmUp {
			ours, bare, alone = append(ours, took), append(bare, same), append(alone, one)
		}
	}
	kept := memory(b, d)
	for _, p := range []struct {
		name  string
		p     int
		ratio float64
	}{{"p50", 50, 0}, {"p99", 99, 1.5}} {
		m := map[string]float64{"got-ns": percentile(ours, p.p), "limit-ns": percentile(bare, p.p)}
		if p.ratio != 0 {
			m["max-ratio"] = p.ratio
		}
		figure(b, "to strike, 1M credentials, "+p.name, m)
		figure(b, "for orientation, one bare row, "+p.name, map[string]float64{"got-ns": percentile(alone, p.p)})
	}
	figure(b, "daemon's memory, 1M credentials", map[string]float64{"got-MB": kept / 1e6, "max-MB": 40})
}

const (
	warmUp  = 100
	ofSwipe = 2 // records
)

// await waits for a state of the strike, and says when it was given.
func await(b *testing.B, site *sim.Site, state string) time.Time {
	b.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case o := <-site.Outputs():
			if o.Line == "strike" && o.State == state {
				return o.At
			}
		case <-timeout:
			b.Fatalf("the strike is not %s", state)
		}
	}
}

// records are the rows that the daemon has written.
type records struct {
	db   *sql.DB
	size int64
}

// row is a record with the tree's nodes that it completed.
type row struct {
	seq        int64
	leaf, body []byte
	ix         int64
	nodes      [][]byte
}

func openRecords(b *testing.B, path string) *records {
	b.Helper()
	db, err := sql.Open("sqlite3", (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&_query_only=1"}).String())
	must(b, err)
	b.Cleanup(func() { db.Close() })
	r := &records{db: db}
	for began := time.Now(); ; { // what the start itself records
		was := r.size
		must(b, db.QueryRow(`SELECT count(*) FROM rec`).Scan(&r.size))
		if r.size == was && time.Since(began) > 500*time.Millisecond {
			return r
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// next returns the records of one swipe: the decision first, then that
// somebody has entered, which the daemon writes once the door is closed.
func (r *records) next(b *testing.B) []row {
	b.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var size int64
		must(b, r.db.QueryRow(`SELECT max(seq) + 1 FROM rec`).Scan(&size))
		if size-r.size < ofSwipe {
			continue
		}
		var out []row
		for ; r.size < size; r.size++ {
			w := row{seq: r.size, ix: storedIndex(r.size)}
			must(b, r.db.QueryRow(`SELECT leaf, body FROM rec WHERE seq = ?`, w.seq).Scan(&w.leaf, &w.body))
			for ix := w.ix; ix < storedIndex(w.seq+1); ix++ {
				var hash []byte
				must(b, r.db.QueryRow(`SELECT hash FROM node WHERE ix = ?`, ix).Scan(&hash))
				w.nodes = append(w.nodes, hash)
			}
			out = append(out, w)
		}
		return out
	}
	b.Fatalf("a swipe makes %d records, they are not there", ofSwipe)
	return nil
}

// storedIndex is where the nodes of record seq begin, in the order of
// golang.org/x/mod/sumdb/tlog: a leaf, and every subtree that it completes.
func storedIndex(seq int64) int64 { return 2*seq - int64(bits.OnesCount64(uint64(seq))) }

// bare writes ready rows into a database of the daemon's schema and pragmas.
type bare struct {
	conn           *sql.Conn
	rec, node, row *sql.Stmt
}

func newBare(b *testing.B, dir string, like *records) *bare {
	b.Helper()
	path := filepath.Join(dir, "bare.db")
	db, err := sql.Open("sqlite3", (&url.URL{Scheme: "file", Path: path,
		RawQuery: "_journal_mode=WAL&_synchronous=FULL&_secure_delete=on&_foreign_keys=on"}).String())
	must(b, err)
	b.Cleanup(func() { db.Close() })
	ctx := context.Background()
	x := new(bare)
	x.conn, err = db.Conn(ctx)
	must(b, err)
	b.Cleanup(func() { x.conn.Close() })
	for _, table := range []string{"rec", "node"} {
		var schema string
		must(b, like.db.QueryRow(`SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?`, table).Scan(&schema))
		x.exec(b, schema)
	}
	x.exec(b, `CREATE TABLE one (body BLOB NOT NULL) STRICT`)
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&x.rec, `INSERT INTO rec (seq, leaf, body) VALUES (?, ?, ?)`},
		{&x.node, `INSERT INTO node (ix, hash) VALUES (?, ?)`},
		{&x.row, `INSERT INTO one (body) VALUES (?)`},
	} {
		*p.stmt, err = x.conn.PrepareContext(ctx, p.text)
		must(b, err)
	}
	return x
}

func (x *bare) exec(b *testing.B, query string) {
	b.Helper()
	_, err := x.conn.ExecContext(context.Background(), query)
	must(b, err)
}

// write writes rows in one transaction and says how long that took.
func (x *bare) write(b *testing.B, rows []row) time.Duration {
	b.Helper()
	began := time.Now()
	x.exec(b, `BEGIN IMMEDIATE`)
	for _, r := range rows {
		_, err := x.rec.Exec(r.seq, r.leaf, r.body)
		must(b, err)
		for i, hash := range r.nodes {
			_, err := x.node.Exec(r.ix+int64(i), hash)
			must(b, err)
		}
	}
	x.exec(b, `COMMIT`)
	return time.Since(began)
}

// one writes one row alone.
func (x *bare) one(b *testing.B, r row) time.Duration {
	b.Helper()
	began := time.Now()
	_, err := x.row.Exec(r.body)
	must(b, err)
	return time.Since(began)
}
