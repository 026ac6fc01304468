package logview

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"golang.org/x/mod/sumdb/tlog"
)

// Comparison is what differs between a controller's exported logs and the
// CRM's store.
type Comparison struct {
	Exported    uint64          `json:"exported"` // records, by the controller
	Stored      uint64          `json:"stored"`   // records, by the CRM
	Differences uint64          `json:"differences"`
	Epochs      []EpochCompared `json:"epochs"`
}

// EpochCompared is what differs in one epoch. Sequences are those of the
// records themselves in each log.
type EpochCompared struct {
	Controller string `json:"controller"`
	Epoch      string `json:"epoch"`
	Exported   uint64 `json:"exported"` // records, by the controller
	Stored     uint64 `json:"stored"`   // records, by the CRM

	MissingAtController []Range     `json:"missing_at_controller,omitempty"`
	MissingAtCRM        []Range     `json:"missing_at_crm,omitempty"`
	Other               []OtherLeaf `json:"other,omitempty"` // another leaf at the same sequence
	Moved               []Moved     `json:"moved,omitempty"` // the same leaf at another sequence
	Order               []uint64    `json:"order,omitempty"` // exported after a later one, or twice
}

// Range is the sequences from First to Last.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// OtherLeaf is a sequence that the two logs fill differently.
type OtherLeaf struct {
	Seq      uint64    `json:"seq"`
	Exported tlog.Hash `json:"exported"`
	Stored   tlog.Hash `json:"stored"`
	// Carried says that the CRM has the exported one too: a later record
	// carried it.
	Carried bool `json:"carried,omitempty"`
}

// Moved is a record that stands in both logs, but not at the same sequence.
type Moved struct {
	Leaf     tlog.Hash `json:"leaf"`
	Exported uint64    `json:"exported"`
	Stored   uint64    `json:"stored"`
}

// differences counts the sequences that are not the same in both logs, or not
// in order.
func (e *EpochCompared) differences() uint64 {
	n := len(e.Other) + len(e.Order)
	for _, r := range slices.Concat(e.MissingAtController, e.MissingAtCRM) {
		n += int(r.Last - r.First + 1)
	}
	return uint64(n)
}

// leaves are the leaves of one epoch, by sequence.
type leaves map[uint64]tlog.Hash

// epochName names an epoch of a controller.
type epochName struct{ controller, epoch string }

// Compare compares exports with what the CRM stores of the controllers that
// they are of: each record, and the epochs. It says nothing of signatures.
func (c *CRM) Compare(ctx context.Context, exports ...io.Reader) (Comparison, error) {
	found := map[epochName]*exported{}
	for _, r := range exports {
		if err := readLeaves(r, found); err != nil {
			return Comparison{}, fmt.Errorf("read the export: %w", err)
		}
	}
	names := slices.Collect(maps.Keys(found))
	sizes := map[epochName]uint64{}
	for _, controller := range controllers(names) {
		epochs, err := c.Store.Epochs(ctx, controller)
		if err != nil {
			return Comparison{}, err
		}
		for _, e := range epochs {
			name := epochName{controller, e.Epoch}
			sizes[name] = e.Size
			if found[name] == nil {
				found[name] = &exported{leaves: leaves{}}
				names = append(names, name)
			}
		}
	}
	slices.SortFunc(names, func(a, b epochName) int {
		return cmp.Or(cmp.Compare(a.controller, b.controller), cmp.Compare(a.epoch, b.epoch))
	})
	out := Comparison{Epochs: []EpochCompared{}}
	for _, name := range names {
		stored, err := c.leaves(ctx, name, sizes[name])
		if err != nil {
			return Comparison{}, err
		}
		carried, err := c.Store.Carried(ctx, name.controller, name.epoch)
		if err != nil {
			return Comparison{}, err
		}
		e := compareLeaves(found[name].leaves, stored, carried)
		e.Controller, e.Epoch, e.Order = name.controller, name.epoch, found[name].order
		out.Exported += e.Exported
		out.Stored += e.Stored
		out.Differences += e.differences()
		out.Epochs = append(out.Epochs, e)
	}
	return out, nil
}

func controllers(names []epochName) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n.controller) {
			out = append(out, n.controller)
		}
	}
	return out
}

// exported is what an export has of one epoch.
type exported struct {
	leaves leaves
	order  []uint64 // sequences out of order
	last   uint64
}

