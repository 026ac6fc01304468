package faults

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/mqtt"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/test/rig"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// attacker speaks to the broker with a controller's own certificate.
type attacker struct {
	t    *testing.T
	conn *mqtt.Conn
	keys *keys.ControllerKeys
	stop func()
}

func newAttacker(t *testing.T, c *rig.Controller) *attacker {
	t.Helper()
	k, err := keys.LoadController(keys.File(filepath.Join(c.Data, "keys")))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := mqtt.New(mqtt.Config{
		Broker:   c.URL(),
		ClientID: c.Name,
		TLS: func() (*tls.Config, error) {
			return pki.ControllerTLS(c.Data, k.TLS, c.URL(), time.Now)
		},
		MinBackoff: rig.Poll, MaxBackoff: rig.Poll, MaxPacket: 4 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- conn.Run(ctx) }()
	a := &attacker{t: t, conn: conn, keys: k, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})}
	t.Cleanup(a.stop)
	rig.Eventually(t, "the attacker is connected", conn.Connected)
	return a
}

// send publishes; a broker that hangs up is an answer, too.
func (a *attacker) send(topic string, payload []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := a.conn.Publish(ctx, topic, payload, false); err != nil {
		rig.Eventually(a.t, "the attacker is connected again", a.conn.Connected)
	}
}

// A controller publishes as fast as it can. The CRM takes no more of it than
// of any other, and the others do not notice.
func TestBabblingControllerIsLimited(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	c := enrol(s, "north-1", 1)
	babbler := enrol(s, "babbler", 1)
	s.StartCRM()
	c.Start()
	a := newAttacker(t, babbler)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	quiet := sync.OnceFunc(func() { cancel(); wg.Wait() })
	defer quiet()
	state := func(n int) []byte {
		b, err := (&wire.State{V: wire.Version, Controller: "babbler", Online: true, Session: strings.Repeat("b", 32), Number: uint64(n + 1),
			Time: time.Now().UTC().Truncate(time.Microsecond), Epoch: strings.Repeat("b", 32)}).Marshal()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	for range 16 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if n%2 == 0 {
					a.conn.Publish(ctx, "gatehouse/babbler/up/state", state(n), false)
				} else {
					a.conn.Publish(ctx, "gatehouse/babbler/up/records", bytes.Repeat([]byte("x"), 10_000), false)
				}
			}
		})
	}
	const limited = `gatehouse_crm_messages_dropped_total{reason="rate"}`
	rig.Eventually(t, "the CRM takes no more of the babbler", func() bool { return s.Metric(limited) > 1000 })
	var slowest time.Duration
	for i := range 20 {
		n := c.Now().Records.Size
		if err := c.Wires.Swipe(c.Doors[0]+"-in", rig.Card(t, uint64(i+1))); err != nil {
			t.Fatal(err)
		}
		records(t, c, n+1)
		began := time.Now()
		rig.Eventually(t, "the other controller gets its receipt", func() bool { return c.Acknowledged() > n })
		slowest = max(slowest, time.Since(began))
	}
	resent := c.Metric("gatehouse_crm_resent_total")
	t.Logf("%.0f messages of the babbler were dropped; the slowest of 20 receipts of the other took %v", s.Metric(limited), slowest.Round(time.Millisecond))
	// On a busy machine a receipt may be later than a controller waits for it.
	if resent > 0 && slowest < 4*time.Second {
		t.Errorf("the other controller had to send again %.0f times", resent)
	}
	quiet()
	a.stop()
	nothingLost(t, s)
}

