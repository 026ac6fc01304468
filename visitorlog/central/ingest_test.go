package central

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

func TestABatchIsStoredOnceAndCosigned(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(12)
	c.approve(f)
	c.holds(c.ingest(f.batch(0, 5), 5, Applied), f)
	c.holds(c.ingest(f.batch(3, 9), 9, Applied), f) // overlaps
	c.holds(c.ingest(f.batch(0, 5), 9, Applied), f) // comes again
	c.holds(c.ingest(f.batch(9, 12), 12, Applied), f)
	c.wantAlarms()
	list, err := c.Records(t.Context(), everything)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range list {
		if r.Sequence != uint64(i) || r.JWS != f.jws[i] || r.Leaf != f.leaves[i] {
			t.Errorf("record %d is not the one sent", i)
		}
	}
	if len(list) != 12 {
		t.Errorf("%d records, want 12", len(list))
	}
}

// Whatever runs of a log arrive, in whatever order and however often, the
// store ends with a prefix of it, and each answer is the tree of that prefix.
func TestAnyOrderOfBatchesStoresAPrefixOfTheLog(t *testing.T) {
	const size = 40
	f := newForger(t, "north-1").add(size)
	c := newCRM(t)
	c.approve(f)
	rapid.Check(t, func(rt *rapid.T) {
		for _, table := range []string{"records", "nodes", "epochs"} {
			if _, err := c.w.Exec("DELETE FROM " + table); err != nil {
				rt.Fatal(err)
			}
		}
		var stored uint64
		for range rapid.IntRange(1, 12).Draw(rt, "batches") {
			first := rapid.IntRange(0, size-1).Draw(rt, "first")
			end := rapid.IntRange(first+1, size).Draw(rt, "end")
			if rapid.IntRange(0, 9).Draw(rt, "restart") == 0 {
				c.reopen()
			}
			want := Applied
			if uint64(first) > stored {
				want = RefusedBeyond
			} else {
				stored = max(stored, uint64(end))
			}
			h := c.ingest(f.batch(first, end), stored, want)
			if stored > 0 {
				c.holds(h, f)
			}
		}
		c.wantAlarms()
	})
}

// Batches that come together are each what they would be alone, one after the
// other: a bad one stops none of the others, raises its own alarm, and what is
// stored is countersigned once.
func TestABadBatchInARunStopsNoneOfTheOthers(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(30)
	other := f.clone(4).add(20)
	c.approve(f)
	altered := f.batch(12, 16)
	altered.Records = slices.Clone(altered.Records)
	altered.Records[1] = f.jws[0]
	unsigned := f.batch(12, 16)
	unsigned.Checkpoint = newForger(t, "north-1").add(16).checkpoint(16)
	misshapen := f.batch(12, 16)
	misshapen.Checkpoint = f.checkpoint(15)
	h := c.ingestRun([]Batch{f.batch(0, 6), f.batch(20, 24), f.batch(6, 12), altered, unsigned, misshapen, other.batch(6, 14), f.batch(10, 16)}, 16,
		Applied, RefusedBeyond, Applied, RefusedAltered, RefusedSignature, RefusedShape, RefusedFork, Applied)
	c.holds(h, f)
	if a := c.wantAlarms(AlarmFork)[AlarmFork]; a.Count != 1 || a.Epoch != f.epoch {
		t.Errorf("alarm %+v, want it once", a)
	}
	c.holds(c.ingestRun([]Batch{f.batch(16, 20), f.batch(0, 6), f.batch(20, 30)}, 30, Applied, Applied, Applied), f)
	// A root that the controller signed for a size in the middle is held to the
	// tree, though a later one vouches for all.
	g := f.afresh().add(10)
	lie := g.batch(0, 5)
	lie.Checkpoint = g.checkpointOf(5, tlog.Hash{1})
	c.holds(c.ingestRun([]Batch{lie, g.batch(0, 10)}, 10, RefusedFork, Applied), g)
	c.check()
	if v, err := c.Verify(t.Context(), "", VerifyOptions{Cosigner: c.cosigner.Public().Note()}); err != nil || v.Records != 40 || len(v.Uncosigned) != 0 {
		t.Errorf("%+v, %v; want 40 good records", v, err)
	}
}

