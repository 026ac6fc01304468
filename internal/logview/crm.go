package logview

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

// CRM is the logs of all controllers, as the CRM holds them.
type CRM struct {
	Store    *central.Store
	Cosigner *keys.CosignerKey
}

// every lists records whatever was found of them.
var every = []central.Checked{central.Good, central.Bad, central.Unchecked}

// CRMRow is a stored record as it is shown.
func CRMRow(r central.Record) Row {
	row := Row{Controller: r.Controller, Epoch: r.Epoch, Carrier: r.Carrier}
	row.Seq, row.Leaf, row.JWS = r.Sequence, r.Leaf, r.JWS
	payload, err := visitorlog.Payload(r.JWS)
	if err == nil {
		row.Record, err = visitorlog.ParseRecord(payload)
	}
	switch {
	case r.Checked == central.Bad:
		row.Damaged, row.Note = true, r.Fault
	case err != nil:
		row.Damaged, row.Note = true, err.Error()
	case r.Checked == central.Unchecked:
		row.Note = "not yet checked"
	case r.Carrier != "":
		row.Note = "carried by record " + r.Carrier
	}
	return row
}

// crmPages are the pages of a CRM.
type crmPages struct {
	store  *central.Store
	filter central.Filter
	follow bool
	early  bool // those that came early are still to be listed
}

// Pages lists records in the order in which they arrived, of one controller
// and epoch or, if they are empty, of all; the last ones, or all if last is 0.
// A record that another carried comes after it. After them come those that were sent ahead of a backlog. With follow it
// gives each record once, when it was checked, and no early ones.
func (c *CRM) Pages(ctx context.Context, controller, epoch string, last uint64, follow bool) (Pages, error) {
	p := &crmPages{store: c.Store, follow: follow, early: !follow}
	p.filter = central.Filter{Controller: controller, Epoch: epoch, Checked: every, Carried: true, Limit: pageSize}
	if last == 0 {
		return p, nil
	}
	newest, err := c.Store.Records(ctx, central.Filter{
		Controller: controller, Epoch: epoch, Newest: true, Carried: true, Limit: int(min(last, 1<<31)) + 1,
		Checked: []central.Checked{central.Good, central.Bad},
	})
	if err != nil {
		return nil, err
	}
	if uint64(len(newest)) > last {
		p.filter.After = newest[last].Position()
	}
	return p, nil
}

// Visit lists the decisions about a visit, and what became of them.
func (c *CRM) Visit(visit string) Pages {
	return &crmPages{store: c.Store, filter: central.Filter{Visit: visit, Limit: pageSize}}
}

func (p *crmPages) Close() error { return nil }

func (p *crmPages) Next(ctx context.Context) ([]Row, error) {
	page, err := p.store.Records(ctx, p.filter)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, r := range page {
		// Whoever follows gets each record once, in order: the check is only
		// a moment behind.
		if p.follow && r.Checked == central.Unchecked {
			break
		}
		p.filter.After = r.Position()
		rows = append(rows, CRMRow(r))
	}
	if len(rows) > 0 || !p.early {
		return rows, nil
	}
	p.early = false
	return p.earlyRows(ctx)
}

func (p *crmPages) earlyRows(ctx context.Context) ([]Row, error) {
	list, err := p.store.EarlyRecords(ctx, p.filter.Controller)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, r := range list {
		row := CRMRow(r)
		if row.Damaged || (p.filter.Epoch != "" && r.Epoch != p.filter.Epoch) {
			continue
		}
		row.Note = "early"
		rows = append(rows, row)
	}
	return rows, nil
}

// Epochs lists what is stored of one controller, or of all if it is empty; of
// one epoch, if one is named.
func (c *CRM) Epochs(ctx context.Context, controller, epoch string) ([]central.Epoch, error) {
	list, err := c.Store.Epochs(ctx, controller)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 && controller != "" {
		return nil, fmt.Errorf("%q has sent nothing yet", controller)
	}
	if epoch == "" {
		return list, nil
	}
	known := make([]string, len(list))
	for i, e := range list {
		if e.Epoch == epoch {
			return list[i : i+1], nil
		}
		known[i] = e.Epoch
	}
	of := "the CRM"
	if controller != "" {
		of = fmt.Sprintf("%q", controller)
	}
	return nil, fmt.Errorf("--epoch %q: %s has %s", epoch, of, strings.Join(known, ", "))
}

