package visitorlog

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// remembered spares a test that verifies one log many thousand times the same
// signatures: it asks the real key about each JWS once.
type remembered struct {
	mu   sync.Mutex
	v    Verifier
	good map[string][]byte
}

func (r *remembered) Verify(jws string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if payload, ok := r.good[jws]; ok {
		return payload, nil
	}
	payload, err := r.v.Verify(jws)
	if err == nil {
		r.good[jws] = payload
	}
	return payload, err
}

// patient is a log with 41 records and what it takes to harm and verify it
// again and again.
type patient struct {
	t    *testing.T
	dir  string
	db   *sql.DB // harms
	s    *store  // verifies
	o    VerifyOptions
	size int64
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	k := shared()
	dir := t.TempDir()
	ctx := context.Background()
	l := open(t, dir, k.options())
	appendN(t, l, 20)
	if err := l.keepCheckpoint(ctx); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 12)
	if err := l.Acknowledge(ctx, receiptFor(t, l, 33)); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 8)
	l.Close()
	path := filepath.Join(dir, databaseFile)
	// It is harmed for the test only: nothing needs to be durable.
	db, err := sql.Open("sqlite3", dsn(path, url.Values{"_synchronous": {"OFF"}, "_ignore_check_constraints": {"on"}}))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	s, err := openStoreReadOnly(ctx, path, k.sealer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	p := &patient{t: t, dir: dir, db: db, s: s, size: 41, o: VerifyOptions{
		Verifier: &remembered{v: k.verifier, good: map[string][]byte{}}, NoteVerifier: k.verifier.NoteVerifier,
	}}
	if v, err := s.verify(ctx, p.o); err != nil || v.Head.Size != 41 || v.Checkpoints != 1 || v.Receipts != 1 {
		t.Fatalf("unharmed: %+v, %v", v, err)
	}
	return p
}

func (p *patient) exec(query string, args ...any) {
	p.t.Helper()
	if _, err := p.db.Exec(query, args...); err != nil {
		p.t.Fatalf("%s: %v", query, err)
	}
}

// fault verifies and returns what was found; nil if nothing was.
func (p *patient) fault() *Fault {
	p.t.Helper()
	_, err := p.s.verify(context.Background(), p.o)
	if err == nil {
		return nil
	}
	var f *Fault
	if !errors.As(err, &f) {
		p.t.Fatalf("not a fault: %v", err)
	}
	return f
}

// blobs reads one column, by key.
func (p *patient) blobs(query string) map[int64][]byte {
	p.t.Helper()
	rows, err := p.db.Query(query)
	if err != nil {
		p.t.Fatal(err)
	}
	defer rows.Close()
	out := map[int64][]byte{}
	for rows.Next() {
		var key int64
		var b []byte
		if err := rows.Scan(&key, &b); err != nil {
			p.t.Fatal(err)
		}
		out[key] = b
	}
	if err := rows.Err(); err != nil {
		p.t.Fatal(err)
	}
	return out
}

// TestVerifyNamesTheRecordWhicheverByteWasChanged flips every byte of every
// record, leaf and node in turn. The steps of the verification that hold them
// to each other look at all of those; the whole verification, by way of the
// database, at every 32nd or 256th, and at others in each row. The long tests
// let the whole look at all.
func TestVerifyNamesTheRecordWhicheverByteWasChanged(t *testing.T) {
	p := newPatient(t)
	for _, c := range []struct {
		column string
		stride int64
		read   string
		write  string
		covers func(key int64) (first, last int64)
	}{
		{"rec.leaf", 32, `SELECT seq, leaf FROM rec`, `UPDATE rec SET leaf = ? WHERE seq = ?`, func(seq int64) (int64, int64) { return seq, seq }},
		{"node.hash", 32, `SELECT ix, hash FROM node`, `UPDATE node SET hash = ? WHERE ix = ?`, func(ix int64) (int64, int64) {
			level, n := tlog.SplitStoredHashIndex(ix)
			return n << level, (n+1)<<level - 1
		}},
		{"rec.body", 256, `SELECT seq, body FROM rec`, `UPDATE rec SET body = ? WHERE seq = ?`, func(seq int64) (int64, int64) { return seq, seq }},
	} {
		start, flips := time.Now(), 0
		for key, value := range p.blobs(c.read) {
			first, last := c.covers(key)
			stride := int64(1)
			if !long {
				stride = c.stride
			}
			for at := int(key % stride); at < len(value); at += int(stride) {
				harmed := slices.Clone(value)
				harmed[at] ^= byte(1 << (at % 8))
				p.exec(c.write, harmed, key)
				if f := p.fault(); f == nil || f.First != first || f.Last != last {
					t.Fatalf("byte %d of %s %d: %v, want records %d to %d named", at, c.column, key, f, first, last)
				}
				flips++
			}
			p.exec(c.write, value, key)
		}
		t.Logf("%s: %d bytes flipped, %v each", c.column, flips, time.Since(start)/time.Duration(max(1, flips)))
	}
	if f := p.fault(); f != nil {
		t.Fatalf("mended: %v", f)
	}
	p.flipInMemory()
}