func TestARunIsStoredWholeOrNotAtAll(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(12)
	c.approve(f)
	if _, err := c.w.Exec(`CREATE TRIGGER full BEFORE INSERT ON records WHEN NEW.seq = 7 BEGIN SELECT RAISE(ABORT, 'disk full'); END`); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Ingest(t.Context(), f.batch(0, 5), f.batch(5, 12)); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("ingest on a full disk: %v", err)
	}
	c.ingest(f.batch(5, 7), 0, RefusedBeyond)
	if _, err := c.w.Exec(`DROP TRIGGER full`); err != nil {
		t.Fatal(err)
	}
	c.holds(c.ingestRun([]Batch{f.batch(0, 5), f.batch(5, 12)}, 12, Applied, Applied), f)
}

func TestARunIsOfOneEpochAndBounded(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(4)
	g, other := f.afresh().add(4), newForger(t, "south-1").add(4)
	c.approve(f)
	c.approve(other)
	for name, run := range map[string][]Batch{
		"nothing":         nil,
		"two epochs":      {f.batch(0, 2), g.batch(0, 2)},
		"two controllers": {f.batch(0, 2), other.batch(0, 2)},
		"too many":        slices.Repeat([]Batch{f.batch(0, 2)}, MaxRun+1),
	} {
		if h, _, err := c.Ingest(t.Context(), run...); err == nil {
			t.Errorf("%s: was taken, %+v", name, h)
		}
	}
}

func TestAnotherLeafAtAStoredSequenceIsAForkAndChangesNothing(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(10)
	other := f.clone(6).add(8)
	c.approve(f)
	before := c.ingest(f.batch(0, 10), 10, Applied)
	for _, b := range []Batch{other.batch(4, 14), other.batch(6, 9), other.batch(6, 14)} {
		if h := c.ingest(b, 10, RefusedFork); h != before {
			t.Errorf("head after the fork is %+v, was %+v", h, before)
		}
	}
	a := c.wantAlarms(AlarmFork)[AlarmFork]
	if a.Sequence == nil || *a.Sequence != 6 || a.Count != 3 || a.Epoch != f.epoch {
		t.Errorf("alarm %+v, want the first sequence 6, three times", a)
	}
	// The true log and other controllers go on.
	f.add(2)
	c.holds(c.ingest(f.batch(10, 12), 12, Applied), f)
	g := newForger(t, "south-1").add(3)
	c.approve(g)
	c.holds(c.ingest(g.batch(0, 3), 3, Applied), g)
}

// A forked log that sends only what comes after the fork shares no sequence
// with what is stored: its signed root gives it away.
func TestARootThatDoesNotFollowIsAFork(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(10)
	other := f.clone(6).add(8)
	c.approve(f)
	c.ingest(f.batch(0, 10), 10, Applied)
	c.ingest(other.batch(10, 14), 10, RefusedFork)
	c.wantAlarms(AlarmFork)
}

func TestASignedRootThatContradictsStoredRecordsIsAFork(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(10)
	c.approve(f)
	c.ingest(f.batch(0, 10), 10, Applied)
	b := f.batch(2, 5)
	b.Checkpoint = f.checkpointOf(5, tlog.Hash{1})
	c.ingest(b, 10, RefusedFork)
	c.wantAlarms(AlarmFork)
}

