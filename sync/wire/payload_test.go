package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"pgregory.net/rapid"
)

const epoch = "0123456789abcdef0123456789abcdef"

var at = time.Date(2026, 11, 22, 6, 7, 8, 90_000, time.UTC)

func batch() *Batch {
	return &Batch{V: 1, Controller: "north-1", Epoch: epoch, First: 7, Records: []string{"e30.e30.c2ln", "a<&>b", ""}, Checkpoint: "note\n"}
}

func state() *State {
	return &State{V: 1, Controller: "north-1", Online: true, Session: epoch, Number: 3, Time: at, Epoch: epoch, Checkpoint: "note\n",
		PolicyVersion: 9, Clock: &visitorlog.Clock{State: access.ClockDrifting, Boot: "b", UptimeMS: 5}}
}

func receipt() *Receipt {
	return &Receipt{V: 1, Controller: "north-1", Epoch: epoch, Size: 5, Checkpoint: "note\n", PolicyVersion: 9, Used: []string{"code/1"}, Time: at, State: epoch + ".3"}
}

func marshalReceipt(r *Receipt) ([]byte, error) { return marshal(r, MaxReceipt, "receipt") }

func TestAPayloadThatIsWrittenIsTheOneThatIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := batch()
		b.First = rapid.Uint64Range(0, MaxSize-MaxBatchRecords).Draw(t, "first")
		b.Records = rapid.SliceOfN(rapid.StringN(0, 40, 160), 1, 60).Draw(t, "records")
		if b.Early = rapid.Bool().Draw(t, "early"); b.Early {
			b.Checkpoint = ""
		}
		payload, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseBatch(payload); err != nil || !reflect.DeepEqual(got, b) {
			t.Fatalf("%s reads as %+v, %v", payload, got, err)
		}
	})
	for _, s := range []*State{state(), {V: 1, Controller: "north-1", Session: epoch}, {V: 1, Controller: "a", Online: true, Session: epoch, Number: 1, Time: at, Epoch: epoch}} {
		payload, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseState(payload); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s reads as %+v, %v", payload, got, err)
		}
	}
	empty := receipt()
	empty.Size, empty.Checkpoint, empty.Used, empty.State = 0, "", []string{}, ""
	for _, r := range []*Receipt{receipt(), empty} {
		payload, err := marshalReceipt(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseReceipt(payload); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s reads as %+v, %v", payload, got, err)
		}
	}
}

// A log may hold records that are no JWS at all; they are carried as they are.
func TestARecordIsCarriedWhateverItSays(t *testing.T) {
	for _, r := range []string{"", "hello", "{\"a\":1}", "<script>&amp;", "é\u2028\n\x00", strings.Repeat("x", MaxRecord)} {
		b := batch()
		b.Records = []string{r}
		payload, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseBatch(payload); err != nil || got.Records[0] != r {
			t.Errorf("%.20q is not carried: %v", r, err)
		}
	}
}