// Epoch is one of a controller's epochs: the newest, if none is named.
func (c *CRM) Epoch(ctx context.Context, controller, epoch string) (central.Epoch, error) {
	list, err := c.Epochs(ctx, controller, epoch)
	if err != nil {
		return central.Epoch{}, err
	}
	return list[len(list)-1], nil
}

// Show reads one record and verifies it on its own.
func (c *CRM) Show(ctx context.Context, e central.Epoch, seq uint64) (Row, []Check, error) {
	st, err := c.Store.Standing(ctx, e, seq, c.Cosigner.Note())
	if err != nil {
		return Row{}, nil, err
	}
	k, err := keys.ParseJWK(e.JWK)
	if err != nil {
		return Row{}, nil, err
	}
	row := CRMRow(st.Record)
	if st.Carrier != nil {
		return row, []Check{
			check(st.Signature, "signed by the controller's key, it and the record that carries it"),
			check(st.Inclusion, fmt.Sprintf("the record that carries it is in its place in the tree of %d records of epoch %s", st.Size, st.Carrier.Epoch)),
			check(st.Cosigned, "countersigned by "+c.Cosigner.Name()),
		}, nil
	}
	others, err := c.Store.Carried(ctx, e.Controller, e.Epoch)
	if err != nil {
		return Row{}, nil, err
	}
	for _, o := range others {
		if o.Sequence == seq {
			row.Note = join("; ", row.Note, "FORK: another record of this sequence was carried by record "+o.Carrier)
		}
	}
	return row, []Check{
		check(st.Signature, "signed by the controller's key "+k.KeyID),
		check(st.Link, "linked to the record before it"),
		check(st.Inclusion, fmt.Sprintf("in its place in the tree of %d records", st.Size)),
		check(st.Cosigned, "countersigned by "+c.Cosigner.Name()),
	}, nil
}

// Options are those of a verification.
func (c *CRM) Options(progress func(done, total int64)) central.VerifyOptions {
	return central.VerifyOptions{Cosigner: c.Cosigner.Note(), Progress: progress}
}

// ErrNothingCountersigned is returned for an epoch that has nothing to export.
var ErrNothingCountersigned = errors.New("nothing of it is countersigned yet")

// Section is the export of what is countersigned of an epoch, which the caller
// has verified.
func (c *CRM) Section(ctx context.Context, e central.Epoch) (Section, error) {
	size := e.CosignedSize()
	if size == 0 {
		return Section{}, ErrNothingCountersigned
	}
	jwk, err := keys.ParseJWK(e.JWK)
	if err != nil {
		return Section{}, err
	}
	v, err := keys.NewVerifier(jwk, keys.TypeRecord)
	if err != nil {
		return Section{}, err
	}
	h, err := newHeader(e.Controller, e.Epoch, size, v)
	if err != nil {
		return Section{}, err
	}
	h.VKeys = append(h.VKeys, c.Cosigner.VKey())
	return Section{Header: h, Entries: c.entries(ctx, e.Controller, e.Epoch, size), Checkpoint: func() (string, error) { return e.Cosigned, nil }}, nil
}

// entries are the first size records of an epoch; all of them, if it has less.
func (c *CRM) entries(ctx context.Context, controller, epoch string, size uint64) iter.Seq2[visitorlog.Entry, error] {
	return func(yield func(visitorlog.Entry, error) bool) {
		f := central.Filter{Controller: controller, Epoch: epoch, Checked: every}
		for left := size; left > 0; {
			f.Limit = int(min(pageSize, left))
			page, err := c.Store.Records(ctx, f)
			if err != nil {
				yield(visitorlog.Entry{}, err)
				return
			}
			if len(page) == 0 {
				return
			}
			for _, r := range page {
				if !yield(visitorlog.Entry{Seq: r.Sequence, Leaf: r.Leaf, JWS: r.JWS}, nil) {
					return
				}
				f.After = r.Position()
			}
			left -= uint64(len(page))
		}
	}
}