// Who carries a batch can change the records in it, and so raise no alarm that
// the controller signed two logs: it signed one.
func TestABatchThatWasAlteredOnItsWayIsRefusedAndNoFork(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(14)
	c.approve(f)
	before := c.ingest(f.batch(0, 10), 10, Applied)
	for name, r := range map[string]struct{ first, end, altered int }{
		"all stored":              {2, 5, 3},
		"what is stored and more": {8, 12, 9},
		"what is new":             {8, 12, 11},
		"only what is new":        {10, 14, 12},
	} {
		t.Run(name, func(t *testing.T) {
			for how, record := range map[string]string{
				"another header":    "eyJhbGciOiJub25lIn0" + f.jws[r.altered][strings.IndexByte(f.jws[r.altered], '.'):],
				"of another place":  f.jws[0],
				"of nobody":         "x.y.z",
				"of another signer": newForger(t, "north-1").add(1).jws[0],
			} {
				b := f.batch(r.first, r.end)
				b.Records = slices.Clone(b.Records)
				b.Records[r.altered-r.first] = record
				if h := c.ingest(b, 10, RefusedAltered); h != before {
					t.Errorf("%s: the head is %+v, was %+v", how, h, before)
				}
			}
		})
	}
	c.wantAlarms()
	c.holds(c.ingest(f.batch(8, 14), 14, Applied), f)
}

func TestNothingIsAppliedWithoutTheRegisteredKeysCheckpoint(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(5)
	c.approve(f)
	stranger := newForger(t, "north-1")
	stranger.epoch = f.epoch
	south := newForger(t, "south-1")
	south.signer = f.signer
	for name, b := range map[string]struct {
		checkpoint string
		want       Refusal
	}{
		"another key":        {stranger.checkpointOf(5, f.root(5)), RefusedSignature},
		"another controller": {south.checkpointOf(5, f.root(5)), RefusedSignature},
		"another epoch":      {f.afresh().checkpointOf(5, f.root(5)), RefusedSignature},
		"no note":            {"hello", RefusedSignature},
		"not signed":         {visitorlog.Checkpoint{Origin: visitorlog.Origin(f.name, f.epoch), Size: 5, Root: f.root(5)}.Text(), RefusedSignature},
		"an extension line":  {extended(t, f), RefusedSignature},
		"another size":       {f.checkpoint(4), RefusedShape},
	} {
		t.Run(name, func(t *testing.T) {
			batch := f.batch(0, 5)
			batch.Checkpoint = b.checkpoint
			c.ingest(batch, 0, b.want)
		})
	}
	if list, err := c.Epochs(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("epochs %v, %v; want none", list, err)
	}
}

func extended(t *testing.T, f *forger) string {
	s, err := f.signer.NoteSigner(visitorlog.Origin(f.name, f.epoch))
	if err != nil {
		t.Fatal(err)
	}
	text := visitorlog.Checkpoint{Origin: visitorlog.Origin(f.name, f.epoch), Size: 5, Root: f.root(5)}.Text() + "more\n"
	b, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Signatures of others on a checkpoint are not passed on: the CRM's would
// seem to vouch for them, and they could make its receipts too large to send.
func TestForeignSignaturesOnACheckpointAreDropped(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(5)
	c.approve(f)
	b := f.batch(0, 5)
	b.Checkpoint += strings.Repeat("— crm.example AAAAAAAAAAAA\n", 20)
	h := c.ingest(b, 5, Applied)
	c.holds(h, f)
	if n := strings.Count(h.Checkpoint, "— "); n != 2 {
		t.Errorf("the cosigned checkpoint has %d signatures, want 2", n)
	}
}

func TestOnlyApprovedControllersMaySend(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(5)
	send := func() error {
		_, _, err := c.Ingest(t.Context(), f.batch(0, 3))
		_, _, rerr := c.Report(t.Context(), Report{Controller: f.name, Epoch: f.epoch, Session: newEpoch(), Online: true})
		_, eerr := c.Early(t.Context(), f.batch(3, 5))
		if err == nil != (rerr == nil) || err == nil != (eerr == nil) {
			t.Errorf("batch %v, state %v, early %v: not the same answer", err, rerr, eerr)
		}
		return err
	}
	if err := send(); !errors.Is(err, ErrUnknownController) {
		t.Errorf("unknown controller: %v", err)
	}
	c.approve(f)
	if err := send(); err != nil {
		t.Errorf("approved controller: %v", err)
	}
	if err := c.Revoke(t.Context(), f.name); err != nil {
		t.Fatal(err)
	}
	if err := send(); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked controller: %v", err)
	}
	c.approve(f)
	if err := send(); err != nil {
		t.Errorf("controller approved again: %v", err)
	}
}

