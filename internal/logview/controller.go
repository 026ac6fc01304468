package logview

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Controller is the log of one controller, in one database.
type Controller struct {
	Path     string
	Verifier *keys.Verifier // of the log's key
	Receipts *keys.Verifier // nil: no CRM is pinned
	Sealer   visitorlog.Sealer
	Signer   func(origin string) (note.Signer, error) // of an export's checkpoint
}

// Reader opens the database beside the daemon.
func (d *Controller) Reader(ctx context.Context) (*visitorlog.Reader, error) {
	return visitorlog.OpenReader(ctx, d.Path, d.Sealer)
}

// controllerPages are the pages of a Controller.
type controllerPages struct {
	d    *Controller
	r    *visitorlog.Reader
	next uint64
}

// Pages lists the last records, or all if last is 0. When the daemon begins a
// new epoch, they go on with its first record.
func (d *Controller) Pages(ctx context.Context, last uint64) (Pages, error) {
	r, err := d.Reader(ctx)
	if err != nil {
		return nil, err
	}
	p := &controllerPages{d: d, r: r}
	if last > 0 {
		size, err := r.Size(ctx)
		if err != nil {
			r.Close()
			return nil, err
		}
		p.next = size - min(size, last)
	}
	return p, nil
}

func (p *controllerPages) Close() error { return p.r.Close() }

func (p *controllerPages) Next(ctx context.Context) ([]Row, error) {
	page, err := p.r.Read(ctx, p.next, pageSize)
	if err != nil {
		return nil, err
	}
	rows := make([]Row, len(page))
	for i, st := range page {
		rows[i] = doorRow(p.r, st)
		p.next = st.Seq + 1
	}
	if len(page) == 0 && p.r.Moved() {
		if now, err := p.d.Reader(ctx); err == nil { // else it is being made
			p.r.Close()
			p.r, p.next = now, 0
		}
	}
	return rows, nil
}

func doorRow(r *visitorlog.Reader, st visitorlog.Stored) Row {
	row := Row{Entry: st.Entry, Controller: r.Controller(), Epoch: r.Epoch()}
	if st.Fault != nil {
		row.Damaged, row.Note = true, st.Fault.Error()
	}
	return row
}

// Show reads one record and verifies it on its own.
func (d *Controller) Show(ctx context.Context, seq uint64, zone *time.Location) (Row, []Check, error) {
	r, err := d.Reader(ctx)
	if err != nil {
		return Row{}, nil, err
	}
	defer r.Close()
	st, err := stored(ctx, r, seq)
	if err != nil {
		return Row{}, nil, err
	}
	row := doorRow(r, st)
	if row.Damaged {
		return row, nil, nil
	}
	checks, err := d.checks(ctx, r, seq, zone)
	return row, checks, err
}

func stored(ctx context.Context, r *visitorlog.Reader, seq uint64) (visitorlog.Stored, error) {
	page, err := r.Read(ctx, seq, 1)
	if err != nil {
		return visitorlog.Stored{}, err
	}
	if len(page) == 0 || page[0].Seq != seq {
		size, err := r.Size(ctx)
		if err != nil {
			return visitorlog.Stored{}, err
		}
		return visitorlog.Stored{}, fmt.Errorf("there is no record %d: the log holds %d, from 0 on", seq, size)
	}
	return page[0], nil
}

func (d *Controller) checks(ctx context.Context, r *visitorlog.Reader, seq uint64, zone *time.Location) ([]Check, error) {
	st, err := r.Standing(ctx, seq, d.Verifier)
	if err != nil {
		return nil, err
	}
	out := []Check{
		check(st.Signature, "signed by this controller's key "+d.Verifier.KeyID()),
		check(st.Link, "linked to the record before it"),
		check(st.Inclusion, fmt.Sprintf("in its place in the tree of %d records", st.Size)),
	}
	if st.Receipt != nil {
		err := errors.New("no CRM has been joined whose key could tell")
		if d.Receipts != nil {
			err = visitorlog.VerifyReceipt(*st.Receipt, r.Controller(), d.Receipts)
		}
		out = append(out, check(err, "countersigned by the CRM, "+st.Receipt.Time.In(zone).Format(timeForm)))
	}
	return out, nil
}