// Whatever a controller that has a good certificate publishes: it is refused
// and counted, nothing falls over, and good records that follow are receipted.
func TestHostilePayloadsToTheCRM(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	c := enrol(s, "north-1", 1)
	other := enrol(s, "south-1", 1)
	s.StartCRM()
	c.Start()
	leave := crowd(t, c)
	records(t, c, 30)
	leave()
	own := stop(t, c)
	a, b := newAttacker(t, c), newAttacker(t, other)

	// A batch as the controller itself sent it.
	good := wire.Batch{V: wire.Version, Controller: "north-1", Epoch: own[0].Epoch, Records: []string{own[0].JWS, own[1].JWS}}
	good.Checkpoint = checkpoint(t, a.keys, "north-1", good.Epoch, own[:2])
	payload, err := good.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(*wire.Batch)) []byte {
		b := good
		b.Records = append([]string(nil), good.Records...)
		change(&b)
		p, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	swapped := func(header string) []byte { // the rest of the record as it was
		return changed(func(b *wire.Batch) {
			_, rest, _ := strings.Cut(b.Records[1], ".")
			b.Records[1] = base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
		})
	}
	random := make([]byte, 10_000)
	rand.Read(random)
	hostile := [][]byte{
		nil, []byte("null"), []byte("{}"), []byte("[]"), random[:1], random[:100], random,
		bytes.Repeat([]byte("["), wire.MaxPayload), bytes.Repeat([]byte(`{"v":`), wire.MaxPayload/5),
		bytes.Repeat([]byte("9"), wire.MaxPayload), make([]byte, wire.MaxPayload),
		[]byte(`{"v":"1","controller":1,"epoch":[],"first":-1,"records":{},"checkpoint":null}`),
		[]byte(`{"v":1,"controller":"north-1","epoch":"` + good.Epoch + `","first":18446744073709551615,"records":["x"],"checkpoint":"y"}`),
		append(bytes.Clone(payload), payload...), payload[:len(payload)-1],
		changed(func(b *wire.Batch) { b.V = 2 }),
		changed(func(b *wire.Batch) { b.Controller = "south-1" }),
		changed(func(b *wire.Batch) { b.First = 1 << 62 }),
		changed(func(b *wire.Batch) { b.Records = nil }),
		changed(func(good *wire.Batch) { // signed with another controller's key
			good.Checkpoint = checkpoint(t, b.keys, "north-1", good.Epoch, own[:2])
		}),
		swapped(`{"alg":"none","typ":"gatehouse-record+jwt"}`),
		swapped(`{"alg":"HS256","typ":"gatehouse-record+jwt"}`),
		swapped(`{"alg":"EdDSA","typ":"gatehouse-record+jwt"}`),
		swapped(strings.Repeat("[", 10_000)),
	}
	for range 200 { // a good batch with some bytes changed
		p := bytes.Clone(payload)
		for range 1 + mathrand.N(4) {
			p[mathrand.N(len(p))] = byte(mathrand.N(256))
		}
		hostile = append(hostile, p)
	}
	count := func() float64 {
		return s.Metric("gatehouse_crm_messages_dropped_total") + s.Metric("gatehouse_crm_batches_refused_total")
	}
	before, sent := count(), 0
	for i, p := range hostile {
		a.send("gatehouse/north-1/up/records", p)
		sent++
		if i%2 == 0 {
			a.send("gatehouse/north-1/up/state", p[:min(len(p), wire.MaxState+1)])
			sent++
		}
		if i%16 == 0 {
			time.Sleep(rig.Poll) // what is limited is not looked at
		}
	}
	a.send("gatehouse/north-1/up/fetch", payload)
	for _, topic := range []string{"gatehouse/south-1/up/records", "gatehouse/north-1/down/receipt", "gatehouse/gatehouse-crm/up/state", "$SYS/x"} {
		a.send(topic, payload)
	}
	a.send("gatehouse/north-1/up/records", make([]byte, 2<<20)) // more than the broker takes
	// Chance may have left a few as they were.
	rig.Eventually(t, "all of it is counted", func() bool { return count()-before > float64(sent-10) })

	// A controller that has turned bad signs a log with records that are none.
	bad := forge(t, b.keys, "south-1")
	p, err := bad.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b.send("gatehouse/south-1/up/records", p)
	rig.Eventually(t, "records with a swapped algorithm are an alarm", func() bool {
		return s.Metric(`gatehouse_crm_alarms_open{kind="invalid_record"}`) > 0
	})
	a.stop()
	b.stop()
	t.Logf("%.0f of %d hostile messages were counted", count()-before, sent)

	c.Start()
	leave = crowd(t, c)
	records(t, c, uint64(len(own))+30)
	leave()
	c.Settled()
	if s.Metric(`gatehouse_crm_alarms_open{kind="fork"}`) > 0 {
		t.Error("a fork alarm was raised, though the controller signed only one log")
	}
	nothingLost(t, s)
}

// checkpoint signs the tree over some records, with whatever key.
func checkpoint(t *testing.T, k *keys.ControllerKeys, name, epoch string, records []rig.Record) string {
	t.Helper()
	jws := make([]string, len(records))
	for i, r := range records {
		jws[i] = r.JWS
	}
	return signTree(t, k, name, epoch, jws)
}

