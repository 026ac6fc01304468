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
)

const (
	recordsTopic = "gatehouse/north-1/up/records"
	receiptTopic = "gatehouse/north-1/down/receipt"
)

// onMosquitto makes a site with one controller around a real Mosquitto, which
// has the certificate that gatehouse-crm made for its broker.
func onMosquitto(t *testing.T) (*site, *controller, *mosquitto.Broker) {
	t.Helper()
	s := newSite(t, "to be known")
	files := mosquitto.Files{
		CA:   filepath.Join(s.crmDir(), "tls", "ca.crt"),
		Cert: filepath.Join(s.crmDir(), "tls", "broker.crt"),
		Key:  filepath.Join(s.crmDir(), "keys", "broker.key"),
	}
	dir := filepath.Join(s.dir, "mosquitto")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := mosquitto.Start(dir, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("mosquitto:\n%s", m.Log())
		}
	})
	s.broker = tlsURL(t, m.Addr)
	c := s.enrol("north-1", 2, s.broker)
	s.startCRM()
	c.start()
	return s, c, m
}

// Mosquitto is killed while records flow, and begins again with nothing but
// its configuration.
func TestMosquittoKilledAndItsStateDeleted(t *testing.T) {
	t.Parallel()
	s, c, m := onMosquitto(t)
	leave := c.crowd()
	defer leave()
	for range 3 {
		before := c.acknowledged()
		eventually(t, "the CRM countersigns", func() bool { return c.acknowledged() > before })
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(s.dir, "mosquitto")
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
	s.nothingLost()
}

// Mosquitto acknowledges what its rules forbid, and drops it. The controller
// trusts receipts alone: it says that they stay out, keeps the records, and
// sends them when the rules are mended.
func TestRulesThatDenyRecordsAreNoticed(t *testing.T) {
	t.Parallel()
	s, c, m := onMosquitto(t)
	eventually(t, "the CRM countersigns", func() bool { return c.acknowledged() > 0 })
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
	leave := c.crowd()
	eventually(t, "the status says that receipts stay out, on a connection that stands", func() bool {
		s := c.status()
		return s != nil && s.Link.Connected && !s.Link.Overdue.IsZero()
	})
	if metric(c.http, "gatehouse_crm_receipt_overdue") != 1 {
		t.Error("the metrics do not say that receipts stay out")
	}
	leave()
	// Answers to the states, which still go through, do not hide it.
	denied := c.now()
	answered := c.lastReceipt()
	eventually(t, "a state is answered", func() bool { return c.lastReceipt().After(answered) })
	if now := c.now(); now.Link.Overdue.IsZero() || now.Records.Acknowledged != denied.Records.Acknowledged {
		t.Errorf("after an answer to a state the status is %+v", now)
	}
	if err := m.SetRules(rules); err != nil {
		t.Fatal(err)
	}
	c.settled()
	if now := c.now(); !now.Link.Overdue.IsZero() {
		t.Errorf("all is receipted, and the status is %+v", now)
	}
	s.nothingLost()
}

// onBroker makes a site with one controller around a broker that will
// misbehave.
func onBroker(t *testing.T) (*site, *controller, *broker) {
	t.Helper()
	b := newBroker(t)
	s := newSite(t, b.url())
	c := s.enrol("north-1", 2, b.url())
	s.startCRM()
	c.start()
	return s, c, b
}

// A broker takes what is published, and is not heard of again.
func TestBrokerThatNeverAcknowledges(t *testing.T) {
	t.Parallel()
	s, c, b := onBroker(t)
	eventually(t, "the CRM countersigns", func() bool { return c.acknowledged() > 0 })
	b.be(func(string, string) treatment { return treatment{} })
	leave := c.crowd()
	c.records(c.now().Records.Size + 20)
	leave()
	eventually(t, "the status says what is wrong", func() bool {
		s := c.status()
		return s != nil && strings.Contains(s.Link.LastError, "did not acknowledge")
	})
	b.be(nil)
	s.nothingLost()
}

// A broker acknowledges a batch, and dies before it has passed it on.
func TestBrokerThatAcknowledgesAndDies(t *testing.T) {
	t.Parallel()
	s, c, b := onBroker(t)
	leave := c.crowd()
	defer leave()
	for range 3 {
		before := c.acknowledged()
		eventually(t, "the CRM countersigns", func() bool { return c.acknowledged() > before })
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
		time.Sleep(poll) // for the acknowledgement to arrive
		b.die()
		b.be(nil)
		b.revive()
	}
	leave()
	s.nothingLost()
}

// Every message comes twice, and in any order.
func TestMessagesTwiceAndOutOfOrder(t *testing.T) {
	t.Parallel()
	s, c, b := onBroker(t)
	b.be(func(string, string) treatment {
		const late = 60 * time.Millisecond
		return treatment{acknowledge: true, copies: []time.Duration{1 + rand.N(late), 1 + rand.N(late)}}
	})
	leave := c.crowd()
	eventually(t, "a good many batches were sent and receipted", func() bool {
		return b.published(recordsTopic) > 50 && b.published(receiptTopic) > 50
	})
	leave()
	s.nothingLost()
}

// The cable between controller and broker is pulled: neither is told. Another
// way is there at once.
func TestHalfOpenConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	r := newRelay(t, s.listen)
	c := s.enrol("north-1", 2, tlsURL(t, r.listener.Addr().String()))
	s.startCRM()
	c.start()
	leave := c.crowd()
	eventually(t, "the CRM countersigns", func() bool { return c.acknowledged() > 0 })
	r.freeze()
	n := c.unlocks()
	eventually(t, "doors work on", func() bool { return c.unlocks() > n+10 })
	leave()
	s.nothingLost()
}
