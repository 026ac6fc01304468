package uplink_test

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/broker"
	"github.com/gatehouse-acs/gatehouse/sync/mqtt"
	"github.com/gatehouse-acs/gatehouse/sync/uplink"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// network is the real way between the two: the embedded broker on loopback,
// TLS 1.3 with client certificates, and a connection for each end.
type network struct {
	t   testing.TB
	url string
	ca  *pki.Authority
}

func privateKey(t testing.TB) *keys.PrivateKey {
	t.Helper()
	pem, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	n := &network{t: t}
	now := time.Now()
	var err error
	if n.ca, err = pki.NewAuthority(privateKey(t), "test", now); err != nil {
		t.Fatal(err)
	}
	key := privateKey(t)
	cert, err := n.ca.Server([]string{"127.0.0.1"}, key.Public(), now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.Listen(broker.Config{Listen: "127.0.0.1:0",
		TLS: pki.ServerTLS(tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key.Signer()}, n.ca.Certificate(), time.Now)})
	if err != nil {
		t.Fatal(err)
	}
	n.url = "tls://" + b.Addr().String()
	n.run(b.Run)
	return n
}

// run runs something until the test ends.
func (n *network) run(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			n.t.Error(err)
		}
	}()
	n.t.Cleanup(func() { cancel(); <-done })
}

// connect makes a connection in a name and hands over what comes in.
func (n *network) connect(name string, subscription string, on func(), handle func(wire.Message)) *mqtt.Conn {
	n.t.Helper()
	key := privateKey(n.t)
	cert, err := n.ca.Client(name, key.Public(), time.Now(), time.Hour)
	if err != nil {
		n.t.Fatal(err)
	}
	config := pki.ClientTLS(tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key.Signer()}, n.ca.Certificate(), "127.0.0.1", time.Now)
	c, err := mqtt.New(mqtt.Config{Broker: n.url, ClientID: name, TLS: func() (*tls.Config, error) { return config, nil },
		Subscriptions: []string{subscription}, OnConnect: func(context.Context) { on() }})
	if err != nil {
		n.t.Fatal(err)
	}
	n.run(c.Run)
	n.run(func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case m := <-c.Messages():
				handle(wire.Message(m))
			}
		}
	})
	return c
}

// overMQTT is a CRM and a controller with the network between them.
func overMQTT(t testing.TB, tune func(*uplink.Options)) (*crm, *controller) {
	t.Helper()
	n := newNetwork(t)
	p := newPipe(t, 1, fate{})
	c := newCRM(t, p)
	toCRM := make(chan struct{})
	up := n.connect(wire.CRM, wire.UpFilter(), sync.OnceFunc(func() { close(toCRM) }), func(m wire.Message) { p.arrive(m) })
	<-toCRM
	c.stop()
	c.publisher = up
	c.start()
	ready := make(chan struct{})
	down, err := wire.DownFilter("north-1")
	if err != nil {
		t.Fatal(err)
	}
	conn := n.connect("north-1", down, sync.OnceFunc(func() { close(ready) }), func(m wire.Message) { p.arrive(m) })
	<-ready
	d := newController(t, "north-1", c, func(o *uplink.Options) {
		o.Publisher = conn
		if tune != nil {
			tune(o)
		}
	})
	return c, d
}

func TestRecordsArriveOverTheRealBroker(t *testing.T) {
	c, d := overMQTT(t, nil)
	d.settle(10 * time.Second)
	d.write(700)
	d.settle(20 * time.Second)
	d.same()
	c.wantAlarms()
}

// BenchmarkLiveRecordOverMQTT is BenchmarkLiveRecord with the broker: TLS 1.3
// on loopback, QoS 1.
func BenchmarkLiveRecordOverMQTT(b *testing.B) {
	_, d := overMQTT(b, nil)
	d.settle(10 * time.Second)
	live(b, d)
}

func live(b *testing.B, d *controller) {
	var took []time.Duration
	for b.Loop() {
		e, err := d.log.Append(context.Background(), func(*visitorlog.Tx) (visitorlog.Draft, error) {
			return visitorlog.Draft{Type: visitorlog.DoorClosed, Data: visitorlog.Data{Door: "a"}}, nil
		})
		if err != nil {
			b.Fatal(err)
		}
		committed := time.Now()
		for d.uplink.Status().Acknowledged <= e.Seq {
			time.Sleep(50 * time.Microsecond)
		}
		took = append(took, time.Since(committed))
		time.Sleep(20 * time.Millisecond) // a busy door
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "got-ns")
	b.ReportMetric(0, "ns/op")
}
