package visitorlog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

// image copies what a card holds of a closed log, and gives back a function
// that restores it.
func image(tb testing.TB, dir string, names ...string) (restore func()) {
	tb.Helper()
	content := map[string][]byte{}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			tb.Fatal(err)
		}
		content[name] = b
	}
	return func() {
		tb.Helper()
		for name, b := range content {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

func remove(tb testing.TB, dir string, names ...string) {
	tb.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			tb.Fatal(err)
		}
	}
}

// TestADatabaseThatCannotBeReconciledBeginsANewEpoch goes through every way
// in which a database stops being the one that the CRM knows.
func TestADatabaseThatCannotBeReconciledBeginsANewEpoch(t *testing.T) {
	k := shared()
	for name, c := range map[string]struct {
		harm      func(t *testing.T, dir string, restore func())
		options   func(*Options)
		why       string
		aside     bool // a database is set aside
		intact    bool // what was set aside verifies
		anyFormer bool // the former head may be the database's own
	}{
		"missing": {
			harm: func(t *testing.T, dir string, _ func()) { remove(t, dir, databaseFile) },
			why:  "missing",
		},
		"rolled back": {
			harm: func(t *testing.T, _ string, restore func()) { restore() },
			why:  "held 10 records, the last receipt covers 15", aside: true, intact: true,
		},
		"tail cut off": {
			harm: func(t *testing.T, dir string, _ func()) {
				tamper(t, dir, `DELETE FROM rec WHERE seq >= 12`)
				tamper(t, dir, `DELETE FROM node WHERE ix >= 22`) // tlog.StoredHashCount(12)
				tamper(t, dir, `DELETE FROM receipt`)
			},
			why: "held 12 records, the last receipt covers 15", aside: true, intact: true,
		},
		"another root": {
			harm: func(t *testing.T, dir string, _ func()) {
				tamper(t, dir, `UPDATE node SET hash = zeroblob(32) WHERE ix = 14`) // over records 0 to 7
			},
			why: "another root at size 15", aside: true,
		},
		"another epoch": {
			harm: func(t *testing.T, dir string, _ func()) {
				other := t.TempDir()
				l := open(t, other, k.options())
				appendN(t, l, 30)
				l.Close()
				foreign, err := os.ReadFile(filepath.Join(other, databaseFile))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, databaseFile), foreign, 0o600); err != nil {
					t.Fatal(err)
				}
			},
			why: "the last receipt of epoch", aside: true, intact: true,
		},
		"another controller": {
			options: func(o *Options) { o.Controller = "south-2" },
			why:     `controller "north-1"`, aside: true, intact: true,
		},
		"a record after the receipt changed": {
			harm: func(t *testing.T, dir string, _ func()) {
				tamper(t, dir, `UPDATE rec SET body = zeroblob(length(body)) WHERE seq = 17`)
			},
			why: "record 17", aside: true,
		},
		"a record after the receipt missing": {
			harm: func(t *testing.T, dir string, _ func()) { tamper(t, dir, `DELETE FROM rec WHERE seq = 16`) },
			why:  "record 16", aside: true,
		},
		"a node after the receipt changed": {
			harm: func(t *testing.T, dir string, _ func()) {
				tamper(t, dir, `UPDATE node SET hash = zeroblob(32) WHERE ix = (SELECT max(ix) FROM node)`)
			},
			why: "tree node", aside: true,
		},
		"a node missing": {
			harm: func(t *testing.T, dir string, _ func()) {
				tamper(t, dir, `DELETE FROM node WHERE ix = (SELECT max(ix) FROM node)`)
			},
			why: "is missing", aside: true,
		},
		"another signing key": {
			options: func(o *Options) {
				other := newTestKeys(t, keys.ES256)
				o.Signer, o.Verifier, o.Note, o.NoteVerifier = other.signer, other.verifier, other.signer.NoteSigner, other.verifier.NoteVerifier
			},
			why: "signature", aside: true, intact: true, anyFormer: true,
		},
		"not a database": {
			harm: func(t *testing.T, dir string, _ func()) {
				if err := os.WriteFile(filepath.Join(dir, databaseFile), []byte(strings.Repeat("rust ", 4000)), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			why: "damaged", aside: true,
		},
		"empty file": {
			harm: func(t *testing.T, dir string, _ func()) {
				if err := os.Truncate(filepath.Join(dir, databaseFile), 0); err != nil {
					t.Fatal(err)
				}
			},
			why: "was empty",
		},
		"torn pages": {
			harm: func(t *testing.T, dir string, _ func()) {
				path := filepath.Join(dir, databaseFile)
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				f, err := os.OpenFile(path, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				for at := int64(8192); at < info.Size(); at += 4096 {
					if _, err := f.WriteAt(make([]byte, 512), at); err != nil {
						t.Fatal(err)
					}
				}
			},
			why: "damaged", aside: true,
		},
		"half a file": {
			harm: func(t *testing.T, dir string, _ func()) {
				path := filepath.Join(dir, databaseFile)
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(path, info.Size()/2); err != nil {
					t.Fatal(err)
				}
			},
			why: "damaged", aside: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := open(t, dir, k.options())
			appendN(t, l, 9)
			l.Close()
			restore := image(t, dir, databaseFile)
			l = open(t, dir, k.options())
			appendN(t, l, 5)
			r := receiptFor(t, l, 15)
			if err := l.Acknowledge(context.Background(), r); err != nil {
				t.Fatal(err)
			}
			appendN(t, l, 4)
			former := l.Epoch()
			l.Close()

			if c.harm != nil {
				c.harm(t, dir, restore)
			}
			o := k.options()
			if c.options != nil {
				c.options(&o)
			}
			l = open(t, dir, o)
			got := l.Opened()
			if !got.New || got.Epoch == former || !strings.Contains(got.Why, c.why) {
				t.Fatalf("opened %+v, want a new epoch because %q", got, c.why)
			}
			want := Head{Epoch: former, Size: 15, Root: r.Root.String()}
			if got.Former == nil || !c.anyFormer && got.Former.Epoch == former && got.Former.Size == 15 && *got.Former != want || got.Former.Epoch != former || got.Former.Size < 15 {
				t.Errorf("former head %+v, want at least what the CRM receipted: %+v", got.Former, want)
			}
			if (got.SetAside != "") != c.aside {
				t.Errorf("set aside %q", got.SetAside)
			}
			if got.SetAside != "" {
				if _, err := k.verify(t, got.SetAside); (err == nil) != c.intact {
					t.Errorf("what was set aside: %v", err)
				}
			}
			// The door keeps working, now and after the next start.
			appendN(t, l, 3)
			entries, err := l.Entries(context.Background(), 0, 1)
			if err != nil || entries[0].Record.Type != EpochStarted || entries[0].Record.Data.Former == nil || *entries[0].Record.Data.Former != *got.Former {
				t.Errorf("first record %+v, %v", entries, err)
			}
			l.Close()
			l = open(t, dir, o)
			if again := l.Opened(); again.New || again.Epoch != got.Epoch {
				t.Errorf("next start: %+v", again)
			}
		})
	}
}