// Verify verifies the whole database.
func (d *Controller) Verify(ctx context.Context, progress func(done, total int64)) (visitorlog.Verified, error) {
	o := visitorlog.VerifyOptions{Verifier: d.Verifier, NoteVerifier: d.Verifier.NoteVerifier, Sealer: d.Sealer, Progress: progress}
	if d.Receipts != nil {
		o.Receipts = d.Receipts
	}
	return visitorlog.Verify(ctx, d.Path, o)
}

// Prove makes the proof of one record in the tree of the newest receipt; of the
// database's epoch or, if one is named, of that, whose database may have been
// set aside.
func (d *Controller) Prove(ctx context.Context, epoch string, seq uint64) (visitorlog.Proof, error) {
	r, err := d.find(ctx, epoch)
	if err != nil {
		return visitorlog.Proof{}, err
	}
	defer r.Close()
	if _, err := stored(ctx, r, seq); err != nil {
		return visitorlog.Proof{}, err
	}
	return r.Prove(ctx, seq)
}

// find opens the database of an epoch.
func (d *Controller) find(ctx context.Context, epoch string) (*visitorlog.Reader, error) {
	if epoch == "" {
		return d.Reader(ctx)
	}
	aside, err := filepath.Glob(filepath.Join(filepath.Dir(d.Path), "records-*.db"))
	if err != nil {
		return nil, err
	}
	for _, path := range append([]string{d.Path}, aside...) {
		r, err := visitorlog.OpenReader(ctx, path, d.Sealer)
		if err != nil {
			continue // it was set aside because nothing can be read of it
		}
		if r.Epoch() == epoch {
			return r, nil
		}
		r.Close()
	}
	return nil, fmt.Errorf("--epoch %q: no database in %s is of that epoch", epoch, filepath.Dir(d.Path))
}

// Section is the export of the records that were verified, under a checkpoint
// of exactly those.
func (d *Controller) Section(ctx context.Context, v visitorlog.Verified) (Section, error) {
	h, err := newHeader(v.Controller, v.Head.Epoch, v.Head.Size, d.Verifier)
	if err != nil {
		return Section{}, err
	}
	root, err := tlog.ParseHash(v.Head.Root)
	if err != nil {
		return Section{}, err
	}
	return Section{Header: h, Entries: d.entries(ctx, v.Head.Size), Checkpoint: func() (string, error) {
		origin := visitorlog.Origin(v.Controller, v.Head.Epoch)
		signer, err := d.Signer(origin)
		if err != nil {
			return "", err
		}
		c := visitorlog.Checkpoint{Origin: origin, Size: v.Head.Size, Root: root}
		signed, err := note.Sign(&note.Note{Text: c.Text()}, signer)
		return string(signed), err
	}}, nil
}

func (d *Controller) entries(ctx context.Context, size uint64) iter.Seq2[visitorlog.Entry, error] {
	return func(yield func(visitorlog.Entry, error) bool) {
		r, err := d.Reader(ctx)
		if err != nil {
			yield(visitorlog.Entry{}, err)
			return
		}
		defer r.Close()
		for next := uint64(0); next < size; {
			page, err := r.Read(ctx, next, int(min(pageSize, size-next)))
			if err == nil && len(page) == 0 {
				err = fmt.Errorf("record %d is missing", next)
			}
			if err != nil {
				yield(visitorlog.Entry{}, err)
				return
			}
			for _, st := range page {
				if !yield(st.Entry, st.Fault) {
					return
				}
				next = st.Seq + 1
			}
		}
	}
}
