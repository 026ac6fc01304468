package visitorlog

import (
	"context"
	"encoding/base64"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Reader reads a log's database beside the daemon that writes it.
type Reader struct{ s *store }

// OpenReader opens the database at path (records.db, or one that was set
// aside) for reading.
func OpenReader(ctx context.Context, path string, sealer Sealer) (*Reader, error) {
	s, err := openStoreReadOnly(ctx, path, sealer)
	if err != nil {
		return nil, err
	}
	return &Reader{s}, nil
}

// Close closes the database.
func (r *Reader) Close() error { return r.s.close() }

// Controller is the controller whose log this is.
func (r *Reader) Controller() string { return r.s.meta.Controller }

// Epoch is the epoch of the database.
func (r *Reader) Epoch() string { return r.s.meta.Epoch }

// Moved says that the path leads to another file by now: the daemon has begun
// a new epoch.
func (r *Reader) Moved() bool { return r.s.moved() }

// Size is the number of records.
func (r *Reader) Size(ctx context.Context) (uint64, error) {
	n, err := r.s.size(ctx)
	return uint64(n), err
}

// LastReceipt returns the newest receipt that the log has kept; nil if there
// is none.
func (r *Reader) LastReceipt(ctx context.Context) (*Receipt, error) { return r.s.newestReceipt(ctx) }

// Stored is a record as it was found. With a Fault, only Seq can be relied
// upon.
type Stored struct {
	Entry
	Fault error
}

// Read returns up to max records from a sequence on, damaged ones too. Their
// leaves are checked, their signatures are not.
func (r *Reader) Read(ctx context.Context, from uint64, max int) ([]Stored, error) {
	if from > maxSize {
		return nil, nil
	}
	rows, err := r.s.rows(ctx, int64(from), max)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	out := make([]Stored, len(rows))
	for i, row := range rows {
		e, err := r.s.entry(row)
		if err != nil {
			e = Entry{Seq: uint64(row.seq)}
		}
		out[i] = Stored{Entry: e, Fault: err}
	}
	return out, nil
}

// Standing is what was verified of one record.
type Standing struct {
	Signature error // nil: signed by the log's key, for this place
	Link      error // nil: it names the record before it
	Inclusion error // nil: the tree of Size records proves it
	Size      uint64
	// Receipt is the newest receipt if it covers the record; nil: the CRM has
	// not countersigned it yet.
	Receipt *Receipt
}

// Standing verifies one record on its own: its signature, its link and its
// place in the tree.
func (r *Reader) Standing(ctx context.Context, seq uint64, v Verifier) (Standing, error) {
	var st Standing
	size, err := r.s.size(ctx)
	if err != nil {
		return st, err
	}
	if seq >= uint64(size) {
		return st, fmt.Errorf("there is no record %d: the log holds %d", seq, size)
	}
	st.Size = uint64(size)
	n := int64(seq)
	from := max(0, n-1)
	rows, err := r.s.rows(ctx, from, int(n-from)+1)
	if err != nil {
		return st, err
	}
	if len(rows) != int(n-from)+1 || rows[len(rows)-1].seq != n {
		return st, recordFault(n, "it or the record before it is missing")
	}
	jws, leaf, err := r.s.unseal(rows[len(rows)-1])
	if err != nil {
		return st, err
	}
	previous := ""
	if n > 0 {
		previous = base64.StdEncoding.EncodeToString(rows[0].leaf)
	}
	rec, err := VerifyRecord(jws, r.Controller(), r.Epoch(), seq, v)
	if err != nil {
		st.Signature = err
	} else {
		st.Link = rec.Follows(previous)
	}
	hashes := r.s.hashes(ctx)
	root, err := tlog.TreeHash(size, hashes)
	if err != nil {
		return st, err
	}
	if proof, err := tlog.ProveRecord(size, n, hashes); err != nil {
		st.Inclusion = err
	} else {
		st.Inclusion = tlog.CheckRecord(proof, size, root, n, leaf)
	}
	last, err := r.s.newestReceipt(ctx)
	if err != nil {
		return st, err
	}
	if last != nil && last.Size > seq {
		st.Receipt = last
	}
	return st, nil
}
