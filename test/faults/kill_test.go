package faults

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

const killWithin = 150 * time.Millisecond

// A daemon that is killed at any moment has lost nothing: what it let in it
// had recorded, and what it recorded arrives.
func TestKilledDaemonLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	c := s.enrol("north-1", 4, s.inside())
	s.startCRM()
	c.start()
	leave := c.crowd()
	defer leave()
	for round := range rounds {
		if round%4 == 3 { // during its start
			time.Sleep(rand.N(killWithin))
		} else {
			n := c.unlocks()
			eventually(t, "somebody comes in", func() bool { return c.unlocks() > n })
			time.Sleep(rand.N(killWithin))
		}
		c.p.kill(t)
		c.launch()
	}
	c.http = c.p.ready(t)
	leave()
	records := s.nothingLost()[c.name]
	for _, r := range records {
		if r.Epoch != records[0].Epoch {
			t.Errorf("record %d is of another epoch: a kill must not damage the log", r.Seq)
		}
	}
	if c.unlocks() < rounds/2 {
		t.Errorf("only %d unlocks in %d rounds", c.unlocks(), rounds)
	}
}

// The CRM is killed just when it has stored a batch and its receipt has not
// gone out: the controller sends the batch again, and it is stored once.
func TestCRMKilledBetweenCommitAndReceipt(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	s := newSite(t, b.url())
	c := s.enrol("north-1", 2, b.url())
	s.startCRM()
	c.start()
	leave := c.crowd()
	defer leave()
	for range crmRounds {
		before := c.acknowledged()
		eventually(t, "the CRM countersigns", func() bool { return c.acknowledged() > before })
		// A receipt is published after the commit. This one goes no further,
		// and the CRM no further than to this.
		published := make(chan struct{})
		var once sync.Once
		b.be(func(from, topic string) treatment {
			if topic != "gatehouse/north-1/down/receipt" {
				return good
			}
			once.Do(func() { close(published) })
			return treatment{}
		})
		select {
		case <-published:
		case <-time.After(patience):
			t.Fatal("no receipt was published")
		}
		s.crm.kill(t)
		b.be(nil)
		s.startCRM()
	}
	leave()
	s.nothingLost()
}

func TestKilledCRMLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	c := s.enrol("north-1", 2, s.inside())
	s.startCRM()
	c.start()
	leave := c.crowd()
	defer leave()
	for range crmRounds {
		time.Sleep(rand.N(3 * killWithin))
		s.crm.kill(t)
		s.launchCRM()
	}
	s.crmHTTP = s.crm.ready(t)
	leave()
	s.nothingLost()
}

func TestBothKilledLoseNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	c := s.enrol("north-1", 2, s.inside())
	s.startCRM()
	c.start()
	leave := c.crowd()
	defer leave()
	for round := range crmRounds {
		n := c.unlocks()
		eventually(t, "somebody comes in", func() bool { return c.unlocks() > n })
		time.Sleep(rand.N(3 * killWithin))
		// In turns, and at the same moment as far as there is such a thing.
		if round%2 == 0 {
			s.crm.kill(t)
			c.p.kill(t)
		} else {
			c.p.kill(t)
			s.crm.kill(t)
		}
		c.launch()
		s.launchCRM()
	}
	c.http, s.crmHTTP = c.p.ready(t), s.crm.ready(t)
	leave()
	s.nothingLost()
}
