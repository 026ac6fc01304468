package central

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// carries appends a record that carries record seq of another log.
func (f *forger) carries(g *forger, seq int) *forger {
	return f.add(1, func(r *visitorlog.Record) {
		r.Type, r.Data.Door = visitorlog.RecordCarried, ""
		r.Data.Carried = &visitorlog.Carried{Epoch: g.epoch, Sequence: uint64(seq), JWS: g.jws[seq]}
	})
}

// store hands in all of a log, and has it checked.
func (c *crm) store(f *forger) {
	c.t.Helper()
	c.ingest(f.batch(0, len(f.jws)), uint64(len(f.jws)), Applied)
	c.check()
}

// listed are the records of an epoch as a list shows them, page by page.
func (c *crm) listed(epoch string) (list []Record) {
	c.t.Helper()
	f := everything
	f.Epoch, f.Carried, f.Limit = epoch, true, 1+rand.IntN(4)
	for {
		page, err := c.Records(c.t.Context(), f)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(page) == 0 {
			return list
		}
		list = append(list, page...)
		f.After = page[len(page)-1].Position()
	}
}

// TestACarriedRecordIsListedOnceInItsPlace brings an old log's tail, again and
// again, in records of two later epochs.
func TestACarriedRecordIsListedOnceInItsPlace(t *testing.T) {
	c, old := newCRM(t), newForger(t, "north-1").add(12)
	c.approve(old)
	c.store(old.clone(5))
	second := old.afresh().add(2)
	for _, seq := range []int{6, 7, 3, 8, 8, 9} { // 5 was damaged, 3 has arrived
		second.carries(old, seq)
	}
	c.store(second.add(2))
	third := old.afresh().add(1)
	for _, seq := range []int{7, 9, 10, 11} {
		third.carries(old, seq)
	}
	third.carries(second, 5) // it is there itself
	c.store(third)
	alarms, err := c.Alarms(t.Context(), false)
	if err != nil || slices.ContainsFunc(alarms, func(a Alarm) bool { return a.Kind != AlarmEpoch }) {
		t.Errorf("alarms %+v, %v", alarms, err)
	}
	var seqs []uint64
	for _, r := range c.listed(old.epoch) {
		seqs = append(seqs, r.Sequence)
		if r.JWS != old.jws[r.Sequence] || r.Leaf != old.leaves[r.Sequence] || (r.Carrier != "") != (r.Sequence > 4) || r.Checked != Good {
			t.Errorf("%+v", r)
		}
		if r.Sequence == 10 && r.Carrier != third.epoch+"-3" {
			t.Errorf("record 10 is vouched for by %s", r.Carrier)
		}
	}
	if want := []uint64{0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11}; !slices.Equal(seqs, want) {
		t.Errorf("listed %v, want %v", seqs, want)
	}
	every := c.listed("")
	if len(every) != 11+len(second.jws)+len(third.jws) {
		t.Errorf("%d records in all epochs", len(every))
	}
	newest := everything
	newest.Carried, newest.Newest = true, true
	back, err := c.Records(t.Context(), newest)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(back)
	if !slices.EqualFunc(every, back, func(a, b Record) bool { return a.Position() == b.Position() }) {
		t.Error("the newest first is another order")
	}
	if list, err := c.Records(t.Context(), Filter{Epoch: old.epoch, Checked: everything.Checked}); err != nil || len(list) != 5 {
		t.Errorf("%d records in the tree, %v", len(list), err) // what an export takes
	}
	if v, err := c.verify(); err != nil || v.Records != uint64(5+len(second.jws)+len(third.jws)) {
		t.Errorf("%+v, %v", v, err)
	}
	epochs, err := c.Epochs(t.Context(), "north-1")
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Standing(t.Context(), epochs[0], 10, c.cosigner.Public().Note())
	if err != nil || st.Carrier == nil || st.Carrier.Sequence != 3 || st.Parsed.Data.Sequence != 10 || errors.Join(st.Signature, st.Link, st.Inclusion, st.Cosigned) != nil {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := c.Standing(t.Context(), epochs[0], 5, c.cosigner.Public().Note()); !errors.Is(err, ErrNoRecord) {
		t.Errorf("record 5: %v", err)
	}
}

// TestWhatIsCarriedByWhatIsCarriedArrives: an epoch in which records had been
// carried was lost too.
func TestWhatIsCarriedByWhatIsCarriedArrives(t *testing.T) {
	c, old := newCRM(t), newForger(t, "north-1").add(6)
	c.approve(old)
	second := old.afresh().add(1).carries(old, 3).carries(old, 4)
	third := old.afresh().add(1).carries(second, 1).carries(second, 2)
	c.store(third)
	if list := c.listed(old.epoch); len(list) != 2 || list[0].Sequence != 3 || list[1].Sequence != 4 {
		t.Errorf("of the first epoch: %+v", list)
	}
	if list := c.listed(second.epoch); len(list) != 2 {
		t.Errorf("of the second epoch: %+v", list)
	}
	if _, err := c.verify(); err != nil {
		t.Error(err)
	}
}

// TestAnotherRecordOfACarriedPlaceIsAForkAndBothAreKept, whichever comes first.
func TestAnotherRecordOfACarriedPlaceIsAForkAndBothAreKept(t *testing.T) {
	for name, order := range map[string]func(c *crm, one, other *forger){
		"the tree first":        func(c *crm, one, other *forger) { c.store(one); c.store(one.afresh().add(1).carries(other, 7)) },
		"the carried one first": func(c *crm, one, other *forger) { c.store(one.afresh().add(1).carries(other, 7)); c.store(one) },
		"both of them carried":  func(c *crm, one, other *forger) { c.store(one.afresh().add(1).carries(other, 7).carries(one, 7)) },
		"in two batches of both": func(c *crm, one, other *forger) {
			c.store(one.clone(6))
			c.store(one.afresh().add(1).carries(other, 7))
			c.store(one)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, one := newCRM(t), newForger(t, "north-1").add(6)
			c.approve(one)
			other := one.clone(6).add(4)
			one.add(3)
			order(c, one, other)
			if a := c.alarms()[AlarmFork]; a.Epoch != one.epoch || a.Sequence == nil || *a.Sequence != 7 {
				t.Errorf("alarms %+v, want a fork at record 7", c.alarms())
			}
			var leaves []string
			for _, r := range c.listed(one.epoch) {
				if r.Sequence == 7 {
					leaves = append(leaves, r.JWS)
				}
			}
			if len(leaves) != 2 || !slices.Contains(leaves, one.jws[7]) || !slices.Contains(leaves, other.jws[7]) {
				t.Errorf("%d records of the place, want both", len(leaves))
			}
			if _, err := c.verify(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestACarriedRecordThatComesInItsTurnIsListedOnce(t *testing.T) {
	c, one := newCRM(t), newForger(t, "north-1").add(9)
	c.approve(one)
	c.store(one.clone(5))
	c.store(one.afresh().add(1).carries(one, 6).carries(one, 7))
	c.store(one)
	list := c.listed(one.epoch)
	for _, r := range list {
		if r.Carrier != "" {
			t.Errorf("record %d is in the tree and listed as carried", r.Sequence)
		}
	}
	if len(list) != 9 || c.alarms()[AlarmFork].ID != 0 {
		t.Errorf("%d records, alarms %v", len(list), c.alarms())
	}
	if _, err := c.verify(); err != nil {
		t.Error(err)
	}
}

// TestWhatIsCarriedMustBeTheControllersOwn: a carrier that vouches for what is
// not is a bad record, and nothing that it carries is stored.
func TestWhatIsCarriedMustBeTheControllersOwn(t *testing.T) {
	for name, change := range map[string]func(x *visitorlog.Carried, old, stranger *forger){
		"signed by another": func(x *visitorlog.Carried, _, stranger *forger) { x.Epoch, x.JWS = stranger.epoch, stranger.jws[2] },
		"of another place":  func(x *visitorlog.Carried, _, _ *forger) { x.Sequence = 3 },
		"of another epoch":  func(x *visitorlog.Carried, _, _ *forger) { x.Epoch = newEpoch() },
		"not a record":      func(x *visitorlog.Carried, old, _ *forger) { x.JWS, _ = old.signer.Sign([]byte("{}")) },
		"of another controller": func(x *visitorlog.Carried, old, _ *forger) {
			south := &forger{t: t, name: "south", epoch: old.epoch, signer: old.signer}
			x.JWS = south.add(3).jws[2]
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, old := newCRM(t), newForger(t, "north-1").add(6)
			c.approve(old)
			f := old.afresh().add(1).carries(old, 1).add(1, func(r *visitorlog.Record) {
				r.Type, r.Data.Door = visitorlog.RecordCarried, ""
				r.Data.Carried = &visitorlog.Carried{Epoch: old.epoch, Sequence: 2, JWS: old.jws[2]}
				change(r.Data.Carried, old, newForger(t, "north-1").add(3))
			}).carries(old, 4)
			c.store(f)
			a := c.wantAlarms(AlarmInvalid)[AlarmInvalid]
			if *a.Sequence != 2 || !strings.Contains(a.Detail, "carries") {
				t.Errorf("%+v", a)
			}
			if list := c.listed(old.epoch); len(list) != 2 || list[0].Sequence != 1 || list[1].Sequence != 4 {
				t.Errorf("%d records: %+v", len(list), list)
			}
		})
	}
}

func TestVerifyNoticesWhatWasDoneToACarriedRecord(t *testing.T) {
	for name, statement := range map[string]string{
		"removed":           `DELETE FROM carried WHERE seq = 3`,
		"its bytes":         `UPDATE carried SET jws = (SELECT jws FROM carried WHERE seq = 4) WHERE seq = 3`,
		"its leaf":          `UPDATE carried SET leaf = zeroblob(32) WHERE seq = 3`,
		"its place":         `UPDATE carried SET seq = 9 WHERE seq = 3`,
		"its epoch":         `UPDATE carried SET epoch = 'x' WHERE seq = 3`,
		"its controller":    `UPDATE carried SET controller = 'south' WHERE seq = 3`,
		"its carrier":       `UPDATE carried SET carrier = (SELECT carrier FROM carried WHERE seq = 4) WHERE seq = 3`,
		"a carrier of none": `UPDATE carried SET carrier = 1 WHERE seq = 3`,
		"one too many":      `INSERT INTO carried (controller, epoch, seq, leaf, jws, carrier) SELECT controller, epoch, 5, leaf, jws, carrier FROM carried WHERE seq = 3`,
	} {
		t.Run(name, func(t *testing.T) {
			c, old := newCRM(t), newForger(t, "north-1").add(6)
			c.approve(old)
			c.store(old.afresh().add(1).carries(old, 3).carries(old, 4))
			if _, err := c.verify(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.w.Exec(statement); err != nil {
				t.Fatal(err)
			}
			var fault *Fault
			if _, err := c.verify(); !errors.As(err, &fault) {
				t.Errorf("verify: %v", err)
			}
		})
	}
}
