package visitorlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ProofVersion is the version of a proof's form.
const ProofVersion = 1

// MaxProof is the longest text of a proof that is read, in bytes.
const MaxProof = 128 << 10

// Proof shows one record to somebody who has nothing else of the log: the
// signed record, the hashes that lead from its leaf to the root of the first
// Size records (RFC 6962, section 2.1.1), and the checkpoint with that root,
// signed by the log and countersigned by the CRM. Nothing is proved before
// Verify.
type Proof struct {
	Version    int         `json:"gatehouse_proof"`
	Controller string      `json:"controller"`
	Epoch      string      `json:"epoch"`
	Index      uint64      `json:"index"` // of the leaf: the record's sequence
	Size       uint64      `json:"size"`  // of the tree
	JWS        string      `json:"jws"`
	Hashes     []tlog.Hash `json:"hashes"`     // base64, from the leaf up
	Checkpoint string      `json:"checkpoint"` // the signed note
}

// ErrNotCountersigned is returned for a record that no countersigned
// checkpoint covers yet.
var ErrNotCountersigned = errors.New("not countersigned by the CRM yet")

// ProveRecord makes the proof of a record in the tree that a countersigned
// checkpoint names. It fails where the hashes do not lead there.
func ProveRecord(checkpoint string, e Entry, hashes tlog.HashReader) (Proof, error) {
	c, err := readCheckpoint(checkpoint)
	if err != nil {
		return Proof{}, err
	}
	if e.Seq >= c.Size {
		return Proof{}, fmt.Errorf("record %d: %w: it has the %d records before", e.Seq, ErrNotCountersigned, c.Size)
	}
	p := Proof{Version: ProofVersion, Index: e.Seq, Size: c.Size, JWS: e.JWS, Checkpoint: checkpoint}
	if p.Controller, p.Epoch, err = SplitOrigin(c.Origin); err != nil {
		return Proof{}, err
	}
	if p.Hashes, err = tlog.ProveRecord(int64(c.Size), int64(e.Seq), hashes); err != nil {
		return Proof{}, fmt.Errorf("prove record %d: %w", e.Seq, err)
	}
	p.Hashes = append([]tlog.Hash{}, p.Hashes...) // none is [] in JSON, not null
	return p, p.included(c.Root)
}

// Prove makes the proof of a record in the tree of the newest receipt.
func (r *Reader) Prove(ctx context.Context, seq uint64) (Proof, error) {
	page, err := r.Read(ctx, seq, 1)
	if err != nil {
		return Proof{}, err
	}
	if len(page) == 0 || page[0].Seq != seq {
		return Proof{}, fmt.Errorf("there is no record %d", seq)
	}
	if page[0].Fault != nil {
		return Proof{}, page[0].Fault
	}
	last, err := r.s.newestReceipt(ctx)
	if err != nil {
		return Proof{}, err
	}
	if last == nil {
		return Proof{}, fmt.Errorf("record %d: %w: it has none of this epoch", seq, ErrNotCountersigned)
	}
	return ProveRecord(last.Checkpoint, page[0].Entry, r.s.hashes(ctx))
}

// ParseProof parses a proof's text strictly: an unknown, missing or repeated
// property is refused, and whatever follows.
func ParseProof(text []byte) (Proof, error) {
	if len(text) > MaxProof {
		return Proof{}, fmt.Errorf("proof of %d bytes: more than %d", len(text), MaxProof)
	}
	var p Proof
	if err := decodeStrictly(text, &p, "gatehouse_proof", "controller", "epoch", "index", "size", "jws", "hashes", "checkpoint"); err != nil {
		return Proof{}, fmt.Errorf("proof: %w", err)
	}
	return p, p.check()
}

// check holds a proof to its form.
func (p *Proof) check() error {
	switch {
	case p.Version != ProofVersion:
		return fmt.Errorf("proof: version %d: this program knows %d", p.Version, ProofVersion)
	case !controllerForm.MatchString(p.Controller):
		return fmt.Errorf("proof: controller %q", p.Controller)
	case !epochForm.MatchString(p.Epoch):
		return fmt.Errorf("proof: epoch %q", p.Epoch)
	case p.Size > maxCount || p.Index >= p.Size:
		return fmt.Errorf("proof: index %d of %d", p.Index, p.Size)
	case len(p.JWS) > maxJWS || !jwsForm.MatchString(p.JWS):
		return errors.New("proof: not a compact JWS")
	}
	c, err := readCheckpoint(p.Checkpoint)
	if err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	if c.Origin != Origin(p.Controller, p.Epoch) || c.Size != p.Size {
		return fmt.Errorf("proof: the checkpoint is of %d records of %q", c.Size, c.Origin)
	}
	return nil
}

// included holds the record's leaf to a root.
func (p *Proof) included(root tlog.Hash) error {
	err := tlog.CheckRecord(p.Hashes, int64(p.Size), root, int64(p.Index), tlog.RecordHash([]byte(p.JWS)))
	if err != nil {
		return fmt.Errorf("record %d is not in the tree of %d records whose root was signed", p.Index, p.Size)
	}
	return nil
}

// Marshal is the proof's text: one JSON object.
func (p *Proof) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	return append(b, '\n'), err
}

// Verify verifies a proof against the keys of the log and of a cosigner: the
// record's signature, content and place, the log's signature under the
// checkpoint, the cosigner's, and that the record's leaf is under the
// checkpoint's root.
func (p *Proof) Verify(records Verifier, log, cosigner note.Verifier) (Record, error) {
	if err := p.check(); err != nil {
		return Record{}, err
	}
	r, err := VerifyRecord(p.JWS, p.Controller, p.Epoch, p.Index, records)
	if err != nil {
		return Record{}, fmt.Errorf("record %d: %w", p.Index, err)
	}
	c, err := OpenCheckpoint(p.Checkpoint, log)
	if err != nil {
		return Record{}, fmt.Errorf("the log did not sign it: %w", err)
	}
	if _, err := OpenCheckpoint(p.Checkpoint, cosigner); err != nil {
		return Record{}, fmt.Errorf("%q did not countersign it: %w", cosigner.Name(), err)
	}
	return r, p.included(c.Root)
}
