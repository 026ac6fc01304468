package visitorlog

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// exhaust takes all that can be sent of what was set aside, as the CRM would;
// without receipts it takes nothing.
func exhaust(t testing.TB, l *Log, receipt func(size uint64) Receipt) {
	t.Helper()
	ctx := context.Background()
	for {
		a, err := l.Owing(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if a == nil {
			return
		}
		for a.Owed() > 0 {
			entries, _, err := a.Next(ctx, 3, 1<<20)
			if err != nil || receipt == nil {
				if err := a.Leave(); err != nil {
					t.Fatal(err)
				}
				break
			}
			if err := a.Acknowledge(ctx, receipt(a.Acknowledged()+uint64(len(entries)))); err != nil {
				t.Fatal(err)
			}
		}
		if a.Owed() == 0 {
			a.Close()
		}
	}
}

// carriedIn are the records that a log carries, and what its gaps say.
func carriedIn(t testing.TB, l *Log) (carried []Entry, gaps []string) {
	t.Helper()
	entries, err := l.Entries(context.Background(), 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		inner, err := e.Record.Unpack(l.o.Verifier)
		if err != nil {
			t.Fatal(err)
		}
		carried = append(carried, inner...)
		if e.Record.Type == Gap {
			gaps = append(gaps, e.Record.Data.Detail)
		}
	}
	return carried, gaps
}

// TestEachRecordThatCanBeReadIsSentOrCarriedOnce damages some of the records
// that the CRM does not have, in several ways, and closes the log at any
// moment. Each of the others is sent in its own log, or carried, once and in
// order; each damaged one is named in one gap.
func TestEachRecordThatCanBeReadIsSentOrCarriedOnce(t *testing.T) {
	if !long {
		if err := flag.Set("rapid.checks", "10"); err != nil {
			t.Fatal(err)
		}
	}
	const size, acked = 20, 8
	ctx := context.Background()
	rapid.Check(t, func(r *rapid.T) {
		dir := t.TempDir()
		old := open(t, dir, shared().options())
		appendN(t, old, size-1)
		all := make([]Receipt, size+1)
		for n := uint64(1); n <= size; n++ {
			all[n] = receiptFor(t, old, n)
		}
		receipt := func(n uint64) Receipt { return all[n] }
		want, err := old.Entries(ctx, 0, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := old.Acknowledge(ctx, receipt(acked)); err != nil {
			t.Fatal(err)
		}
		old.Close()
		lost := map[int]bool{}
		first := size
		for seq := acked; seq < size-1; seq++ { // the last one would be a cut log
			how := rapid.SampledFrom([]string{"", "", "", "body", "leaf", "row"}).Draw(r, fmt.Sprint("damage to ", seq))
			if statement, ok := map[string]string{
				"body": `UPDATE rec SET body = zeroblob(length(body)) WHERE seq = ?`,
				"leaf": `UPDATE rec SET leaf = zeroblob(32) WHERE seq = ?`,
				"row":  `DELETE FROM rec WHERE seq = ?`,
			}[how]; ok {
				tamper(t, dir, statement, seq)
				lost[seq] = how != "leaf" // the body says it all
				first = min(first, seq)
			}
		}
		if first == size {
			return
		}
		l := open(t, dir, shared().options())
		if n, err := l.Carry(ctx, 1); n != 0 || err != nil {
			t.Fatalf("carried %d, %v before what can be sent was", n, err)
		}
		for {
			exhaust(t, l, receipt)
			n, err := l.Carry(ctx, rapid.IntRange(1, 5).Draw(r, "at once"))
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			if rapid.Bool().Draw(r, "restart") {
				l.Close()
				l = open(t, dir, shared().options())
			}
		}
		carried, gaps := carriedIn(t, l)
		var left []Entry
		for seq := first; seq < size; seq++ {
			if !lost[seq] {
				left = append(left, want[seq])
			}
		}
		if !slices.EqualFunc(carried, left, func(a, b Entry) bool { return a.JWS == b.JWS && a.Seq == b.Seq && a.Leaf == b.Leaf }) {
			t.Fatalf("carried %d records, want the %d behind record %d that can be read", len(carried), len(left), first)
		}
		named := map[int]int{}
		for _, g := range gaps {
			var from, to int
			if n, _ := fmt.Sscanf(g, "records %d to %d of", &from, &to); n != 2 {
				if n, _ := fmt.Sscanf(g, "record %d of", &from); n != 1 {
					t.Fatal(g)
				}
				to = from
			}
			for seq := from; seq <= to; seq++ {
				named[seq]++
			}
		}
		for seq := range size {
			if want := map[bool]int{true: 1}[lost[seq]]; named[seq] != want {
				t.Fatalf("record %d is named by %d gaps, want %d: %q", seq, named[seq], want, gaps)
			}
		}
	})
}

// TestAForkIsCarriedFromTheLastReceiptOn: of a log that is not the one that
// the CRM has, all is carried that came after both were the same.
func TestAForkIsCarriedFromTheLastReceiptOn(t *testing.T) {
	ctx := context.Background()
	l, _, receipt := owing(t, func(dir string) { tamper(t, dir, `UPDATE node SET hash = zeroblob(32) WHERE ix = 14`) })
	a, err := l.Owing(ctx)
	if err != nil || a == nil {
		t.Fatal(a, err)
	}
	other := receipt(12)
	other.Root[3] ^= 1
	if err := a.Acknowledge(ctx, other); err == nil {
		t.Fatal("the CRM's other log is taken for this one")
	}
	if err := a.Leave(); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Carry(ctx, 100); n != 12 || err != nil {
		t.Fatalf("carried %d, %v; want 12", n, err)
	}
	carried, gaps := carriedIn(t, l)
	if len(carried) != 12 || carried[0].Seq != 8 || carried[11].Seq != 19 || len(gaps) != 0 {
		t.Errorf("%d records carried, gaps %q", len(carried), gaps)
	}

	// An epoch in which records had been carried is lost too: the next carries
	// them again, and what the lost one holds of its own.
	dir := filepath.Dir(a.Path())
	l.Close()
	tamper(t, dir, `UPDATE rec SET body = zeroblob(length(body)) WHERE seq = 4`)
	l = open(t, dir, shared().options())
	exhaust(t, l, nil)
	for {
		n, err := l.Carry(ctx, 5)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	again, gaps := carriedIn(t, l)
	seen := map[uint64]int{}
	for _, e := range again {
		if e.Record.Data.Epoch == a.Epoch() {
			seen[e.Seq]++
		}
	}
	for seq := uint64(8); seq < 20; seq++ {
		if seen[seq] == 0 {
			t.Errorf("record %d was lost with the epoch that carried it: %v", seq, seen)
		}
	}
	if len(gaps) != 1 {
		t.Errorf("gaps %q", gaps)
	}
}

func TestARecordThatIsTooLargeToBeCarriedIsNamed(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	large := granted(0)
	large.Data.Trials = slices.Repeat([]Trial{{Door: "a", Part: strings.Repeat("x", maxPart-30), Result: TrialPassed}}, maxTrials-60)
	for _, d := range []Draft{granted(0), granted(1), large, granted(2)} {
		if _, err := l.Append(ctx, func(*Tx) (Draft, error) { return d, nil }); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	tamper(t, dir, `UPDATE rec SET body = zeroblob(length(body)) WHERE seq = 0`)
	l = open(t, dir, shared().options())
	exhaust(t, l, nil)
	if n, err := l.Carry(ctx, 100); n != 5 || err != nil {
		t.Fatalf("carried %d, %v", n, err)
	}
	carried, gaps := carriedIn(t, l)
	if len(carried) != 3 || len(gaps) != 2 || !strings.Contains(gaps[1], "record 3") || !strings.Contains(gaps[1], "has room for") {
		t.Errorf("%d records carried, gaps %q", len(carried), gaps)
	}
}

func TestACarriedRecordIsOfItsControllerAndPlace(t *testing.T) {
	k := shared()
	l := open(t, t.TempDir(), k.options())
	appendN(t, l, 1)
	entries, err := l.Entries(context.Background(), 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	e := entries[1]
	for name, c := range map[string]struct {
		change func(*Record)
		want   string
	}{
		"as it is":           {func(*Record) {}, ""},
		"another epoch":      {func(r *Record) { r.Data.Carried.Epoch = testEpoch }, "epoch"},
		"another sequence":   {func(r *Record) { r.Data.Carried.Sequence = 2 }, "record 1"},
		"another controller": {func(r *Record) { r.Data.Controller = "south" }, "controller"},
		"another signature":  {func(r *Record) { r.Data.Carried.JWS = e.JWS[:len(e.JWS)-8] + "AAAAAAAA" }, "signature"},
	} {
		r := Record{Type: RecordCarried, Data: Data{Controller: "north-1", Carried: &Carried{l.Epoch(), 1, e.JWS}}}
		c.change(&r)
		got, err := r.Unpack(k.verifier)
		if c.want == "" && (err != nil || len(got) != 1 || got[0].JWS != e.JWS) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %d, %v", name, len(got), err)
		}
	}
}
