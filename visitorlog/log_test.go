package visitorlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// testKeys are a controller's keys, made once: making them costs more than
// most tests.
type testKeys struct {
	signer   *keys.Signer
	verifier *keys.Verifier
	sealer   *keys.Sealer
}

func makeKeys(log, seal []byte) (k testKeys, err error) {
	if k.signer, err = keys.ParseSigner(log, keys.TypeRecord); err != nil {
		return k, err
	}
	if k.verifier, err = k.signer.Verifier(keys.TypeRecord); err != nil {
		return k, err
	}
	k.sealer, err = keys.ParseSeal(seal, "records")
	return k, err
}

func newTestKeys(tb testing.TB, alg keys.Algorithm) testKeys {
	tb.Helper()
	log, err := keys.GenerateKey(alg)
	if err != nil {
		tb.Fatal(err)
	}
	k, err := makeKeys(log, keys.GenerateSeal())
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

var shared = sync.OnceValue(func() testKeys {
	log, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		panic(err)
	}
	k, err := makeKeys(log, keys.GenerateSeal())
	if err != nil {
		panic(err)
	}
	return k
})

func (k testKeys) options() Options {
	return Options{
		Controller:   "north-1",
		Signer:       k.signer,
		Verifier:     k.verifier,
		Note:         k.signer.NoteSigner,
		NoteVerifier: k.verifier.NoteVerifier,
		Sealer:       k.sealer,
		Clock: func() (time.Time, Clock) {
			return time.Now(), Clock{State: access.ClockSynchronised, Boot: "1bd54ea4-0a3f-4b8b-8f5a-2d4d1d9cf6e1", UptimeMS: 1234}
		},
	}
}

func (k testKeys) verify(tb testing.TB, path string) (Verified, error) {
	tb.Helper()
	return Verify(context.Background(), path, VerifyOptions{Verifier: k.verifier, NoteVerifier: k.verifier.NoteVerifier, Sealer: k.sealer})
}