// flipInMemory flips every byte before the steps that must notice it.
func (p *patient) flipInMemory() {
	t, ctx := p.t, context.Background()
	rows, err := p.s.rows(ctx, 0, 100)
	if err != nil || len(rows) != 41 {
		t.Fatal(len(rows), err)
	}
	for _, row := range rows {
		for _, value := range [][]byte{row.leaf, row.body} {
			for at := range value {
				value[at] ^= 0x80
				var f *Fault
				if _, _, err := p.s.unseal(row); !errors.As(err, &f) || f.First != row.seq {
					t.Fatalf("byte %d of record %d: %v", at, row.seq, err)
				}
				value[at] ^= 0x80
			}
		}
	}
	nodes, err := p.s.nodes(ctx, 0, tlog.StoredHashCount(p.size))
	if err != nil {
		t.Fatal(err)
	}
	for ix, hash := range nodes {
		for at := range hash {
			hash[at] ^= 0x80
			tree, err := new(tree), error(nil)
			for i := 0; i < len(rows) && err == nil; i++ {
				err = addChecked(tree, tlog.Hash(rows[i].leaf), nodes)
			}
			if want := nodeFault(ix, "is not the hash of what is under it"); err == nil || err.Error() != want.Error() {
				t.Fatalf("byte %d of node %d: %v, want %v", at, ix, err, want)
			}
			hash[at] ^= 0x80
		}
	}
}

func TestVerifyNamesMissingSurplusAndMovedRows(t *testing.T) {
	for name, c := range map[string]struct {
		harm        []string
		first, last int64 // -1: no record is to blame
	}{
		"first record deleted":    {[]string{`DELETE FROM rec WHERE seq = 0`}, 0, 0},
		"record deleted":          {[]string{`DELETE FROM rec WHERE seq = 17`}, 17, 17},
		"last record deleted":     {[]string{`DELETE FROM rec WHERE seq = 40`}, 40, 40},
		"record doubled":          {[]string{`INSERT INTO rec SELECT 41, leaf, body FROM rec WHERE seq = 17`}, 41, 41},
		"record replaced":         {[]string{`UPDATE rec SET (leaf, body) = (SELECT leaf, body FROM rec WHERE seq = 18) WHERE seq = 17`}, 17, 17},
		"records exchanged":       {[]string{`UPDATE rec SET seq = -5 WHERE seq = 8`, `UPDATE rec SET seq = 8 WHERE seq = 9`, `UPDATE rec SET seq = 9 WHERE seq = -5`}, 8, 8},
		"record renumbered":       {[]string{`UPDATE rec SET seq = 100 WHERE seq = 40`}, 40, 40},
		"record before the first": {[]string{`INSERT INTO rec SELECT -1, leaf, body FROM rec WHERE seq = 3`}, -1, -1},
		"records shifted":         {[]string{`UPDATE rec SET seq = -seq - 1000`, `UPDATE rec SET seq = -seq - 999`}, 0, 0},
		"body emptied":            {[]string{`UPDATE rec SET body = x'' WHERE seq = 5`}, 5, 5},
		"node deleted":            {[]string{`DELETE FROM node WHERE ix = 14`}, 0, 7}, // level 3, 0
		"leaf node deleted":       {[]string{`DELETE FROM node WHERE ix = 3`}, 2, 2},
		"last node deleted":       {[]string{`DELETE FROM node WHERE ix = (SELECT max(ix) FROM node)`}, 40, 40},
		"node too many":           {[]string{`INSERT INTO node SELECT max(ix) + 1, zeroblob(32) FROM node`}, 41, 41},
		"node far beyond":         {[]string{`INSERT INTO node VALUES (100000, zeroblob(32))`}, 41, 41},
		"node before the first":   {[]string{`INSERT INTO node VALUES (-1, zeroblob(32))`}, -1, -1},
		"nodes exchanged":         {[]string{`UPDATE node SET ix = -5 WHERE ix = 0`, `UPDATE node SET ix = 0 WHERE ix = 1`, `UPDATE node SET ix = 1 WHERE ix = -5`}, 0, 0},
		"nodes renumbered":        {[]string{`UPDATE node SET ix = 100 WHERE ix = 10`}, 6, 6},
		"tail cut off under a receipt": {[]string{
			`DELETE FROM rec WHERE seq >= 30`, `DELETE FROM node WHERE ix >= 56`}, 30, 32}, // StoredHashCount(30)
		"tail cut off under a receipt beside the database": {[]string{
			`DELETE FROM rec WHERE seq >= 30`, `DELETE FROM node WHERE ix >= 56`, `DELETE FROM receipt`}, 30, 32},
		"tail cut off under a checkpoint": {[]string{
			`DELETE FROM rec WHERE seq >= 16`, `DELETE FROM node WHERE ix >= 31`}, 16, 20},
		"all records deleted":              {[]string{`DELETE FROM rec`, `DELETE FROM node`}, 0, 0},
		"receipt's root changed":           {[]string{`UPDATE receipt SET root = zeroblob(32)`}, 0, 32},
		"receipt's time damaged":           {[]string{`UPDATE receipt SET time = 'noon'`}, 0, 32},
		"checkpoint changed":               {[]string{`UPDATE checkpoint SET note = replace(note, char(10) || '21' || char(10), char(10) || '20' || char(10))`}, 0, 19},
		"checkpoint unsigned":              {[]string{`UPDATE checkpoint SET note = substr(note, 1, instr(note, char(10) || char(10)))`}, -1, -1},
		"the epoch's name damaged":         {[]string{`UPDATE meta SET value = replace(value, '"epoch":"', '"epoch":"x')`}, -1, -1},
		"everything under another epoch":   {[]string{`UPDATE meta SET value = '{"epoch":"00000000000000000000000000000000","controller":"north-1"}'`}, 0, 0},
		"everything of another controller": {[]string{`UPDATE meta SET value = replace(value, 'north-1', 'south-2')`}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			p.exec(`PRAGMA ignore_check_constraints = on`)
			for _, harm := range c.harm {
				p.exec(harm)
			}
			_, err := shared().verify(t, p.s.path)
			var f *Fault
			if !errors.As(err, &f) || f.First != c.first || f.Last != c.last {
				t.Errorf("%v, want records %d to %d named", err, c.first, c.last)
			}
		})
	}
}