func TestAPayloadOutOfBoundsIsNeitherWrittenNorRead(t *testing.T) {
	for name, change := range map[string]func(*Batch){
		"version":      func(b *Batch) { b.V = 2 },
		"controller":   func(b *Batch) { b.Controller = "a/b" },
		"epoch":        func(b *Batch) { b.Epoch = strings.ToUpper(epoch) },
		"short epoch":  func(b *Batch) { b.Epoch = epoch[1:] },
		"no records":   func(b *Batch) { b.Records = nil },
		"many records": func(b *Batch) { b.Records = make([]string, MaxBatchRecords+1) },
		"large record": func(b *Batch) { b.Records[0] = strings.Repeat("x", MaxRecord+1) },
		"large batch": func(b *Batch) {
			b.Records = []string{}
			for range 20 {
				b.Records = append(b.Records, strings.Repeat("x", MaxBatch/16))
			}
		},
		"sequence":        func(b *Batch) { b.First = MaxSize },
		"no checkpoint":   func(b *Batch) { b.Checkpoint = "" },
		"early and not":   func(b *Batch) { b.Early = true },
		"long checkpoint": func(b *Batch) { b.Checkpoint = strings.Repeat("x", MaxCheckpoint+1) },
	} {
		b := batch()
		change(b)
		if _, err := b.Marshal(); err == nil {
			t.Errorf("batch, %s: written", name)
		}
		raw, err := encode(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseBatch(raw); err == nil {
			t.Errorf("batch, %s: read", name)
		}
	}
	for name, change := range map[string]func(*State){
		"version":              func(s *State) { s.V = 0 },
		"controller":           func(s *State) { s.Controller = CRM },
		"session":              func(s *State) { s.Session = "" },
		"online without epoch": func(s *State) { s.Epoch, s.Checkpoint = "", "" },
		"checkpoint, no epoch": func(s *State) { s.Online, s.Epoch = false, "" },
		"time zone":            func(s *State) { s.Time = at.In(time.FixedZone("", 3600)) },
		"time":                 func(s *State) { s.Time = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC) },
		"number":               func(s *State) { s.Number = MaxSize + 1 },
		"policy":               func(s *State) { s.PolicyVersion = MaxSize + 1 },
		"boot":                 func(s *State) { s.Clock.Boot = strings.Repeat("x", maxWord+1) },
		"long checkpoint":      func(s *State) { s.Checkpoint = strings.Repeat("x", MaxCheckpoint+1) },
	} {
		s := state()
		change(s)
		if _, err := s.Marshal(); err == nil {
			t.Errorf("state, %s: written", name)
		}
		raw, err := encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseState(raw); err == nil {
			t.Errorf("state, %s: read", name)
		}
	}
	for name, change := range map[string]func(*Receipt){
		"version":                func(r *Receipt) { r.V = 0 },
		"controller":             func(r *Receipt) { r.Controller = "" },
		"epoch":                  func(r *Receipt) { r.Epoch = "" },
		"size":                   func(r *Receipt) { r.Size = MaxSize + 1 },
		"size, no checkpoint":    func(r *Receipt) { r.Checkpoint = "" },
		"checkpoint at size 0":   func(r *Receipt) { r.Size = 0 },
		"no list of what's used": func(r *Receipt) { r.Used = nil },
		"much used":              func(r *Receipt) { r.Used = make([]string, MaxUsed+1) },
		"long name of use":       func(r *Receipt) { r.Used = []string{strings.Repeat("x", maxWord+1)} },
		"long state":             func(r *Receipt) { r.State = strings.Repeat("x", maxWord+1) },
		"no time":                func(r *Receipt) { r.Time = time.Time{} },
		"policy":                 func(r *Receipt) { r.PolicyVersion = MaxSize + 1 },
	} {
		r := receipt()
		change(r)
		if _, err := marshalReceipt(r); err == nil {
			t.Errorf("receipt, %s: written", name)
		}
		raw, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseReceipt(raw); err == nil {
			t.Errorf("receipt, %s: read", name)
		}
	}
}

