package central

import (
	"errors"
	"testing"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// TestTheCRMProvesEachRecordThatItCountersigned lets an implementation of RFC
// 6962 that shares nothing with ours check each proof.
func TestTheCRMProvesEachRecordThatItCountersigned(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(21)
	c.approve(f)
	log, err := f.signer.NoteVerifier(visitorlog.Origin(f.name, f.epoch))
	if err != nil {
		t.Fatal(err)
	}
	records, err := f.signer.Verifier(keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	for before, size := range []int{1, 2, 3, 4, 7, 8, 13, 21} {
		if before > 0 {
			before = []int{1, 2, 3, 4, 7, 8, 13, 21}[before-1]
		}
		c.ingest(f.batch(before, size), uint64(size), Applied)
		list, err := c.Epochs(t.Context(), f.name)
		if err != nil {
			t.Fatal(err)
		}
		for seq := range uint64(size) {
			p, err := c.Prove(t.Context(), list[0], seq)
			if err != nil {
				t.Fatal(err)
			}
			hashes := make([][]byte, len(p.Hashes))
			for i := range p.Hashes {
				hashes[i] = p.Hashes[i][:]
			}
			root := f.root(size)
			leaf := rfc6962.DefaultHasher.HashLeaf([]byte(f.jws[seq]))
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, seq, uint64(size), leaf, hashes, root[:]); err != nil {
				t.Errorf("record %d of %d: %v", seq, size, err)
			}
			if _, err := p.Verify(records, log, c.cosigner.Public().Note()); err != nil {
				t.Errorf("record %d of %d: %v", seq, size, err)
			}
		}
		if _, err := c.Prove(t.Context(), list[0], uint64(size)); !errors.Is(err, ErrNoRecord) {
			t.Errorf("record %d of %d: %v", size, size, err)
		}
		list[0].Cosigned = ""
		if _, err := c.Prove(t.Context(), list[0], 0); !errors.Is(err, visitorlog.ErrNotCountersigned) {
			t.Errorf("with nothing countersigned: %v", err)
		}
	}
}
