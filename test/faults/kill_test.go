package faults

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const killWithin = 150 * time.Millisecond

// A daemon that is killed at any moment has lost nothing: what it let in it
// had recorded, and what it recorded arrives.
func TestKilledDaemonLosesNothing(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	c := begin(s, 4)
	leave := crowd(t, c)
	defer leave()
	for round := range rounds {
		if round%4 == 3 { // during its start
			time.Sleep(rand.N(killWithin))
		} else {
			comesIn(t, c, 1)
			time.Sleep(rand.N(killWithin))
		}
		c.Process.Kill(t)
		c.Launch()
	}
	c.Await()
	leave()
	own := nothingLost(t, s)[c.Name]
	for _, r := range own {
		if r.Epoch != own[0].Epoch {
			t.Errorf("record %d is of another epoch: a kill must not damage the log", r.Seq)
		}
	}
	if len(c.Unlocks()) < rounds/2 {
		t.Errorf("only %d unlocks in %d rounds", len(c.Unlocks()), rounds)
	}
}

// The CRM is killed just when it has stored a batch and its receipt has not
// gone out: the controller sends the batch again, and it is stored once.
func TestCRMKilledBetweenCommitAndReceipt(t *testing.T) {
	t.Parallel()
	s, c, b := onBroker(t)
	leave := crowd(t, c)
	defer leave()
	for range crmRounds {
		countersigns(t, c)
		// A receipt is published after the commit. This one goes no further,
		// and the CRM no further than to this.
		published := make(chan struct{})
		var once sync.Once
		b.be(func(from, topic string) treatment {
			if topic != receiptTopic {
				return good
			}
			once.Do(func() { close(published) })
			return treatment{}
		})
		select {
		case <-published:
		case <-time.After(rig.Patience):
			t.Fatal("no receipt was published")
		}
		s.CRM.Kill(t)
		b.be(nil)
		s.StartCRM()
	}
	leave()
	nothingLost(t, s)
}

func TestKilledCRMLosesNothing(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	c := begin(s, 2)
	leave := crowd(t, c)
	defer leave()
	for range crmRounds {
		time.Sleep(rand.N(3 * killWithin))
		s.CRM.Kill(t)
		s.LaunchCRM()
	}
	s.AwaitCRM()
	leave()
	nothingLost(t, s)
}

func TestBothKilledLoseNothing(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	c := begin(s, 2)
	leave := crowd(t, c)
	defer leave()
	for round := range crmRounds {
		comesIn(t, c, 1)
		time.Sleep(rand.N(3 * killWithin))
		// In turns, and at the same moment as far as there is such a thing.
		if round%2 == 0 {
			s.CRM.Kill(t)
			c.Process.Kill(t)
		} else {
			c.Process.Kill(t)
			s.CRM.Kill(t)
		}
		c.Launch()
		s.LaunchCRM()
	}
	c.Await()
	s.AwaitCRM()
	leave()
	nothingLost(t, s)
}