func signTree(t *testing.T, k *keys.ControllerKeys, name, epoch string, jws []string) string {
	t.Helper()
	var hashes []tlog.Hash
	read := tlog.HashReaderFunc(func(ix []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(ix))
		for i, x := range ix {
			out[i] = hashes[x]
		}
		return out, nil
	})
	for i, j := range jws {
		more, err := tlog.StoredHashes(int64(i), []byte(j), read)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, more...)
	}
	root, err := tlog.TreeHash(int64(len(jws)), read)
	if err != nil {
		t.Fatal(err)
	}
	origin := visitorlog.Origin(name, epoch)
	signer, err := k.Log.NoteSigner(origin)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: visitorlog.Checkpoint{Origin: origin, Size: uint64(len(jws)), Root: root}.Text()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

// forge makes a batch that is a good one but for what its records are.
func forge(t *testing.T, k *keys.ControllerKeys, name string) *wire.Batch {
	t.Helper()
	var id [16]byte
	rand.Read(id[:])
	b := &wire.Batch{V: wire.Version, Controller: name, Epoch: hex.EncodeToString(id[:])}
	real, err := k.Log.Sign([]byte(`{"specversion":"1.0"}`))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(real, ".")
	for _, alg := range []string{"none", "HS256", "EdDSA"} {
		header := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"typ":"gatehouse-record+jwt"}`, alg))
		b.Records = append(b.Records, header+"."+parts[1]+"."+parts[2])
	}
	b.Checkpoint = signTree(t, k, name, b.Epoch, b.Records)
	return b
}

// Whatever comes to a controller on its topics, from whoever: it is refused
// and counted, and the door works on.
func TestHostilePayloadsToTheController(t *testing.T) {
	t.Parallel()
	s, c, b := onBroker(t)
	leave := crowd(t, c)
	records(t, c, 30)
	countersigns(t, c)
	random := make([]byte, 10_000)
	rand.Read(random)
	header := func(alg, more string) string {
		return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"typ":"gatehouse-receipt+jwt"%s}`, alg, more))
	}
	claim := base64.RawURLEncoding.EncodeToString([]byte(`{"v":1,"controller":"north-1","epoch":"` + c.Now().Records.Epoch +
		`","size":1000000,"policy_version":99,"used":[],"time":"2099-01-01T00:00:00Z"}`))
	k, err := keys.LoadController(keys.File(filepath.Join(c.Data, "keys")))
	if err != nil {
		t.Fatal(err)
	}
	own, err := k.Log.Sign([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	hostile := [][]byte{
		nil, []byte("null"), random[:100], random, bytes.Repeat([]byte("["), 256<<10), bytes.Repeat([]byte("."), 256<<10),
		[]byte(header("none", "") + "." + claim + "."),
		[]byte(header("HS256", "") + "." + claim + "." + strings.Repeat("A", 43)),
		[]byte(header("EdDSA", `,"crit":["b64"],"b64":false`) + "." + claim + "." + strings.Repeat("A", 86)),
		[]byte(header("EdDSA", `,"jwk":{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`) + "." + claim + "." + strings.Repeat("A", 86)),
		[]byte(own), // signed, but by another key and for another purpose
	}
	for range 100 {
		p := make([]byte, mathrand.N(2000))
		rand.Read(p)
		hostile = append(hostile, p)
	}
	bad := func() float64 { return c.Metric("gatehouse_crm_receipts_bad_total") }
	refused := func() float64 { return c.Metric("gatehouse_commands_refused_total") }
	others := func() float64 { return c.Metric("gatehouse_crm_messages_refused_total") } // its site governs who may enter
	for i, p := range hostile {
		was, wasRefused, wereOthers := bad(), refused(), others()
		b.inject(receiptTopic, p)
		b.inject("gatehouse/north-1/down/command", p)
		for _, kind := range []wire.Kind{wire.KindManifest, wire.KindDelta, wire.KindChunk} {
			b.inject("gatehouse/north-1/"+string(kind), p)
		}
		if i%8 == 0 { // one at a time, so that each is seen to be counted
			rig.Eventually(t, fmt.Sprintf("hostile message %d is counted", i), func() bool { return bad() > was && refused() > wasRefused && others() > wereOthers })
		}
	}
	b.inject(receiptTopic, make([]byte, 1<<20)) // more than the controller takes: it hangs up, and connects again
	comesIn(t, c, 5)
	leave()
	if got := c.Now().Records; got.Acknowledged > got.Size {
		t.Errorf("a forged receipt was taken: %+v", got)
	}
	t.Logf("%.0f receipts, %.0f commands and %.0f other messages were refused", bad(), refused(), others())
	nothingLost(t, s)
}