// open opens a log that the test closes, at once or at its end.
func open(tb testing.TB, dir string, o Options) *Log {
	tb.Helper()
	l, err := Open(dir, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// granted is a draft with everything in it that a decision can say.
func granted(i int) Draft {
	return Draft{
		Type:    DecisionGranted,
		Subject: fmt.Sprintf("p-%04d", i),
		Data: Data{
			Door: "server-room-a", Reader: "a-in", Direction: access.In, Decision: "granted",
			Reason: access.ReasonGranted, Factors: []string{"badge"}, Kind: access.Visitor,
			Visit:  &access.Visit{Host: "s-1042", Organisation: "Acme Cooling GmbH", Purpose: "chiller maintenance", Escort: "s-1042", IDForm: "passport"},
			Policy: &Policy{Version: 7, AgeSeconds: 60, Freshness: access.Fresh},
		},
	}
}

func appendN(tb testing.TB, l *Log, n int) {
	tb.Helper()
	for i := range n {
		if _, err := l.Append(context.Background(), func(*Tx) (Draft, error) { return granted(i), nil }); err != nil {
			tb.Fatal(err)
		}
	}
}

func head(tb testing.TB, l *Log) Head {
	tb.Helper()
	h, err := l.Head(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// receiptFor is what the CRM would answer for the first size records.
func receiptFor(tb testing.TB, l *Log, size uint64) Receipt {
	tb.Helper()
	root, err := l.Root(context.Background(), size)
	if err != nil {
		tb.Fatal(err)
	}
	signed, err := l.Checkpoint(context.Background(), size)
	if err != nil {
		tb.Fatal(err)
	}
	return Receipt{Epoch: l.Epoch(), Size: size, Root: root, Checkpoint: signed, Time: time.Now(), PolicyVersion: 7, JWS: "eyJh.eyJi.c2ln"}
}

func TestAnAppendedRecordStandsSignedLinkedAndNumbered(t *testing.T) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA} {
		t.Run(string(alg), func(t *testing.T) {
			k := newTestKeys(t, alg)
			dir := t.TempDir()
			l := open(t, dir, k.options())
			ctx := context.Background()
			before := time.Now().Truncate(time.Microsecond)
			e, err := l.Append(ctx, func(*Tx) (Draft, error) { return granted(1), nil })
			if err != nil {
				t.Fatal(err)
			}
			entries, err := l.Entries(ctx, 0, 10)
			if err != nil || len(entries) != 2 {
				t.Fatalf("Entries = %d, %v; want epoch_started and the record", len(entries), err)
			}
			first, got := entries[0], entries[1]
			if first.Record.Type != EpochStarted || first.Record.Data.Previous != "" {
				t.Errorf("record 0 is %s after %q", first.Record.Type, first.Record.Data.Previous)
			}
			payload, err := k.verifier.Verify(got.JWS)
			if err != nil {
				t.Fatal(err)
			}
			r, err := ParseRecord(payload)
			if err != nil {
				t.Fatal(err)
			}
			if r.ID != l.Epoch()+"-1" || r.Source != "/controllers/north-1" || r.Data.Sequence != 1 || e.Seq != 1 {
				t.Errorf("record is %q from %q, sequence %d", r.ID, r.Source, r.Data.Sequence)
			}
			if r.Data.Previous != first.Leaf.String() {
				t.Errorf("previous = %q, want the leaf of record 0 %q", r.Data.Previous, first.Leaf)
			}
			if got.Leaf != tlog.RecordHash([]byte(got.JWS)) || got.Leaf != e.Leaf || got.JWS != e.JWS {
				t.Error("what was stored is not what was signed, hashed and returned")
			}
			if r.Time.Before(before) || r.Time.After(time.Now()) || r.Time.Location() != time.UTC {
				t.Errorf("time = %v", r.Time)
			}
			if r.Data.Visit.Organisation != "Acme Cooling GmbH" || r.Data.Clock.UptimeMS != 1234 {
				t.Errorf("data = %+v", r.Data)
			}
			l.Close()
			if _, err := k.verify(t, filepath.Join(dir, databaseFile)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSaltsDiffer(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	appendN(t, l, 20)
	entries, err := l.Entries(context.Background(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range entries {
		if seen[e.Record.Data.Salt] {
			t.Fatalf("salt %q twice", e.Record.Data.Salt)
		}
		seen[e.Record.Data.Salt] = true
	}
}

func TestAnErrorOrPanicOfOneWriterSpoilsOnlyItsRecord(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	ctx := context.Background()
	boom := errors.New("boom")
	const writers = 60
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			_, errs[i] = l.Append(ctx, func(tx *Tx) (Draft, error) {
				if err := tx.Set(fmt.Sprint(i), []byte{1}); err != nil {
					return Draft{}, err
				}
				switch i % 4 {
				case 1:
					return Draft{}, boom
				case 2:
					panic("out of order")
				case 3:
					return Draft{Type: "gatehouse.nonsense"}, nil
				}
				return granted(i), nil
			})
		})
	}
	wg.Wait()
	if size := head(t, l).Size; size != 1+writers/4 {
		t.Errorf("size = %d, want %d", size, 1+writers/4)
	}
	for i, err := range errs {
		switch ok := err == nil; i % 4 {
		case 0:
			if !ok {
				t.Errorf("writer %d: %v", i, err)
			}
		case 1:
			if !errors.Is(err, boom) {
				t.Errorf("writer %d: %v, want its own error", i, err)
			}
		case 2:
			if ok || !strings.Contains(err.Error(), "out of order") {
				t.Errorf("writer %d: %v, want its panic", i, err)
			}
		case 3:
			if !errors.Is(err, ErrDraft) {
				t.Errorf("writer %d: %v, want ErrDraft", i, err)
			}
		}
		if v := state(t, l, fmt.Sprint(i)); (v != nil) != (i%4 == 0) {
			t.Errorf("state of writer %d: %v", i, v)
		}
	}
}

// state reads a state as the next record would see it.
func state(tb testing.TB, l *Log, key string) (value []byte) {
	tb.Helper()
	stop := errors.New("only looking")
	_, err := l.Append(context.Background(), func(tx *Tx) (Draft, error) {
		var err error
		if value, err = tx.Get(key); err != nil {
			return Draft{}, err
		}
		return Draft{}, stop
	})
	if !errors.Is(err, stop) {
		tb.Fatal(err)
	}
	return value
}

// Rule 13.
func TestOnceMeansOnceOverAllWriters(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	use := func() bool {
		used := errors.New("used up")
		_, err := l.Append(context.Background(), func(tx *Tx) (Draft, error) {
			v, err := tx.Get("code/1")
			if err != nil {
				return Draft{}, err
			}
			if v != nil {
				return Draft{}, used
			}
			return granted(0), tx.Set("code/1", []byte("used"))
		})
		if err != nil && !errors.Is(err, used) {
			t.Error(err)
		}
		return err == nil
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	for range 50 {
		wg.Go(func() {
			if use() {
				mu.Lock()
				granted++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if granted != 1 {
		t.Errorf("a one-time code opened %d times", granted)
	}
	l.Close()
	l = open(t, dir, shared().options())
	if use() {
		t.Error("a one-time code opened again after a restart")
	}
}

func TestStateIsDeletedByNil(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	set := func(v []byte) {
		if _, err := l.Append(context.Background(), func(tx *Tx) (Draft, error) {
			if err := tx.Set("passback/p-1", v); err != nil {
				return Draft{}, err
			}
			got, err := tx.Get("passback/p-1")
			if string(got) != string(v) || (got == nil) != (v == nil) {
				t.Errorf("Get after Set(%q) = %q", v, got)
			}
			return granted(0), err
		}); err != nil {
			t.Fatal(err)
		}
	}
	set([]byte("in"))
	set([]byte{})
	if v := state(t, l, "passback/p-1"); v == nil || len(v) != 0 {
		t.Errorf("an empty state reads as %v", v)
	}
	set(nil)
	if v := state(t, l, "passback/p-1"); v != nil {
		t.Errorf("a deleted state reads as %q", v)
	}
}

func TestTxEndsWithItsFunction(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	var kept *Tx
	if _, err := l.Append(context.Background(), func(tx *Tx) (Draft, error) { kept = tx; return granted(0), nil }); err != nil {
		t.Fatal(err)
	}
	if err := kept.Set("k", []byte("v")); err == nil {
		t.Error("Set after the end succeeded")
	}
	if _, err := kept.Get("k"); err == nil {
		t.Error("Get after the end succeeded")
	}
}

func TestWaitingWritersShareOneCommit(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // holds the writer while the others queue up
		if _, err := l.Append(context.Background(), func(*Tx) (Draft, error) {
			close(started)
			<-release
			return granted(0), nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-started
	grown := l.Appended()
	const waiting = 40
	entered := make(chan struct{}, waiting)
	for i := range waiting {
		wg.Go(func() {
			entered <- struct{}{}
			if _, err := l.Append(context.Background(), func(*Tx) (Draft, error) { return granted(i), nil }); err != nil {
				t.Error(err)
			}
		})
	}
	for range waiting {
		<-entered
	}
	time.Sleep(20 * time.Millisecond) // they are all at the channel by now
	close(release)
	<-grown
	commits := 1
	for grown = l.Appended(); head(t, l).Size < waiting+2; grown = l.Appended() {
		<-grown
		commits++
	}
	wg.Wait()
	if commits > 10 {
		t.Errorf("%d records took %d commits", waiting, commits)
	}
}

func TestAppendHeedsTheContextUntilTheWriterHasBegun(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	started, release := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, err := l.Append(ctx, func(*Tx) (Draft, error) {
			close(started)
			<-release
			return granted(0), nil
		})
		done <- err
	}()
	<-started
	cancel()
	if _, err := l.Append(ctx, func(*Tx) (Draft, error) { return granted(1), nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting writer: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the writer that had begun: %v", err)
	}
	if size := head(t, l).Size; size != 2 {
		t.Errorf("size = %d, want 2", size)
	}
}

func TestAClosedLogTakesNothing(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(context.Background(), func(*Tx) (Draft, error) { return granted(0), nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Append = %v", err)
	}
	if _, err := l.Entries(context.Background(), 0, 1); err == nil {
		t.Error("Entries succeeded")
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
}

func TestOneLogOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, shared().options())
	if l, err := Open(dir, shared().options()); err == nil {
		l.Close()
		t.Fatal("a second process would have got the log")
	} else if !strings.Contains(err.Error(), "another process") {
		t.Error(err)
	}
}

func TestALogIsFreeOnceItIsClosedThoughAChildHasItsLockOpen(t *testing.T) {
	dir := t.TempDir()
	held, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	child, err := unix.Dup(int(held.(dirLock).Fd())) // as between fork and exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Rule 6.
func TestADatabaseThatOthersCanReadIsRefused(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	l.Close()
	path := filepath.Join(dir, databaseFile)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(dir, shared().options()); err == nil {
		l.Close()
		t.Fatal("opened")
	} else if !strings.Contains(err.Error(), "0640") {
		t.Error(err)
	}
}

func TestEverythingMissingFromTheOptionsIsNamedAtOnce(t *testing.T) {
	_, err := Open(t.TempDir(), Options{Controller: "North 1"})
	for _, want := range []string{"North 1", "signer", "verifier", "checkpoint signer", "checkpoint verifier", "sealer", "clock"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
}

// Rule 11.
func TestNothingThatIdentifiesAPersonLiesInClear(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	appendN(t, l, 50)
	look := func(when string) {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			content, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"p-0001", "Acme", "chiller", "s-1042", "passport", "server-room-a", "cC0wMDAx"} {
				if strings.Contains(string(content), secret) {
					t.Errorf("%s, %s holds %q in clear", when, filepath.Base(f), secret)
				}
			}
			if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s, %s has mode %v, %v", when, filepath.Base(f), info.Mode(), err)
			}
		}
	}
	look("open")
	l.Close()
	look("closed")
}

func TestReopeningContinuesTheEpoch(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	if o := l.Opened(); !o.New || o.Former != nil || o.SetAside != "" {
		t.Errorf("first start: %+v", o)
	}
	appendN(t, l, 9)
	want := head(t, l)
	l.Close()
	l = open(t, dir, shared().options())
	if o := l.Opened(); o.New || o.Epoch != want.Epoch {
		t.Errorf("second start: %+v", o)
	}
	if got := head(t, l); got != want {
		t.Errorf("head = %+v, want %+v", got, want)
	}
	appendN(t, l, 1)
	l.Close()
	if _, err := shared().verify(t, filepath.Join(dir, databaseFile)); err != nil {
		t.Error(err)
	}
}

func TestCheckpointIsTheLogsAtAnySizeUpToItsOwn(t *testing.T) {
	k := shared()
	l := open(t, t.TempDir(), k.options())
	appendN(t, l, 12)
	origin := Origin("north-1", l.Epoch())
	v, err := k.verifier.NoteVerifier(origin)
	if err != nil {
		t.Fatal(err)
	}
	for size := uint64(0); size <= 13; size++ {
		signed, err := l.Checkpoint(context.Background(), size)
		if err != nil {
			t.Fatal(err)
		}
		c, err := OpenCheckpoint(signed, v)
		if err != nil {
			t.Fatal(err)
		}
		root, err := l.Root(context.Background(), size)
		if want := (Checkpoint{origin, size, root}); err != nil || c != want {
			t.Errorf("checkpoint %+v, want %+v, %v", c, want, err)
		}
	}
	if _, err := l.Checkpoint(context.Background(), 14); err == nil {
		t.Error("signed a checkpoint of records that are not there")
	}
}

func TestWhateverCanBeReadCanBeCheckpointed(t *testing.T) {
	k := newTestKeys(t, keys.ES256)
	l := open(t, t.TempDir(), k.options())
	ctx := t.Context()
	var writing sync.WaitGroup
	writing.Go(func() { appendN(t, l, 300) })
	defer writing.Wait()
	for from := uint64(0); from < 300; {
		_, entries, err := l.Signed(ctx, from, 1000, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		from += uint64(len(entries))
		if _, err := l.Checkpoint(ctx, from); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAReceiptMovesTheOutboxAndIsKeptTwice(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	l := open(t, dir, shared().options())
	appendN(t, l, 9)
	if n := l.Acknowledged(); n != 0 {
		t.Errorf("acknowledged = %d before any receipt", n)
	}
	r := receiptFor(t, l, 7)
	if err := l.Acknowledge(ctx, r); err != nil {
		t.Fatal(err)
	}
	older := receiptFor(t, l, 5)
	if err := l.Acknowledge(ctx, older); err != nil {
		t.Fatal(err)
	}
	if n := l.Acknowledged(); n != 7 {
		t.Errorf("acknowledged = %d, want 7", n)
	}
	l.Close()
	kept, err := readReceipt(dir)
	if err != nil || kept == nil || kept.Size != 7 || kept.Root != r.Root || kept.JWS != r.JWS || !kept.Time.Equal(r.Time) {
		t.Errorf("file = %+v, %v", kept, err)
	}
	if err := os.Remove(filepath.Join(dir, receiptFile)); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, shared().options())
	if got, ok := l.LastReceipt(); !ok || got.Size != 7 || got.Checkpoint != r.Checkpoint || got.PolicyVersion != 7 {
		t.Errorf("LastReceipt = %+v, %v", got, ok)
	}
	if kept, err := readReceipt(dir); err != nil || kept == nil {
		t.Errorf("the file was not written again: %+v, %v", kept, err)
	}
}

func TestAReceiptThatContradictsTheLogIsRefused(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	appendN(t, l, 9)
	good := receiptFor(t, l, 7)
	for name, c := range map[string]struct {
		change func(*Receipt)
		want   error
	}{
		"another epoch": {func(r *Receipt) { r.Epoch = newEpoch() }, ErrEpoch},
		"too large":     {func(r *Receipt) { r.Size = 11 }, ErrDiverged},
		"another root":  {func(r *Receipt) { r.Root[3] ^= 1 }, ErrDiverged},
		"no JWS":        {func(r *Receipt) { r.JWS = "x" }, nil},
		"no epoch":      {func(r *Receipt) { r.Epoch = "x" }, nil},
	} {
		r := good
		c.change(&r)
		if err := l.Acknowledge(context.Background(), r); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if l.Acknowledged() != 0 {
			t.Fatalf("%s: moved the outbox", name)
		}
	}
}

func TestOldReceiptsAndCheckpointsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	for range keptReceipts + 20 {
		appendN(t, l, 1)
		if err := l.Acknowledge(context.Background(), receiptFor(t, l, head(t, l).Size)); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	v, err := shared().verify(t, filepath.Join(dir, databaseFile))
	if err != nil || v.Receipts != keptReceipts {
		t.Errorf("%d receipts are kept, want %d; %v", v.Receipts, keptReceipts, err)
	}
}

func TestCheckpointsAreKeptWhileNobodyCountersigns(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	l := open(t, dir, shared().options())
	appendN(t, l, 5)
	for range 2 { // the second finds that there is nothing new
		if err := l.keepCheckpoint(ctx); err != nil {
			t.Fatal(err)
		}
	}
	appendN(t, l, 1)
	if err := l.Acknowledge(ctx, receiptFor(t, l, 7)); err != nil {
		t.Fatal(err)
	}
	if err := l.keepCheckpoint(ctx); err != nil {
		t.Fatal(err)
	}
	l.Close()
	v, err := shared().verify(t, filepath.Join(dir, databaseFile))
	if err != nil || v.Checkpoints != 1 || v.Receipts != 1 {
		t.Errorf("%+v, %v; want one checkpoint and one receipt", v, err)
	}
}

// tamper changes a database behind the log's back.
func tamper(tb testing.TB, dir, query string, args ...any) {
	tb.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, databaseFile))
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close()
	r, err := db.Exec(query, args...)
	if err != nil {
		tb.Fatal(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		tb.Fatalf("%s changed %d rows, %v", query, n, err)
	}
}

func TestARecordNeverWaitsForAReader(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	l.use.RLock() // as a reader does while it decodes a large page
	defer l.use.RUnlock()
	done := make(chan error)
	go func() {
		_, err := l.Append(context.Background(), func(*Tx) (Draft, error) { return granted(0), nil })
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the record waits for the reader")
	}
}