// A machine that was replaced has a new key. What the old one signed is still
// verified with the old key, and nobody goes on with the old log.
func TestANewKeyLeavesOldEpochsWithTheirOwn(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(5)
	c.approve(f)
	c.ingest(f.batch(0, 4), 4, Applied)
	replaced := newForger(t, "north-1").add(3)
	c.approve(replaced)
	c.ingest(f.batch(4, 5), 4, RefusedSignature)
	c.holds(c.ingest(replaced.batch(0, 3), 3, Applied), replaced)
	c.check()
	if got, err := c.Records(t.Context(), Filter{}); err != nil || len(got) != 7 {
		t.Errorf("%d good records, %v; want 7", len(got), err)
	}
	c.wantAlarms(AlarmEpoch)
}

func TestASecondEpochIsAnAlarmThatNamesTheOldHeadAndTheGap(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(20)
	c.approve(f)
	c.ingest(f.batch(0, 8), 8, Applied)
	c.wantAlarms()
	g := f.afresh().add(1, func(r *visitorlog.Record) {
		r.Data.Former = &visitorlog.Head{Epoch: f.epoch, Size: 20, Root: f.root(20).String()}
	}).add(4)
	c.ingest(g.batch(0, 2), 2, Applied)
	c.ingest(g.batch(0, 2), 2, Applied)
	c.ingest(g.batch(2, 5), 5, Applied)
	got := c.wantAlarms(AlarmEpoch, AlarmGap)
	if a := got[AlarmEpoch]; a.Count != 1 || a.Epoch != g.epoch || !strings.Contains(a.Detail, f.epoch) || !strings.Contains(a.Detail, f.root(20).String()) {
		t.Errorf("new epoch alarm %+v does not name the old head once", a)
	}
	if a := got[AlarmGap]; a.Epoch != f.epoch || *a.Sequence != 8 || !strings.Contains(a.Detail, "records 8 to 19") {
		t.Errorf("gap alarm %+v, want records 8 to 19 of the old epoch", a)
	}
}

// A record whose leaf fits is stored and answered whatever it says.
func TestABadRecordIsStoredFlaggedAndBlocksNothing(t *testing.T) {
	for name, bad := range map[string]func(f *forger) string{
		"not a JWS":     func(*forger) string { return "hello" },
		"empty":         func(*forger) string { return "" },
		"not JSON":      func(f *forger) string { s, _ := f.signer.Sign([]byte("{")); return s },
		"another key":   func(f *forger) string { return newForger(t, "x").sign(f.record()) },
		"unknown type":  func(f *forger) string { r := f.record(); r.Type = "gatehouse.made.up"; return f.sign(r) },
		"another epoch": func(f *forger) string { g := f.afresh(); g.jws, g.leaves = f.jws, f.leaves; return f.sign(g.record()) },
		"another controller": func(f *forger) string {
			r := f.record()
			r.Source, r.Data.Controller = "/controllers/south-1", "south-1"
			return f.sign(r)
		},
		"another sequence": func(f *forger) string {
			r := f.record()
			r.ID, r.Data.Sequence = f.epoch+"-99", 99
			return f.sign(r)
		},
		"another link":        func(f *forger) string { r := f.record(); r.Data.Previous = tlog.Hash{}.String(); return f.sign(r) },
		"epoch started again": func(f *forger) string { r := f.record(); r.Type = visitorlog.EpochStarted; return f.sign(r) },
	} {
		t.Run(name, func(t *testing.T) {
			c, f := newCRM(t), newForger(t, "north-1").add(4)
			f.addJWS(bad(f))
			f.add(4)
			c.approve(f)
			c.holds(c.ingest(f.batch(0, 9), 9, Applied), f)
			c.check()
			list, err := c.Records(t.Context(), everything)
			if err != nil || len(list) != 9 {
				t.Fatalf("%d records, %v; want 9", len(list), err)
			}
			for _, r := range list {
				if want := r.Sequence == 4; (r.Checked == Bad) != want || (r.Fault != "") != want {
					t.Errorf("record %d: checked %q, fault %q", r.Sequence, r.Checked, r.Fault)
				}
			}
			if good, err := c.Records(t.Context(), Filter{}); err != nil || len(good) != 8 {
				t.Errorf("%d good records, %v; want 8", len(good), err)
			}
			if a := c.wantAlarms(AlarmInvalid)[AlarmInvalid]; *a.Sequence != 4 {
				t.Errorf("alarm %+v, want sequence 4", a)
			}
		})
	}
}

