package main

import (
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/replay"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

// replayed is how many records the benchmark decides again.
const replayed = 200_000

// BenchmarkPolicyReplay decides recorded history again, beside reading the same
// records from the CRM's store and doing nothing with them.
func BenchmarkPolicyReplay(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "crm")
	command := func(args ...string) {
		b.Helper()
		if status := cli.Run(b.Context(), newRoot(), append(args, "--data", dir), io.Discard, io.Discard); status != 0 {
			b.Fatalf("gatehouse-crm %q: status %d", args, status)
		}
	}
	command("pki", "init", "--host", "crm.example.org", "--timezone", "Europe/Amsterdam")
	for _, args := range [][]string{
		{"doors", "add", "lab", "--controller", "north-1"},
		{"groups", "add", "ops", "--right", "lab@always"},
		{"people", "add", "p-1", "--group", "ops"},
	} {
		command(append(args, "--by", "bench", "--why", "bench")...)
	}
	store, err := openCentral(b.Context(), dir, central.Options{})
	must(b, err)
	b.Cleanup(func() { store.Close() })
	fillHistory(b, filepath.Join(dir, "central.db"), replayed)
	f := central.Filter{Types: replay.Types}

	for b.Loop() {
		began := time.Now()
		must(b, history(b.Context(), store, f, func([]historic) error { return nil }))
		bare := time.Since(began)
		began = time.Now()
		flags := registryFlags{data: dir}
		s, err := flags.open(b.Context())
		must(b, err)
		s.out = io.Discard
		must(b, s.replay(context.Background(), store, f, io.Discard))
		must(b, s.Close())
		b.ReportMetric(replayed/time.Since(began).Seconds(), "got-records/s")
		b.ReportMetric(replayed/bare.Seconds(), "limit-records/s")
		b.ReportMetric(0.5, "min-ratio")
		b.ReportMetric(0, "ns/op")
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// fillHistory writes n decisions into the CRM's store, as they stand there when
// they were checked. Who decides again does not look at signatures.
func fillHistory(b *testing.B, path string, n int) {
	db, err := sql.Open("sqlite3", "file:"+path)
	must(b, err)
	defer db.Close()
	tx, err := db.Begin()
	must(b, err)
	_, err = tx.Exec(`INSERT INTO keys (id, controller, jwk, vkey, fingerprint, approved) VALUES (1, 'north-1', '{}', '', '', 0)`)
	must(b, err)
	_, err = tx.Exec(`INSERT INTO epochs (id, controller, epoch, key, size, root, checkpoint, cosigned, checked, first_seen, received)
		VALUES (1, 'north-1', 'e', 1, ?, x'', '', '', ?, 0, 0)`, n, n)
	must(b, err)
	insert, err := tx.Prepare(`INSERT INTO records (log, seq, leaf, jws, received, checked, type, subject, time, door, decision, reason)
		VALUES (1, ?, x'', ?, 0, 'ok', 'gatehouse.decision.granted', 'p-1', ?, 'lab', 'granted', 'granted')`)
	must(b, err)
	signature := base64.RawURLEncoding.EncodeToString(make([]byte, 64))
	for i := range n {
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Second)
		payload := fmt.Sprintf(`{"specversion":"1.0","id":"%032d-%d","source":"/controllers/north-1","type":"gatehouse.decision.granted","subject":"p-1","time":%q,"datacontenttype":"application/json",`+
			`"data":{"controller":"north-1","epoch":"%032d","sequence":%d,"previous":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=","clock":{"state":"synchronised","boot":"3b1f6c1e-7f0e-4a53-9e0a-3f9f2f1a7c11","uptime_ms":%d},`+
			`"salt":"AAAAAAAAAAAAAAAAAAAAAA==","door":"lab","reader":"lab-in","direction":"in","decision":"granted","reason":"granted","factors":["badge"],"person_kind":"staff",`+
			`"policy":{"version":17,"age_seconds":60,"freshness":"fresh"}}}`, 0, i, at.Format(time.RFC3339), 0, i, i)
		_, err := insert.Exec(i, "e30."+base64.RawURLEncoding.EncodeToString([]byte(payload))+"."+signature, at.UnixMicro())
		must(b, err)
	}
	must(b, tx.Commit())
}
