package faults

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/mosquitto"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const (
	recordsTopic = "gatehouse/north-1/up/records"
	receiptTopic = "gatehouse/north-1/down/receipt"
)

// onMosquitto makes a site with one controller around a real Mosquitto.
func onMosquitto(t *testing.T) (*rig.Site, *rig.Controller, *mosquitto.Broker) {
	t.Helper()
	s := rig.New(t)
	m := s.Mosquitto()
	return s, begin(s, 2), m
}

// Mosquitto is killed while records flow, and begins again with nothing but
// its configuration.
func TestMosquittoKilledAndItsStateDeleted(t *testing.T) {
	t.Parallel()
	s, c, m := onMosquitto(t)
	leave := crowd(t, c)
	defer leave()
	for range 3 {
		countersigns(t, c)
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(s.Dir, "mosquitto")
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !slices.Contains([]string{"mosquitto.conf", "acl"}, f.Name()) {
				if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := m.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	nothingLost(t, s)
}

// Mosquitto acknowledges what its rules forbid, and drops it. The controller
// trusts receipts alone: it says that they stay out, keeps the records, and
// sends them when the rules are mended.
func TestRulesThatDenyRecordsAreNoticed(t *testing.T) {
	t.Parallel()
	s, c, m := onMosquitto(t)
	c.Settled()
	rules, err := m.Rules()
	if err != nil {
		t.Fatal(err)
	}
	const allow = "pattern write gatehouse/%u/up/records\n"
	if !strings.Contains(rules, allow) {
		t.Fatalf("the rules have no line %q", allow)
	}
	if err := m.SetRules(strings.Replace(rules, allow, "", 1)); err != nil {
		t.Fatal(err)
	}
	// Until they are in force, records go through.
	leave := crowd(t, c)
	rig.Eventually(t, "the status says that receipts stay out, on a connection that stands", func() bool {
		s := c.Status()
		return s != nil && s.Link.Connected && !s.Link.Overdue.IsZero()
	})
	if c.Metric("gatehouse_crm_receipt_overdue") != 1 {
		t.Error("the metrics do not say that receipts stay out")
	}
	leave()
	// Answers to the states, which still go through, do not hide it.
	denied := c.Now()
	answered := c.Now().Link.LastReceipt
	rig.Eventually(t, "a state is answered", func() bool { return c.Now().Link.LastReceipt.After(answered) })
	if now := c.Now(); now.Link.Overdue.IsZero() || now.Records.Acknowledged != denied.Records.Acknowledged {
		t.Errorf("after an answer to a state the status is %+v", now)
	}
	if err := m.SetRules(rules); err != nil {
		t.Fatal(err)
	}
	c.Settled()
	if now := c.Now(); !now.Link.Overdue.IsZero() {
		t.Errorf("all is receipted, and the status is %+v", now)
	}
	nothingLost(t, s)
}

// onBroker makes a site with one controller around a broker that will
// misbehave.
func onBroker(t *testing.T) (*rig.Site, *rig.Controller, *broker) {
	t.Helper()
	b := newBroker(t)
	s := rig.New(t)
	s.Broker = b.url()
	return s, begin(s, 2), b
}

// A broker takes what is published, and is not heard of again.
func TestBrokerThatNeverAcknowledges(t *testing.T) {
	t.Parallel()
	s, c, b := onBroker(t)
	c.Settled()
	b.be(func(string, string) treatment { return treatment{} })
	leave := crowd(t, c)
	records(t, c, c.Now().Records.Size+20)
	leave()
	rig.Eventually(t, "the status says what is wrong", func() bool {
		s := c.Status()
		return s != nil && strings.Contains(s.Link.LastError, "did not acknowledge")
	})
	b.be(nil)
	nothingLost(t, s)
}

// A broker acknowledges a batch, and dies before it has passed it on.
func TestBrokerThatAcknowledgesAndDies(t *testing.T) {
	t.Parallel()
	s, c, b := onBroker(t)
	leave := crowd(t, c)
	defer leave()
	for range 3 {
		countersigns(t, c)
		lost := make(chan struct{}, 1)
		b.be(func(_, topic string) treatment {
			if topic != recordsTopic {
				return good
			}
			select {
			case lost <- struct{}{}:
			default:
			}
			return treatment{acknowledge: true}
		})
		<-lost
		time.Sleep(rig.Poll) // for the acknowledgement to arrive
		b.die()
		b.be(nil)
		b.revive()
	}
	leave()
	nothingLost(t, s)
}

// Every message comes twice, and in any order.
func TestMessagesTwiceAndOutOfOrder(t *testing.T) {
	t.Parallel()
	s, c, b := onBroker(t)
	b.be(func(string, string) treatment {
		const late = 60 * time.Millisecond
		return treatment{acknowledge: true, copies: []time.Duration{1 + rand.N(late), 1 + rand.N(late)}}
	})
	leave := crowd(t, c)
	rig.Eventually(t, "a good many batches were sent and receipted", func() bool {
		return b.published(recordsTopic) > 50 && b.published(receiptTopic) > 50
	})
	leave()
	nothingLost(t, s)
}

// The cable between controller and broker is pulled: neither is told. Another
// way is there at once.
func TestHalfOpenConnection(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	r := newRelay(t, s.Listen)
	c := enrol(s, "north-1", 2)
	c.Broker = rig.TLS(t, r.listener.Addr().String())
	s.StartCRM()
	c.Start()
	leave := crowd(t, c)
	countersigns(t, c)
	r.freeze()
	comesIn(t, c, 10)
	leave()
	nothingLost(t, s)
}
