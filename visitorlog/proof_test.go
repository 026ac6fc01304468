package visitorlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/google/go-cmp/cmp"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func newCosigner(tb testing.TB, name string) *keys.Cosigner {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := keys.NewCosigner(key, name)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// countersigned is the receipt of a CRM for the first size records.
func countersigned(tb testing.TB, l *Log, c *keys.Cosigner, size uint64) Receipt {
	tb.Helper()
	r := receiptFor(tb, l, size)
	own, err := shared().verifier.NoteVerifier(Origin("north-1", r.Epoch))
	if err != nil {
		tb.Fatal(err)
	}
	n, err := note.Open([]byte(r.Checkpoint), note.VerifierList(own))
	if err != nil {
		tb.Fatal(err)
	}
	signed, err := note.Sign(n, c.Note())
	if err != nil {
		tb.Fatal(err)
	}
	r.Checkpoint = string(signed)
	return r
}

// TestEveryRecordOfEverySizeHasAProof proves each record at each size of a
// growing log, and lets an implementation of RFC 6962 that shares nothing with
// ours check the inclusion of each and the consistency of each two sizes.
func TestEveryRecordOfEverySizeHasAProof(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	c := newCosigner(t, "crm.example")
	own, err := shared().verifier.NoteVerifier(Origin("north-1", l.Epoch()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(ctx, filepath.Join(dir, databaseFile), shared().sealer)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Prove(ctx, 0); !errors.Is(err, ErrNotCountersigned) {
		t.Errorf("without a receipt: %v", err)
	}
	before, root := uint64(0), tlog.Hash{}
	for size := uint64(1); size <= 18; size++ {
		if _, err := r.Prove(ctx, size); err == nil {
			t.Errorf("record %d of %d has a proof", size, size)
		}
		receipt := countersigned(t, l, c, size)
		if err := l.Acknowledge(ctx, receipt); err != nil {
			t.Fatal(err)
		}
		for seq := range size {
			p, err := r.Prove(ctx, seq)
			if err != nil {
				t.Fatal(err)
			}
			text, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			back, err := ParseProof(text)
			if err != nil || cmp.Diff(p, back) != "" {
				t.Fatalf("%s reads back as %+v, %v", text, back, err)
			}
			rec, err := back.Verify(shared().verifier, own, c.Public().Note())
			if err != nil || rec.Data.Sequence != seq {
				t.Errorf("record %d of %d: %v", seq, size, err)
			}
			leaf := rfc6962.DefaultHasher.HashLeaf([]byte(p.JWS))
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, seq, size, leaf, raw(p.Hashes), receipt.Root[:]); err != nil {
				t.Errorf("record %d of %d: %v", seq, size, err)
			}
		}
		if before > 0 {
			tree, err := l.ProveTree(ctx, size, before)
			if err != nil {
				t.Fatal(err)
			}
			if err := proof.VerifyConsistency(rfc6962.DefaultHasher, before, size, raw(tree), root[:], receipt.Root[:]); err != nil {
				t.Errorf("from %d to %d: %v", before, size, err)
			}
		}
		before, root = size, receipt.Root
		appendN(t, l, 1)
	}
	if _, err := r.Prove(ctx, 18); !errors.Is(err, ErrNotCountersigned) {
		t.Errorf("a record after the receipt: %v", err)
	}
}

// oneProof is a proof of one record of a log, with the keys to verify it.
func oneProof(tb testing.TB) (p Proof, log note.Verifier, c *keys.Cosigner) {
	tb.Helper()
	ctx := context.Background()
	dir := tb.TempDir()
	l := open(tb, dir, shared().options())
	c = newCosigner(tb, "crm.example")
	appendN(tb, l, 6)
	if err := l.Acknowledge(ctx, countersigned(tb, l, c, 7)); err != nil {
		tb.Fatal(err)
	}
	r, err := OpenReader(ctx, filepath.Join(dir, databaseFile), shared().sealer)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	if p, err = r.Prove(ctx, 3); err != nil {
		tb.Fatal(err)
	}
	if log, err = shared().verifier.NoteVerifier(Origin("north-1", p.Epoch)); err != nil {
		tb.Fatal(err)
	}
	return p, log, c
}

func TestAProofIsOfOneRecordUnderOneCheckpointOnly(t *testing.T) {
	good, log, c := oneProof(t)
	other, _, _ := oneProof(t)
	stranger := newCosigner(t, "crm.example")
	if _, err := good.Verify(shared().verifier, log, c.Public().Note()); err != nil {
		t.Fatal(err)
	}
	if _, err := good.Verify(shared().verifier, log, stranger.Public().Note()); err == nil {
		t.Error("verified with the key of another CRM of that name")
	}
	if _, err := good.Verify(newTestKeys(t, keys.ES256).verifier, log, c.Public().Note()); err == nil {
		t.Error("verified with the key of another controller")
	}
	for name, change := range map[string]func(*Proof){
		"another version":    func(p *Proof) { p.Version++ },
		"another controller": func(p *Proof) { p.Controller = "south-1" },
		"another epoch":      func(p *Proof) { p.Epoch = other.Epoch },
		"another record":     func(p *Proof) { p.JWS = other.JWS },
		"another checkpoint": func(p *Proof) { p.Checkpoint = other.Checkpoint },
		"another index":      func(p *Proof) { p.Index = 2 },
		"an index too high":  func(p *Proof) { p.Index = 7 },
		"another size":       func(p *Proof) { p.Size = 6 },
		"a size too high":    func(p *Proof) { p.Size = 1 << 63 },
		"fewer hashes":       func(p *Proof) { p.Hashes = p.Hashes[1:] },
		"more hashes":        func(p *Proof) { p.Hashes = append(p.Hashes[:len(p.Hashes):len(p.Hashes)], p.Hashes[0]) },
		"other hashes":       func(p *Proof) { p.Hashes = append([]tlog.Hash{{1}}, p.Hashes[1:]...) },
		"only the log's signature": func(p *Proof) {
			lines := strings.SplitAfter(p.Checkpoint, "\n")
			p.Checkpoint = strings.Join(lines[:5], "")
		},
	} {
		p := good
		change(&p)
		if _, err := p.Verify(shared().verifier, log, c.Public().Note()); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestAProofIsReadStrictly(t *testing.T) {
	p, _, _ := oneProof(t)
	text, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	for name, bad := range map[string]string{
		"nothing":             "",
		"a list":              "[" + good + "]",
		"two":                 good + good,
		"an unknown property": strings.Replace(good, `"index"`, `"surplus": 1, "index"`, 1),
		"a property twice":    strings.Replace(good, `"index"`, `"size": 7, "index"`, 1),
		"another spelling":    strings.Replace(good, `"index"`, `"Index"`, 1),
		"a property missing":  strings.Replace(good, `"index": 3,`, "", 1),
		"null":                strings.Replace(good, `"index": 3`, `"index": null`, 1),
		"a fraction":          strings.Replace(good, `"index": 3`, `"index": 3.5`, 1),
		"a negative index":    strings.Replace(good, `"index": 3`, `"index": -3`, 1),
		"a short hash":        strings.Replace(good, `"hashes": [`, `"hashes": ["AAAA", `, 1),
		"no UTF-8":            strings.Replace(good, "north-1", "north-1\xff", 1),
		"too much":            good + strings.Repeat(" ", MaxProof),
	} {
		if bad == good {
			t.Errorf("%s: nothing was changed", name)
		}
		if p, err := ParseProof([]byte(bad)); err == nil {
			t.Errorf("%s: read as %+v", name, p)
		}
	}
}

func FuzzParseProof(f *testing.F) {
	p, log, c := oneProof(f)
	text, err := p.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"gatehouse_proof":1,"hashes":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := ParseProof(text)
		if err != nil {
			return
		}
		again, err := got.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseProof(again); err != nil || cmp.Diff(got, back) != "" {
			t.Fatalf("%+v reads back as %+v, %v", got, back, err)
		}
		// Nobody can make another proof than those that the log made.
		if _, err := got.Verify(shared().verifier, log, c.Public().Note()); err == nil && (got.JWS != p.JWS || got.Index != p.Index) {
			t.Fatalf("verified a forgery: %s", text)
		}
	})
}

// FuzzOpenCheckpoint holds that a note is accepted only with the text that was
// signed.
func FuzzOpenCheckpoint(f *testing.F) {
	p, log, c := oneProof(f)
	f.Add(p.Checkpoint)
	f.Add(strings.Replace(p.Checkpoint, "\n\n", "\n", 1))
	f.Add("gatehouse/north-1/" + testEpoch + "\n0\nAAAA\n\n— x y\n")
	want, err := OpenCheckpoint(p.Checkpoint, log)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, signed string) {
		for _, v := range []note.Verifier{log, c.Public().Note()} {
			if got, err := OpenCheckpoint(signed, v); err == nil && got != want {
				t.Fatalf("accepted %+v, which nobody signed", got)
			}
		}
	})
}