func TestADamagedReceiptFileIsSetAsideAndTheDatabaseKept(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	appendN(t, l, 9)
	if err := l.Acknowledge(context.Background(), receiptFor(t, l, 8)); err != nil {
		t.Fatal(err)
	}
	epoch := l.Epoch()
	l.Close()
	path := filepath.Join(dir, receiptFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[60] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, shared().options())
	if o := l.Opened(); o.New || o.Epoch != epoch {
		t.Errorf("a rotten receipt file began a new epoch: %+v", o)
	}
	if l.Acknowledged() != 8 {
		t.Errorf("acknowledged = %d, want the database's 8", l.Acknowledged())
	}
	if kept, err := readReceipt(dir); err != nil || kept == nil || kept.Size != 8 {
		t.Errorf("receipt file: %+v, %v", kept, err)
	}
	if aside, err := filepath.Glob(filepath.Join(dir, "receipt-*.jws")); err != nil || len(aside) != 1 {
		t.Errorf("set aside: %v, %v", aside, err)
	}
}

func TestAFirstStartThatWasInterruptedIsAFirstStart(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(context.Background(), filepath.Join(dir, databaseFile), shared().sealer)
	if err != nil {
		t.Fatal(err)
	}
	s.close() // the schema stands, the life never began
	l := open(t, dir, shared().options())
	if o := l.Opened(); !o.New || o.SetAside != "" || o.Former != nil {
		t.Errorf("%+v", o)
	}
}

