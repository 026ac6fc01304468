package visitorlog

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

// owing is a log in a new epoch, beside whose database lies one of the old
// epoch with 20 records, of which the CRM has 8. The function harm spoils it.
func owing(t *testing.T, harm func(dir string)) (l *Log, old *Log, receipts func(size uint64) Receipt) {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	old = open(t, dir, shared().options())
	if _, err := old.Append(ctx, func(tx *Tx) (Draft, error) { return granted(0), tx.Set("floor", []byte{7}) }); err != nil {
		t.Fatal(err)
	}
	appendN(t, old, 18)
	if err := old.Acknowledge(ctx, receiptFor(t, old, 8)); err != nil {
		t.Fatal(err)
	}
	all := map[uint64]Receipt{}
	for size := uint64(1); size <= 20; size++ {
		all[size] = receiptFor(t, old, size)
	}
	old.Close()
	harm(dir)
	return open(t, dir, shared().options()), old, func(size uint64) Receipt { return all[size] }
}

func TestWhatASetAsideDatabaseOwesIsSentOnceAsFarAsItCanBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(t *testing.T, dir string)
		most uint64 // records that can be had
	}{
		"a record": {func(t *testing.T, dir string) {
			tamper(t, dir, `UPDATE rec SET body = zeroblob(length(body)) WHERE seq = 15`)
		}, 15},
		"a node": {func(t *testing.T, dir string) {
			tamper(t, dir, `UPDATE node SET hash = zeroblob(32) WHERE ix = (SELECT max(ix) FROM node)`)
		}, 20},
		"a node that the CRM's root is made of": {func(t *testing.T, dir string) {
			tamper(t, dir, `UPDATE node SET hash = zeroblob(32) WHERE ix = 14`) // over records 0 to 7
		}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			l, _, receipt := owing(t, func(dir string) { c.harm(t, dir) })
			if !l.Opened().New {
				t.Fatal("no new epoch: nothing is shown")
			}
			if v, err := l.State(ctx, "floor"); err != nil || string(v) != "\x07" {
				t.Errorf("the state is not carried over: %v, %v", v, err)
			}
			a, err := l.Owing(ctx)
			if err != nil || a == nil || a.Acknowledged() != 8 || a.Owed() != 12 {
				t.Fatalf("Owing = %+v, %v", a, err)
			}
			for a.Acknowledged() < c.most {
				entries, signed, err := a.Next(ctx, 5, 1<<20)
				if err != nil || len(entries) == 0 || entries[0].Seq != a.Acknowledged() {
					t.Fatalf("Next = %d, %v", len(entries), err)
				}
				end := entries[len(entries)-1].Seq + 1
				v, err := shared().verifier.NoteVerifier(Origin("north-1", a.Epoch()))
				if err != nil {
					t.Fatal(err)
				}
				if got, err := OpenCheckpoint(signed, v); err != nil || got.Size != end || got.Root != receipt(end).Root {
					t.Fatalf("checkpoint %+v, %v: not what the log had promised at %d", got, err, end)
				}
				if err := a.Acknowledge(ctx, receipt(end)); err != nil {
					t.Fatal(err)
				}
			}
			if c.most < 20 {
				var fault *Fault
				if _, _, err := a.Next(ctx, 5, 1<<20); !errors.As(err, &fault) || fault.First != int64(c.most) {
					t.Errorf("behind the damage: %v", err)
				}
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			// Once: neither now nor after a restart is anything of it sent again.
			if a, err := l.Owing(ctx); a != nil || err != nil {
				t.Errorf("owing again: %+v, %v", a, err)
			}
			l.Close()
			l = open(t, filepath.Dir(a.Path()), shared().options())
			if a, err := l.Owing(ctx); a != nil || err != nil {
				t.Errorf("owing after a restart: %+v, %v", a, err)
			}
		})
	}
}

func TestADivergedDatabaseIsNotSent(t *testing.T) {
	ctx := context.Background()
	l, _, receipt := owing(t, func(dir string) { tamper(t, dir, `UPDATE node SET hash = zeroblob(32) WHERE ix = 14`) })
	for name, change := range map[string]func(*Receipt){
		"another root":            func(r *Receipt) { r.Root[3] ^= 1 },
		"more than was set aside": func(r *Receipt) { r.Size = 99 },
	} {
		a, err := l.Owing(ctx)
		if err != nil || a == nil {
			t.Fatal(a, err)
		}
		r := receipt(12)
		change(&r)
		if err := a.Acknowledge(ctx, r); !errors.Is(err, ErrDiverged) || a.Acknowledged() != 8 {
			t.Errorf("%s: %v, acknowledged %d", name, err, a.Acknowledged())
		}
		if err := a.Acknowledge(ctx, receipt(9)); err != nil || a.Acknowledged() != 9 {
			t.Errorf("%s: what the CRM holds may be less: %v", name, err)
		}
		if err := a.Acknowledge(ctx, receipt(8)); err != nil || a.Acknowledged() != 8 {
			t.Errorf("%s: a CRM that was restored holds less: %v", name, err)
		}
		a.Close()
	}
}

// TestDamageIsFoundAtRunTime: what cannot be read back begins a new epoch, and
// what can does not.
func TestDamageIsFoundAtRunTime(t *testing.T) {
	for name, statement := range map[string]string{
		"record": `UPDATE rec SET body = zeroblob(length(body)) WHERE seq = 5`,
		"node":   `UPDATE node SET hash = zeroblob(32) WHERE ix = 14`,
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dir := t.TempDir()
			l := open(t, dir, shared().options())
			appendN(t, l, 19)
			if begun, err := l.Damaged(ctx); begun || err != nil {
				t.Fatalf("a whole log: %v, %v", begun, err)
			}
			before := head(t, l)
			tamper(t, dir, statement)
			if name == "node" {
				var fault *Fault
				if _, err := l.Checkpoint(ctx, 9); !errors.As(err, &fault) {
					t.Errorf("a checkpoint over a damaged node: %v", err)
				}
			}
			if begun, err := l.Damaged(ctx); !begun || err != nil {
				t.Fatalf("Damaged = %v, %v", begun, err)
			}
			if o := l.Opened(); o.Former == nil || *o.Former != before {
				t.Errorf("opened %+v, want after %+v", o, before)
			}
			appendN(t, l, 2)
			if begun, err := l.Damaged(ctx); begun || err != nil {
				t.Errorf("the new epoch: %v, %v", begun, err)
			}
		})
	}
}