// TestTheWholeLogIsVerifiedAfterTheStart holds what a daemon shows of it, for
// a log that is whole and for one that is not.
func TestTheWholeLogIsVerifiedAfterTheStart(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, shared().options())
	appendN(t, l, 600)
	if v := l.Verification(); v != (Verification{}) {
		t.Errorf("before it has begun: %+v", v)
	}
	whole := verified(t, l)
	if whole.Done != 601 || whole.Total != 601 || whole.Fault != "" || whole.Trouble != "" || whole.Epoch != l.Epoch() {
		t.Errorf("%+v", whole)
	}

	// Out of the tail's sight: only the whole verification can find it.
	tamper(t, dir, `UPDATE node SET hash = zeroblob(32) WHERE ix = 2`)
	if damaged := verified(t, l); damaged.Fault == "" || damaged.Done > damaged.Total {
		t.Errorf("%+v of a log whose tree was changed", damaged)
	}
	last, err := l.Entries(t.Context(), head(t, l).Size-1, 1)
	if err != nil || len(last) != 1 || last[0].Record.Type != Gap {
		t.Errorf("the damage is not recorded: %+v, %v", last, err)
	}
}

func TestWhatWasWrongWithALogSetAsideIsNoFaultOfThePresentOne(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	for epoch, want := range map[string]string{l.Epoch(): "damaged", newEpoch(): ""} {
		l.setVerification(func(v *Verification) { *v = Verification{Epoch: epoch, Ended: time.Now(), Fault: "damaged"} })
		if got := l.Verification().Fault; got != want {
			t.Errorf("of epoch %s, the present one is %s: %q, not %q", epoch, l.Epoch(), got, want)
		}
	}
}

func TestTheVerificationWaitsWhileABacklogIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, t.TempDir(), shared().options())
		defer l.Close()
		appendN(t, l, 2*ofBacklog)
		ctx, stop := context.WithCancel(t.Context())
		send := func() {
			if _, out, err := l.Signed(ctx, 0, ofBacklog, 1<<20); err != nil || len(out) != ofBacklog {
				t.Fatalf("%d records, %v", len(out), err)
			}
		}
		send()
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		for range 12 {
			time.Sleep(backlogOver * 9 / 10)
			send()
			if !l.Verification().Ended.IsZero() {
				t.Fatal("it ended while the backlog was sent")
			}
		}
		time.Sleep(time.Minute)
		if l.Verification().Ended.IsZero() {
			t.Error("it does not go on afterwards")
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// verified runs a log until it is verified.
func verified(t *testing.T, l *Log) Verification {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- l.Run(ctx) }()
	for {
		v := l.Verification()
		if v.Ended.After(began) {
			stop()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			return v
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("not verified: %+v", v)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestTheRootOfLeavesAsTheyComeIsTheLogs(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	appendN(t, l, 12)
	list, err := l.Entries(t.Context(), 0, 20)
	if err != nil {
		t.Fatal(err)
	}
	var r Root
	for i, e := range list {
		if err := r.Add(e.Leaf); err != nil {
			t.Fatal(err)
		}
		got, err := r.Hash()
		if err != nil {
			t.Fatal(err)
		}
		if want, err := l.Root(t.Context(), uint64(i)+1); err != nil || !bytes.Equal(got[:], want[:]) || r.Size() != uint64(i)+1 {
			t.Errorf("root of %d leaves is %s, want %s (%v)", i+1, got, want, err)
		}
	}
}