func TestWhatTheCRMSaysOnlineBeginsANewEpochAtRunTime(t *testing.T) {
	for name, change := range map[string]func(*Receipt){
		"beyond the log": func(r *Receipt) { r.Size += 100 },
		"another root":   func(r *Receipt) { r.Root[0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ctx := context.Background()
			var told []Opening
			o := shared().options()
			o.OnEpoch = func(opening Opening) { told = append(told, opening) }
			l := open(t, dir, o)
			appendN(t, l, 9)
			former := l.Epoch()
			r := receiptFor(t, l, 8)
			if begun, err := l.Reconcile(ctx, r); begun || err != nil {
				t.Fatalf("a receipt that agrees began an epoch: %v, %v", begun, err)
			}
			change(&r)

			var wg sync.WaitGroup
			stop := make(chan struct{})
			for range 4 { // the log's users notice nothing
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if _, err := l.Append(ctx, func(*Tx) (Draft, error) { return granted(0), nil }); err != nil {
							t.Error(err)
							return
						}
						if _, err := l.Entries(ctx, 0, 3); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			if name == "beyond the log" {
				r.Size = 1 << 40
			}
			begun, err := l.Reconcile(ctx, r)
			if !begun || err != nil {
				t.Errorf("Reconcile = %v, %v", begun, err)
			}
			if begun, err := l.Reconcile(ctx, r); begun || err != nil {
				t.Errorf("a second Reconcile = %v, %v: the receipt is of another epoch now", begun, err)
			}
			close(stop)
			wg.Wait()

			got := l.Opened()
			if got.Epoch == former || !got.New || *got.Former != (Head{Epoch: former, Size: r.Size, Root: r.Root.String()}) {
				t.Errorf("opened %+v", got)
			}
			if len(told) != 1 || told[0] != got {
				t.Errorf("told of %+v", told)
			}
			if _, err := shared().verify(t, got.SetAside); err != nil {
				t.Errorf("what was set aside: %v", err)
			}
			appendN(t, l, 2)
			if err := l.Acknowledge(ctx, receiptFor(t, l, 2)); err != nil {
				t.Error(err)
			}
			l.Close()
			if _, err := shared().verify(t, filepath.Join(dir, databaseFile)); err != nil {
				t.Error(err)
			}
			l = open(t, dir, shared().options())
			if again := l.Opened(); again.New || again.Epoch != got.Epoch {
				t.Errorf("next start: %+v", again)
			}
		})
	}
}

func TestARestartRemembersWhatReconcileFound(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	appendN(t, l, 3)
	r := receiptFor(t, l, 4)
	r.Size = 50
	if begun, err := l.Reconcile(context.Background(), r); !begun || err != nil {
		t.Fatal(begun, err)
	}
	epoch := l.Epoch()
	l.Close() // before any receipt of the new epoch
	l = open(t, dir, shared().options())
	if o := l.Opened(); o.New || o.Epoch != epoch {
		t.Errorf("the old epoch's receipt began yet another epoch: %+v", o)
	}
}

func TestADatabaseThatIsTakenAwayAtRunTimeBeginsANewEpoch(t *testing.T) {
	dir := t.TempDir()
	var told []Opening
	o := shared().options()
	o.OnEpoch = func(opening Opening) { told = append(told, opening) }
	l := open(t, dir, o)
	appendN(t, l, 9)
	was := head(t, l)
	remove(t, dir, databaseFile, databaseFile+"-wal", databaseFile+"-shm")
	appendN(t, l, 1)
	if len(told) != 1 || told[0].Former == nil || *told[0].Former != was {
		t.Errorf("told of %+v, want the former head %+v", told, was)
	}
	if got := head(t, l); got.Size != 2 || got.Epoch == was.Epoch {
		t.Errorf("head = %+v", got)
	}
	l.Close()
	if _, err := shared().verify(t, filepath.Join(dir, databaseFile)); err != nil {
		t.Error(err)
	}
}

func TestASchemaOfANewerProgramIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	l.Close()
	tamper(t, dir, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`)
	if l, err := Open(dir, shared().options()); err == nil {
		l.Close()
		t.Fatal("opened")
	} else if !strings.Contains(err.Error(), "newer") {
		t.Error(err)
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "records-*")); len(aside) != 0 {
		t.Errorf("set aside %v", aside)
	}
}

func TestNothingSetAsideIsEverOverwritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, databaseFile)
	seen := map[string]bool{}
	for _, content := range []string{"one", "two", "three"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+"-wal", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		to, err := setAside(path, "same")
		if err != nil || seen[to] {
			t.Fatalf("%q, %v", to, err)
		}
		seen[to] = true
		for _, suffix := range []string{"", "-wal"} {
			if b, err := os.ReadFile(to + suffix); err != nil || string(b) != content {
				t.Errorf("%s%s holds %q, %v", to, suffix, b, err)
			}
		}
	}
	if to, err := setAside(path, "same"); to != "" || err != nil {
		t.Errorf("nothing there: %q, %v", to, err)
	}
}