func readLeaves(r io.Reader, into map[epochName]*exported) error {
	var e *exported
	for x, err := range ReadExport(r) {
		switch {
		case err != nil:
			return err
		case x.Header != nil:
			name := epochName{x.Header.Controller, x.Header.Epoch}
			if into[name] != nil {
				return fmt.Errorf("epoch %s of %s is exported twice", name.epoch, name.controller)
			}
			e = &exported{leaves: leaves{}}
			into[name] = e
		case x.Entry != nil:
			if _, twice := e.leaves[x.Entry.Seq]; twice || len(e.leaves) > 0 && x.Entry.Seq < e.last {
				e.order = append(e.order, x.Entry.Seq)
			}
			e.leaves[x.Entry.Seq], e.last = x.Entry.Leaf, x.Entry.Seq
		}
	}
	if e == nil {
		return errors.New("the export is empty")
	}
	return nil
}

// leaves reads what the CRM stores of an epoch, each leaf made from the
// record's bytes.
func (c *CRM) leaves(ctx context.Context, name epochName, size uint64) (leaves, error) {
	out := leaves{}
	for e, err := range c.entries(ctx, name.controller, name.epoch, size) {
		if err != nil {
			return nil, err
		}
		out[e.Seq] = tlog.RecordHash([]byte(e.JWS))
	}
	return out, nil
}

// compareLeaves says what differs between two logs. What was carried is stored
// too, where no other record has its sequence.
func compareLeaves(export, stored leaves, carried []central.Record) EpochCompared {
	brought := map[tlog.Hash]bool{}
	for _, r := range carried {
		brought[r.Leaf] = true
		if _, ok := stored[r.Sequence]; !ok {
			stored[r.Sequence] = r.Leaf
		}
	}
	e := EpochCompared{Exported: uint64(len(export)), Stored: uint64(len(stored))}
	// A leaf that is not where it should be may stand elsewhere.
	elsewhere := map[tlog.Hash]uint64{}
	for seq, leaf := range stored {
		if export[seq] != leaf {
			elsewhere[leaf] = seq
		}
	}
	all := maps.Clone(export)
	maps.Copy(all, stored)
	for _, seq := range slices.Sorted(maps.Keys(all)) {
		here, atController := export[seq]
		there, atCRM := stored[seq]
		if atController && here != there {
			if at, ok := elsewhere[here]; ok {
				e.Moved = append(e.Moved, Moved{here, seq, at})
			}
		}
		switch {
		case !atController:
			e.MissingAtController = extend(e.MissingAtController, seq)
		case !atCRM:
			e.MissingAtCRM = extend(e.MissingAtCRM, seq)
		case here != there:
			e.Other = append(e.Other, OtherLeaf{seq, here, there, brought[here]})
		}
	}
	return e
}

// extend adds the next sequence to ranges.
func extend(list []Range, seq uint64) []Range {
	if n := len(list); n > 0 && list[n-1].Last+1 == seq {
		list[n-1].Last = seq
		return list
	}
	return append(list, Range{seq, seq})
}

// shownLeaves is how many single differences of a kind a person is shown.
const shownLeaves = 10

// Print says in words what differs, and in the last line how much.
func (c Comparison) Print(w io.Writer) error {
	p := &printer{w: w}
	for _, e := range c.Epochs {
		p.say("%s, epoch %s: controller %d records, CRM %d records: ", e.Controller, e.Epoch, e.Exported, e.Stored)
		switch {
		case e.differences() == 0:
			p.say("the same\n")
			continue
		case e.Stored == 0:
			p.say("the CRM has nothing of this epoch\n")
			continue
		case e.Exported == 0:
			p.say("no export has this epoch\n")
			continue
		}
		p.say("they differ\n")
		for _, m := range []struct {
			where  string
			ranges []Range
		}{{"at the controller", e.MissingAtController}, {"at the CRM", e.MissingAtCRM}} {
			for _, r := range m.ranges {
				if r.First == r.Last {
					p.say("  missing %s: record %d\n", m.where, r.First)
				} else {
					p.say("  missing %s: records %d to %d\n", m.where, r.First, r.Last)
				}
			}
		}
		each(p, e.Other, func(o OtherLeaf) {
			too := ""
			if o.Carried {
				too = ", which has that of the controller too, carried by a later record"
			}
			p.say("  record %d is another: leaf %s at the controller, %s at the CRM%s\n", o.Seq, o.Exported, o.Stored, too)
		})
		each(p, e.Moved, func(m Moved) { p.say("  record %d at the controller is record %d at the CRM\n", m.Exported, m.Stored) })
		each(p, e.Order, func(seq uint64) { p.say("  record %d is exported out of order\n", seq) })
	}
	p.say("controller %d records, CRM %d records, differences %d\n", c.Exported, c.Stored, c.Differences)
	return p.err
}

// each says the first of a list's items, and how many more there are.
func each[T any](p *printer, list []T, say func(T)) {
	for i, item := range list {
		if i == shownLeaves {
			p.say("  and %d more: --json lists them\n", len(list)-i)
			return
		}
		say(item)
	}
}

// printer keeps the first error of a writer.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) say(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}