func TestRecordsAreShownOnlyOnceTheyAreChecked(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(checkAtOnce+3, func(r *visitorlog.Record) {
		r.Data.Policy = &visitorlog.Policy{Version: 7, Freshness: "fresh"}
	})
	c.approve(f)
	for first := 0; first < len(f.jws); first += 250 {
		c.ingest(f.batch(first, min(first+250, len(f.jws))), uint64(min(first+250, len(f.jws))), Applied)
	}
	for _, want := range []int{0, checkAtOnce, checkAtOnce + 3} {
		if got, err := c.Records(t.Context(), Filter{Limit: 2000}); err != nil || len(got) != want {
			t.Errorf("%d records, %v; want %d", len(got), err, want)
		}
		if _, err := c.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if h := c.ingest(f.batch(0, 1), uint64(len(f.jws)), Applied); h.PolicyVersion != 7 {
		t.Errorf("policy version %d, want 7: the highest in a checked record", h.PolicyVersion)
	}
}

func TestACosignatureIsKeptAcrossARestart(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(6)
	c.approve(f)
	before := c.ingest(f.batch(0, 4), 4, Applied)
	c.reopen()
	if after := c.ingest(f.batch(0, 2), 4, Applied); after != before {
		t.Errorf("head after the restart is %+v, was %+v", after, before)
	}
	// Stopped between the commit and the cosignature: it is made then.
	if _, err := c.w.Exec(`UPDATE epochs SET cosigned = ''`); err != nil {
		t.Fatal(err)
	}
	c.reopen()
	c.holds(c.ingest(f.batch(4, 6), 6, Applied), f)
}

// The cosigner is the CRM's word. It is asked only for heads that are
// committed, each larger than the one before.
func TestTheCosignerSignsOnlyCommittedHeadsThatGrow(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(30)
	other := f.clone(5).add(25)
	w := &watchedSigner{Signer: c.cosigner.Note(), committed: func() (size int64, root []byte) {
		err := c.r.QueryRow(`SELECT size, root FROM epochs`).Scan(&size, &root)
		if err != nil {
			t.Error(err)
		}
		return size, root
	}}
	c.Close()
	c.o.Cosigner = w
	c.open()
	c.approve(f)
	for i := 1; i <= 10; i++ {
		c.Ingest(t.Context(), other.batch(3*i-3, 3*i))
		c.Ingest(t.Context(), f.batch(3*i-3, 3*i))
		c.Ingest(t.Context(), f.batch(0, 3*i))
		if i == 5 {
			c.reopen()
		}
	}
	if len(w.sizes) == 0 || !slices.IsSorted(w.sizes) || len(slices.Compact(slices.Clone(w.sizes))) != len(w.sizes) {
		t.Errorf("sizes signed: %v; want each once, rising", w.sizes)
	}
	for _, fault := range w.faults {
		t.Error(fault)
	}
}

type watchedSigner struct {
	note.Signer
	committed func() (int64, []byte)
	sizes     []int64
	faults    []string
}

func (w *watchedSigner) Sign(msg []byte) ([]byte, error) {
	p, err := visitorlog.ParseCheckpoint(string(msg))
	size, root := w.committed()
	if err != nil || size != int64(p.Size) || string(root) != string(p.Root[:]) {
		w.faults = append(w.faults, fmt.Sprintf("asked to sign %q (%v) with size %d committed", msg, err, size))
	}
	w.sizes = append(w.sizes, int64(p.Size))
	return w.Signer.Sign(msg)
}

func (c *crm) report(f *forger, session string, size int, want Refusal) Head {
	c.t.Helper()
	r := Report{Controller: f.name, Epoch: f.epoch, Session: session, Online: true}
	if size > 0 {
		r.Checkpoint = f.checkpoint(size)
	}
	h, refusal, err := c.Report(c.t.Context(), r)
	if err != nil || refusal != want {
		c.t.Fatalf("report: refusal %q, %v; want %q", refusal, err, want)
	}
	return h
}

func TestAShorterLogAfterARestartIsARollback(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(20)
	c.approve(f)
	first, second := newEpoch(), newEpoch()
	if h := c.report(f, first, 3, Applied); h.Size != 0 || h.Checkpoint != "" {
		t.Errorf("head of an unknown epoch is %+v, want an empty one", h)
	}
	c.ingest(f.batch(0, 20), 20, Applied)
	// A state of the same session that batches have overtaken is none.
	c.report(f, first, 15, Applied)
	c.wantAlarms()
	// Neither is the first session's, delivered late after the second's.
	c.holds(c.report(f, second, 20, Applied), f)
	c.report(f, first, 15, Applied)
	c.wantAlarms()
	c.holds(c.report(f, newEpoch(), 12, Applied), f)
	if a := c.wantAlarms(AlarmRollback)[AlarmRollback]; *a.Sequence != 12 {
		t.Errorf("alarm %+v, want from sequence 12 on", a)
	}
}

func TestAReportedHeadOfAnotherTreeIsAFork(t *testing.T) {
	for _, size := range []int{12, 20} {
		c, f := newCRM(t), newForger(t, "north-1").add(20)
		c.approve(f)
		c.ingest(f.batch(0, 20), 20, Applied)
		c.report(f.clone(10).add(10), newEpoch(), size, RefusedFork)
		c.wantAlarms(AlarmFork)
	}
}

func TestALastWillMarksOnlyItsOwnSessionOffline(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(2)
	c.approve(f)
	online := func() bool {
		list, err := c.Controllers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return list[0].Online
	}
	first, second := newEpoch(), newEpoch()
	c.report(f, first, 2, Applied)
	c.report(f, second, 2, Applied)
	for _, tt := range []struct {
		session string
		want    bool
	}{{first, true}, {second, false}} {
		if _, _, err := c.Report(t.Context(), Report{Controller: f.name, Session: tt.session}); err != nil {
			t.Fatal(err)
		}
		if online() != tt.want {
			t.Errorf("after the will of %s online is %v, want %v", tt.session, !tt.want, tt.want)
		}
	}
}

func TestASilentControllerIsAnAlarmUntilSomebodyClearsIt(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(2)
	c.Store.o.SilentAfter = time.Hour
	c.approve(f)
	now := time.Now()
	for _, tt := range []struct {
		at   time.Time
		want int
	}{{now, 0}, {now.Add(59 * time.Minute), 0}, {now.Add(2 * time.Hour), 1}, {now.Add(3 * time.Hour), 1}} {
		if err := c.RaiseSilent(t.Context(), tt.at); err != nil {
			t.Fatal(err)
		}
		if got := c.alarms(); len(got) != tt.want {
			t.Errorf("at %v: alarms %v, want %d", tt.at, got, tt.want)
		}
	}
	a := c.wantAlarms(AlarmSilent)[AlarmSilent]
	if a.Count != 1 {
		t.Errorf("alarm %+v, want it once", a)
	}
	for _, nobody := range []string{"", HeardAgain} {
		if err := c.Clear(t.Context(), a.ID, nobody); err == nil {
			t.Errorf("cleared in nobody's name, %q", nobody)
		}
	}
	if err := c.Clear(t.Context(), a.ID, "ops-7"); err != nil {
		t.Fatal(err)
	}
	if err := c.Clear(t.Context(), a.ID, "ops-7"); !errors.Is(err, ErrNoAlarm) {
		t.Errorf("cleared twice: %v", err)
	}
	c.wantAlarms()
}

// Nobody has to look for a controller that is there. The other alarms stay.
func TestASilentAlarmClosesItselfWhenTheControllerIsHeard(t *testing.T) {
	for name, hear := range map[string]func(c *crm, f *forger){
		"a batch": func(c *crm, f *forger) { c.ingest(f.batch(0, 2), 2, Applied) },
		"a state": func(c *crm, f *forger) { c.report(f, newEpoch(), 2, Applied) },
	} {
		t.Run(name, func(t *testing.T) {
			c, f := newCRM(t), newForger(t, "north-1").add(2)
			g := newForger(t, "south-1").add(6)
			c.Store.o.SilentAfter = time.Hour
			c.approve(f)
			c.approve(g)
			c.ingest(g.batch(0, 5), 5, Applied)
			c.ingest(g.clone(3).add(3).batch(3, 6), 5, RefusedFork)
			for range 2 { // it may fall silent again, and be back again
				if err := c.RaiseSilent(t.Context(), time.Now().Add(2*time.Hour)); err != nil {
					t.Fatal(err)
				}
				hear(c, f)
			}
			// The last will is not the controller's voice.
			if _, _, err := c.Report(t.Context(), Report{Controller: g.name, Session: newEpoch()}); err != nil {
				t.Fatal(err)
			}
			if got := c.wantAlarms(AlarmFork, AlarmSilent); got[AlarmSilent].Controller != g.name {
				t.Errorf("open: %+v", got)
			}
			all, err := c.Alarms(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			closed := 0
			for _, a := range all {
				if a.Controller != f.name {
					continue
				}
				closed++
				if a.Kind != AlarmSilent || a.Cleared.Before(a.Raised) || a.ClearedBy != HeardAgain || a.Count != 1 {
					t.Errorf("alarm %+v, want it closed by the controller", a)
				}
			}
			if closed != 2 {
				t.Errorf("%d alarms of its own, want 2", closed)
			}
		})
	}
}

// A receipt is given after the commit: a controller that has one for more than
// is stored has seen a store that this one is an older copy of.
func TestAControllerWithAReceiptForMoreThanIsStoredTellsOfARestoredCRM(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(20)
	c.approve(f)
	c.ingest(f.batch(0, 8), 8, Applied)
	report := func(acknowledged uint64) {
		t.Helper()
		h, refusal, err := c.Report(t.Context(), Report{Controller: f.name, Epoch: f.epoch, Session: newEpoch(), Online: true,
			Checkpoint: f.checkpoint(20), Acknowledged: acknowledged})
		if err != nil || refusal != Applied || h.Size != 8 {
			t.Fatalf("head %+v, refusal %q, %v", h, refusal, err)
		}
	}
	report(0)
	report(8)
	c.wantAlarms()
	report(15)
	if a := c.wantAlarms(AlarmRestored)[AlarmRestored]; a.Epoch != f.epoch || *a.Sequence != 8 || !strings.Contains(a.Detail, "15") {
		t.Errorf("alarm %+v, want records 8 to 14 of the epoch", a)
	}
}

func TestEarlyRecordsAreVerifiedBoundedAndGiveWay(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(keptEarly+60)
	c.approve(f)
	size := len(f.jws)
	early := func(first, end int) int {
		n, err := c.Early(t.Context(), Batch{Controller: f.name, Epoch: f.epoch, First: uint64(first), Records: f.jws[first:end]})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	list := func() []Record {
		l, err := c.EarlyRecords(t.Context(), f.name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if n := early(20, 25); n != 5 {
		t.Errorf("kept %d, want 5", n)
	}
	misplaced := Batch{Controller: f.name, Epoch: f.epoch, First: 30, Records: f.jws[31:33]}
	if n, err := c.Early(t.Context(), misplaced); n != 0 || err != nil {
		t.Errorf("kept %d records that name another sequence, %v", n, err)
	}
	if got, err := c.Records(t.Context(), everything); err != nil || len(got) != 0 {
		t.Errorf("%d records in the log, %v: early ones are none", len(got), err)
	}
	c.ingest(f.batch(0, 22), 22, Applied)
	if got := list(); len(got) != 3 || got[0].Sequence != 22 {
		t.Errorf("early records %v, want 22 to 24", got)
	}
	if n := early(10, 22); n != 0 {
		t.Errorf("kept %d records that are in the log", n)
	}
	early(25, size)
	if got := list(); len(got) != keptEarly || got[keptEarly-1].Sequence != uint64(size-1) {
		t.Errorf("%d early records, want the newest %d", len(got), keptEarly)
	}
}

// A commit that fails must leave the writer's memory as the database is.
func TestAFailedCommitIsAsIfTheBatchHadNotCome(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(12)
	c.approve(f)
	c.ingest(f.batch(0, 5), 5, Applied)
	if _, err := c.w.Exec(`CREATE TRIGGER full BEFORE UPDATE OF size ON epochs BEGIN SELECT RAISE(ABORT, 'disk full'); END`); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Ingest(t.Context(), f.batch(5, 9)); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("ingest on a full disk: %v", err)
	}
	if _, err := c.w.Exec(`DROP TRIGGER full`); err != nil {
		t.Fatal(err)
	}
	c.ingest(f.batch(9, 12), 5, RefusedBeyond)
	c.holds(c.ingest(f.batch(5, 12), 12, Applied), f)
}

func TestAReplacedMachineIsNotHeldToTheAllowlistsOfTheOldOne(t *testing.T) {
	c := newCRM(t)
	f := newForger(t, "north-1").add(2, func(r *visitorlog.Record) {
		r.Data.Policy = &visitorlog.Policy{Version: 57, Freshness: "fresh"}
	})
	c.approve(f)
	c.ingest(f.batch(0, 2), 2, Applied)
	c.check()
	c.approve(f) // again, with the same key
	if h := c.ingest(f.batch(0, 2), 2, Applied); h.PolicyVersion != 57 {
		t.Errorf("policy version %d, want 57", h.PolicyVersion)
	}
	replaced := newForger(t, "north-1").add(1)
	c.approve(replaced)
	if h := c.ingest(replaced.batch(0, 1), 1, Applied); h.PolicyVersion != 0 {
		t.Errorf("policy version %d of a new machine, want 0", h.PolicyVersion)
	}
}

// Whoever can write to the database must not be able to have the cosigner
// sign what no controller sent.
func TestWhatWasChangedBehindTheCRMsBackIsNotCosigned(t *testing.T) {
	for name, change := range map[string]string{
		"a record is changed":       `UPDATE records SET jws = jws || 'A' WHERE seq = 2`,
		"a record is gone":          `DELETE FROM records WHERE seq = 3`,
		"the signature is gone":     `UPDATE epochs SET checkpoint = substr(checkpoint, 1, instr(checkpoint, '—') - 1)`,
		"another checkpoint stands": `UPDATE epochs SET checkpoint = replace(checkpoint, char(10) || '4' || char(10), char(10) || '3' || char(10))`,
	} {
		t.Run(name, func(t *testing.T) {
			c, f := newCRM(t), newForger(t, "north-1").add(6)
			other := newForger(t, "south-1").add(3)
			c.approve(f)
			c.approve(other)
			c.ingest(f.batch(0, 4), 4, Applied)
			for _, statement := range []string{`UPDATE epochs SET cosigned = ''`, change} {
				if _, err := c.w.Exec(statement); err != nil {
					t.Fatal(err)
				}
			}
			c.reopen()
			c.wantAlarms(AlarmDamaged)
			// Records that are not what was sent are never countersigned. Where
			// only the checkpoint was changed, the controller's next is as good.
			h, _, err := c.Ingest(t.Context(), f.batch(4, 6))
			switch {
			case strings.HasPrefix(name, "a record"):
				if err == nil {
					t.Errorf("a receipt was given: %+v", h)
				}
			case err != nil:
				t.Error(err)
			default:
				c.holds(h, f)
			}
			// The others are served.
			c.holds(c.ingest(other.batch(0, 3), 3, Applied), other)
		})
	}
}
