package visitorlog

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// model is what a log should be: the leaves that were promised, in order.
type model []tlog.Hash

// tree computes the tree of the first size leaves from nothing but them.
func (m model) tree(t *rapid.T, size int) (tlog.Hash, tlog.HashReader) {
	var nodes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, ix := range indexes {
			out[i] = nodes[ix]
		}
		return out, nil
	})
	for n, leaf := range m[:size] {
		hashes, err := tlog.StoredHashesForRecordHash(int64(n), leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, hashes...)
	}
	root, err := tlog.TreeHash(int64(size), reader)
	if err != nil {
		t.Fatal(err)
	}
	return root, reader
}

// TestTheTreeIsThatOfThePromisedRecordsWhateverHappens appends, fails and
// reopens in any order, and holds the log to a model; an independent
// implementation of RFC 6962 verifies its proofs.
func TestTheTreeIsThatOfThePromisedRecordsWhateverHappens(t *testing.T) {
	if !long {
		if err := flag.Set("rapid.checks", "20"); err != nil {
			t.Fatal(err)
		}
	}
	k := shared()
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "model")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, databaseFile)
		l, err := Open(dir, k.options())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { l.Close() }()
		first, err := l.Entries(ctx, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		m := model{first[0].Leaf}
		values := map[string]string{}

		// write appends n records at once; those for which bad says so are
		// spoilt by their own writer.
		write := func(n int, bad func(i int) bool) {
			var wg sync.WaitGroup
			var mu sync.Mutex
			got := map[uint64]Entry{}
			for i := range n {
				wg.Go(func() {
					e, err := l.Append(ctx, func(tx *Tx) (Draft, error) {
						key := fmt.Sprint(i % 3)
						if err := tx.Set(key, []byte(fmt.Sprint(len(m), i))); err != nil {
							return Draft{}, err
						}
						if bad(i) {
							if i%2 == 0 {
								panic(i)
							}
							return Draft{}, errors.New("no")
						}
						return granted(i), nil
					})
					if err != nil {
						return
					}
					mu.Lock()
					defer mu.Unlock()
					got[e.Seq] = e
				})
			}
			wg.Wait()
			for seq := uint64(len(m)); len(got) > 0; seq++ {
				e, ok := got[seq]
				if !ok {
					t.Fatalf("no record %d among those that were promised", seq)
				}
				m = append(m, e.Leaf)
				delete(got, seq)
			}
		}

		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				n := rapid.IntRange(1, 12).Draw(t, "n")
				before := len(m)
				write(n, func(int) bool { return false })
				if len(m) != before+n {
					t.Fatalf("%d of %d records", len(m)-before, n)
				}
			},
			"spoilt": func(t *rapid.T) {
				n := rapid.IntRange(1, 12).Draw(t, "n")
				mask := rapid.Uint16().Draw(t, "bad")
				before, bad := len(m), 0
				for i := range n {
					bad += int(mask >> i & 1)
				}
				write(n, func(i int) bool { return mask>>i&1 == 1 })
				if len(m) != before+n-bad {
					t.Fatalf("%d of %d records, %d were spoilt", len(m)-before, n, bad)
				}
			},
			"database fails": func(t *rapid.T) {
				// A trigger makes SQLite itself refuse, somewhere in a batch.
				at := tlog.StoredHashCount(int64(len(m))) + int64(rapid.IntRange(0, 9).Draw(t, "at"))
				action := rapid.SampledFrom([]string{"ABORT", "ROLLBACK", "FAIL"}).Draw(t, "action")
				alter(t, path, fmt.Sprintf(`CREATE TRIGGER refuse BEFORE INSERT ON node WHEN NEW.ix >= %d BEGIN SELECT RAISE(%s, 'disk'); END`, at, action))
				write(rapid.IntRange(1, 12).Draw(t, "n"), func(int) bool { return false })
				alter(t, path, `DROP TRIGGER refuse`)
			},
			"state": func(t *rapid.T) {
				key := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "key")
				value := rapid.String().Draw(t, "value")
				e, err := l.Append(ctx, func(tx *Tx) (Draft, error) {
					got, err := tx.Get(key)
					if want, ok := values[key]; string(got) != want || (got != nil) != ok {
						t.Errorf("state %q = %q, want %q", key, got, want)
					}
					return granted(0), errors.Join(err, tx.Set(key, []byte(value)))
				})
				if err != nil {
					t.Fatal(err)
				}
				values[key] = value
				m = append(m, e.Leaf)
			},
			"acknowledge": func(t *rapid.T) {
				size := rapid.IntRange(0, len(m)).Draw(t, "size")
				root, _ := m.tree(t, size)
				signed, err := l.Checkpoint(ctx, uint64(size))
				if err != nil {
					t.Fatal(err)
				}
				before := l.Acknowledged()
				if err := l.Acknowledge(ctx, Receipt{Epoch: l.Epoch(), Size: uint64(size), Root: root, Checkpoint: signed, JWS: "eyJh.eyJi.c2ln"}); err != nil {
					t.Fatal(err)
				}
				if got := l.Acknowledged(); got != max(before, uint64(size)) {
					t.Fatalf("acknowledged = %d", got)
				}
			},
			"reopen": func(t *rapid.T) {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				var err error
				if l, err = Open(dir, k.options()); err != nil {
					t.Fatal(err)
				}
				if o := l.Opened(); o.New {
					t.Fatalf("%+v", o)
				}
			},
			"": func(t *rapid.T) {
				root, _ := m.tree(t, len(m))
				h, err := l.Head(ctx)
				if err != nil || h.Size != uint64(len(m)) || h.Root != root.String() {
					t.Fatalf("head = %+v, %v; want %d records under %v", h, err, len(m), root)
				}
				size := rapid.IntRange(1, len(m)).Draw(t, "size")
				seq := rapid.IntRange(0, size-1).Draw(t, "seq")
				old := rapid.IntRange(1, size).Draw(t, "old")
				sized, _ := m.tree(t, size)
				oldRoot, _ := m.tree(t, old)
				inclusion, err := l.ProveRecord(ctx, uint64(size), uint64(seq))
				if err != nil {
					t.Fatal(err)
				}
				if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(seq), uint64(size), m[seq][:], raw(inclusion), sized[:]); err != nil {
					t.Fatalf("inclusion of %d in %d: %v", seq, size, err)
				}
				consistency, err := l.ProveTree(ctx, uint64(size), uint64(old))
				if err != nil {
					t.Fatal(err)
				}
				if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old), uint64(size), raw(consistency), oldRoot[:], sized[:]); err != nil {
					t.Fatalf("consistency of %d with %d: %v", size, old, err)
				}
			},
		})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		v, err := Verify(ctx, path, VerifyOptions{Verifier: k.verifier, NoteVerifier: k.verifier.NoteVerifier, Sealer: k.sealer})
		if err != nil || v.Head.Size != uint64(len(m)) {
			t.Fatalf("%+v, %v", v, err)
		}
	})
}

func raw[P ~[]tlog.Hash](p P) [][]byte {
	out := make([][]byte, len(p))
	for i := range p {
		out[i] = p[i][:]
	}
	return out
}

// alter changes the schema beside the running log.
func alter(t *rapid.T, path, query string) {
	db, err := sql.Open("sqlite3", dsn(path, map[string][]string{}))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query); err != nil {
		t.Fatal(err)
	}
}