func TestThereIsOneWayToWriteAPayload(t *testing.T) {
	good, err := state().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	g := string(good)
	for name, payload := range map[string]string{
		"nothing":         "",
		"null":            "null",
		"an array":        "[]",
		"a space":         " " + g,
		"a newline after": g + "\n",
		"bytes after":     g + "{}",
		"unknown name":    strings.Replace(g, `"v":1`, `"v":1,"x":1`, 1),
		"name twice":      strings.Replace(g, `"v":1`, `"v":1,"v":1`, 1),
		"another case":    strings.Replace(g, `"v":1`, `"V":1`, 1),
		"another order":   strings.Replace(strings.Replace(g, `"v":1,`, ``, 1), `{`, `{"online":true,"v":1,`, 1),
		"not UTF-8":       strings.Replace(g, "note", "no\xffte", 1),
		"escaped":         strings.Replace(g, "note", `\u006eote`, 1),
		"exponent":        strings.Replace(g, `"number":3`, `"number":3e0`, 1),
		"null clock":      strings.Replace(g, `"policy_version":9`, `"policy_version":null`, 1),
		"too large":       strings.Repeat(" ", MaxState) + g,
	} {
		if payload == g {
			t.Fatalf("%s: the payload was not changed", name)
		}
		if s, err := ParseState([]byte(payload)); err == nil {
			t.Errorf("%s: reads as %+v", name, s)
		}
	}
	if _, err := ParseState(bytes.Repeat([]byte("x"), MaxState+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large payload: %v, want ErrTooLarge", err)
	}
}

func TestAReceiptIsReadOnlyIfItIsSignedAsOne(t *testing.T) {
	cosigner := func() *keys.Cosigner {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := keys.NewCosigner(key, "crm.example")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c, other := cosigner(), cosigner()
	v, err := c.Public().Receipts()
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := c.Public().Bundles()
	if err != nil {
		t.Fatal(err)
	}
	jws, err := receipt().Sign(c.Receipts())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenReceipt(jws, v); err != nil || !reflect.DeepEqual(got, receipt()) {
		t.Errorf("a good receipt reads as %+v, %v", got, err)
	}
	foreign, err := receipt().Sign(other.Receipts())
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := receipt().Sign(c.Bundles())
	if err != nil {
		t.Fatal(err)
	}
	stateJWS, err := c.Receipts().Sign([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		jws string
		v   Verifier
	}{
		"another key":           {foreign, v},
		"a bundle":              {bundle, v},
		"a bundle, verified so": {bundle, bundles}, // the type holds, whoever verifies
		"changed":               {jws[:len(jws)-4] + "AAAA", v},
		"not a receipt":         {stateJWS, v},
		"nothing":               {"", v},
		"too large":             {jws + strings.Repeat("x", MaxReceipt), v},
	} {
		if r, err := OpenReceipt(tt.jws, tt.v); err == nil {
			t.Errorf("%s: reads as %+v", name, r)
		}
	}
}

func fuzz[P any](f *testing.F, parse func([]byte) (P, error), write func(P) ([]byte, error)) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if err != nil {
			return
		}
		again, err := write(p)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q reads, and is written as %q (%v)", b, again, err)
		}
	})
}

func FuzzParseBatch(f *testing.F) {
	early := batch()
	early.Early, early.Checkpoint = true, ""
	for _, b := range []*Batch{batch(), early} {
		payload, err := b.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	plain := batch()
	plain.Records = []string{"e30.e30.c2ln", "e30.e30.c2lnLQ"}
	payload, err := plain.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add(bytes.Replace(payload, []byte(`"],`), []byte(`"],"records":["a"],`), 1))
	f.Add(bytes.Replace(payload, []byte(`","`), []byte(`" ,"`), 1))
	fuzz(f, parseBothWays, (*Batch).Marshal)
}

// parseBothWays panics if a batch whose records are cut out reads in another
// way than as a whole.
func parseBothWays(payload []byte) (*Batch, error) {
	b, err := ParseBatch(payload)
	whole := new(Batch)
	werr := parse(payload, whole, MaxBatch, "batch")
	if (err == nil) != (werr == nil) || err == nil && !reflect.DeepEqual(b, whole) {
		panic(fmt.Sprintf("%q reads as %+v (%v), and as a whole as %+v (%v)", payload, b, err, whole, werr))
	}
	return b, err
}

func TestABatchIsWrittenAsJSONWritesIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := batch()
		b.Records = rapid.SliceOfN(rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9_.-]{0,40}`), rapid.String()), 1, 5).Draw(t, "records")
		b.Early = rapid.Bool().Draw(t, "early")
		if b.Early {
			b.Checkpoint = ""
		}
		got, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		want, err := encode(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("written %q, want %q", got, want)
		}
	})
}

func FuzzParseState(f *testing.F) {
	payload, err := state().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	fuzz(f, ParseState, (*State).Marshal)
}

func FuzzParseReceipt(f *testing.F) {
	payload, err := marshalReceipt(receipt())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	fuzz(f, ParseReceipt, marshalReceipt)
}