// TestVerifyCatchesARewrittenHistory has the storage rewritten by somebody who
// can seal and hash, but not sign.
func TestVerifyCatchesARewrittenHistory(t *testing.T) {
	for name, c := range map[string]struct {
		rewrite func(p *patient, forged string)
		forge   func(jws string) string
		what    string
	}{
		"payload changed, tree recomputed": {forge: func(jws string) string {
			i := strings.Index(jws, ".") + 40
			return jws[:i] + string("AB"[b2i(jws[i] == 'A')]) + jws[i+1:]
		}, what: "signature"},
		"signature changed, tree recomputed": {forge: func(jws string) string {
			i := len(jws) - 10
			return jws[:i] + string("AB"[b2i(jws[i] == 'A')]) + jws[i+1:]
		}, what: "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t)
			p.rebuild(func(seq int64, jws string) string {
				if seq == 17 {
					return c.forge(jws)
				}
				return jws
			})
			if f := p.fault(); f == nil || f.First != 17 || f.Last != 17 || !strings.Contains(f.What, c.what) {
				t.Errorf("%v, want record 17: %s", f, c.what)
			}
		})
	}
	t.Run("a signed record left out and the rest moved up", func(t *testing.T) {
		p := newPatient(t)
		var bodies []string
		for seq := range p.size {
			rows, err := p.s.rows(context.Background(), seq, 1)
			if err != nil {
				t.Fatal(err)
			}
			jws, _, err := p.s.unseal(rows[0])
			if err != nil {
				t.Fatal(err)
			}
			if seq != 17 {
				bodies = append(bodies, jws)
			}
		}
		p.exec(`DELETE FROM rec WHERE seq = 40`)
		p.size--
		p.rebuild(func(seq int64, _ string) string { return bodies[seq] })
		if f := p.fault(); f == nil || f.First != 17 || !strings.Contains(f.What, "record 18") {
			t.Errorf("%v, want record 17, which says that it is record 18", f)
		}
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rebuild writes every body, leaf and node anew, as an attacker with the
// sealing key could.
func (p *patient) rebuild(body func(seq int64, jws string) string) {
	p.t.Helper()
	p.exec(`DELETE FROM node`)
	t := new(tree)
	for seq := range p.size {
		rows, err := p.s.rows(context.Background(), seq, 1)
		if err != nil {
			p.t.Fatal(err)
		}
		plain, err := p.s.sealer.Open(rows[0].body, bodyAAD(p.s.meta.Epoch, seq))
		if err != nil {
			p.t.Fatal(err)
		}
		jws := body(seq, string(plain))
		leaf := tlog.RecordHash([]byte(jws))
		p.exec(`UPDATE rec SET leaf = ?, body = ? WHERE seq = ?`, leaf[:], p.s.sealer.Seal([]byte(jws), bodyAAD(p.s.meta.Epoch, seq)), seq)
		hashes, err := t.add(leaf)
		if err != nil {
			p.t.Fatal(err)
		}
		for i, h := range hashes {
			p.exec(`INSERT INTO node VALUES (?, ?)`, tlog.StoredHashIndex(0, seq)+int64(i), h[:])
		}
	}
}

func TestVerifyGoesOnBesideAWriter(t *testing.T) {
	k := shared()
	dir := t.TempDir()
	l := open(t, dir, k.options())
	appendN(t, l, 50)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			appendN(t, l, 1)
			if err := l.Acknowledge(context.Background(), receiptFor(t, l, head(t, l).Size)); err != nil {
				t.Error(err)
			}
			if err := l.keepCheckpoint(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	for range 20 {
		if _, err := k.verify(t, filepath.Join(dir, databaseFile)); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestWhatTheVerificationAtLeisureFindsBecomesARecord(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	appendN(t, l, 9)
	if err := l.Acknowledge(context.Background(), receiptFor(t, l, 10)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	tamper(t, dir, `UPDATE rec SET leaf = zeroblob(32) WHERE seq = 3`)
	l = open(t, dir, shared().options())
	if l.Opened().New {
		t.Fatalf("a start looks at the tail only: %+v", l.Opened())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	grown := l.Appended()
	go func() { done <- l.Run(ctx) }()
	select {
	case <-grown:
	case <-time.After(time.Minute):
		t.Fatal("nothing was recorded")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	entries, err := l.Entries(context.Background(), 10, 10)
	if err != nil || len(entries) != 1 || entries[0].Record.Type != Gap || !strings.Contains(entries[0].Record.Data.Detail, "record 3") {
		t.Errorf("%+v, %v", entries, err)
	}
}

func TestAFaultNamesItsRecords(t *testing.T) {
	for want, f := range map[string]*Fault{
		"record 3: w":       recordFault(3, "w"),
		"records 4 to 7: w": {4, 7, "w"},
		"w":                 {-1, -1, "w"},
	} {
		if got := fmt.Sprint(f); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// signedByCRM takes a JWS for what stands in its middle, unless it ends in x.
type signedByCRM struct{}

func (signedByCRM) Verify(jws string) ([]byte, error) {
	if strings.HasSuffix(jws, "x") {
		return nil, errors.New("bad signature")
	}
	return Payload(jws)
}

func TestAReceiptCountsForWhatTheCRMHasSignedAlone(t *testing.T) {
	p := newPatient(t)
	p.o.Receipts = signedByCRM{}
	var root []byte
	var when, checkpoint string
	if err := p.db.QueryRow(`SELECT root, time, checkpoint FROM receipt`).Scan(&root, &when, &checkpoint); err != nil {
		t.Fatal(err)
	}
	sign := func(change func(map[string]any)) string {
		m := map[string]any{"controller": p.s.meta.Controller, "epoch": p.s.meta.Epoch, "size": 33, "checkpoint": checkpoint, "policy_version": 7, "time": when}
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return "e30." + base64.RawURLEncoding.EncodeToString(b) + ".e30"
	}
	good := sign(func(map[string]any) {})
	for _, tt := range []struct{ name, jws, want string }{
		{"as signed", good, ""},
		{"unsigned", good + "x", "is not signed by the CRM"},
		{"of fewer records", sign(func(m map[string]any) { m["size"] = 32 }), "is not what the CRM has signed"},
		{"of another epoch", sign(func(m map[string]any) { m["epoch"] = testEpoch }), "is not what the CRM has signed"},
		{"of another controller", sign(func(m map[string]any) { m["controller"] = "south-9" }), "is not what the CRM has signed"},
		{"of another tree", sign(func(m map[string]any) { m["checkpoint"] = strings.Replace(checkpoint, "\n33\n", "\n32\n", 1) }), "is not what the CRM has signed"},
		{"of another time", sign(func(m map[string]any) { m["time"] = "2026-01-02T03:04:05Z" }), "is not what the CRM has signed"},
		{"of another policy", sign(func(m map[string]any) { m["policy_version"] = 8 }), "is not what the CRM has signed"},
	} {
		r, err := p.s.newestReceipt(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.JWS = tt.jws
		if err := writeReceipt(p.dir, *r); err != nil {
			t.Fatal(err)
		}
		p.exec(`UPDATE receipt SET jws = ?`, tt.jws)
		switch f := p.fault(); {
		case tt.want == "" && f != nil:
			t.Errorf("%s: %v", tt.name, f)
		case tt.want != "" && (f == nil || !strings.Contains(f.What, tt.want)):
			t.Errorf("%s: found %v, want %q", tt.name, f, tt.want)
		}
	}
}
