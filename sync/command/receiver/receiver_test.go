package receiver

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// orders notes what a door is told. The real one is told so in the tests of whole
// programs.
type orders struct {
	mu   sync.Mutex
	list []door.Order
	err  error
}

func (o *orders) Order(_ context.Context, order door.Order) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, order)
	return o.err
}

type systemClock struct{}

func (systemClock) Now() (time.Time, access.ClockState) { return time.Now(), access.ClockSynchronised }
func (systemClock) Floor() time.Time                    { return time.Time{} }

// bench is a receiver with a real log and real keys, and a CRM's key.
type bench struct {
	*Receiver
	t         *testing.T
	log       *visitorlog.Log
	a, b      orders
	root, key *keys.Signer
	authority []string
	announced int
}

func signer(t *testing.T, typ string) *keys.Signer {
	t.Helper()
	text, err := keys.GenerateKey(keys.ES256)
	must(t, err)
	s, err := keys.ParseSigner(text, typ)
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, root: signer(t, keys.TypePolicy), key: signer(t, keys.TypeCommand)}
	certificate, err := keys.CertifyPolicyKey(b.root, b.key.JWK(), 1, time.Now(), time.Now().Add(time.Hour))
	must(t, err)
	b.authority = []string{certificate}

	dir := t.TempDir()
	_, err = keys.InitController(filepath.Join(dir, "keys"), keys.ES256)
	must(t, err)
	k, err := keys.LoadController(keys.File(filepath.Join(dir, "keys")))
	must(t, err)
	own, err := k.Log.Verifier(keys.TypeRecord)
	must(t, err)
	b.log, err = visitorlog.Open(dir, visitorlog.Options{
		Controller: "north-1", Signer: k.Log, Verifier: own, Note: k.Log.NoteSigner, NoteVerifier: k.Log.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			return time.Now(), visitorlog.Clock{State: access.ClockSynchronised, Boot: "boot", UptimeMS: 1}
		},
	})
	must(t, err)
	t.Cleanup(func() { must(t, b.log.Close()) })
	b.start()
	return b
}

// start is a start of the daemon.
func (b *bench) start() {
	b.t.Helper()
	var err error
	b.Receiver, err = New(Options{
		Controller: "north-1", Doors: map[string]Door{"a": &b.a, "b": &b.b},
		Verifier: func(authority []string) (wire.Verifier, error) {
			k, err := keys.OpenPolicyKey(b.root.JWK(), authority)
			if err != nil {
				return nil, err
			}
			return keys.NewVerifier(k.JWK, keys.TypeCommand)
		},
		Announce: func() { b.announced++ }, Clock: systemClock{}, Log: b.log,
	})
	must(b.t, err)
}

// ask is what the CRM does before a command.
func (b *bench) ask() (nonce string) {
	b.t.Helper()
	b.send(&wire.Call{V: 1, Controller: "north-1"}, false)
	if nonce = b.Nonce(); nonce == "" {
		b.t.Fatal("no nonce is given out")
	}
	return nonce
}

func (b *bench) unlock(nonce string) *wire.Command {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return &wire.Command{V: 1, Controller: "north-1", ID: strings.Repeat("1", 32), Action: wire.ActionUnlock, Door: "a", Nonce: nonce,
		Issued: now, Expires: now.Add(wire.CommandFor), Operator: "guard-7", Why: "INC-12"}
}

func (b *bench) call(c *wire.Command, by *keys.Signer) *wire.Call {
	b.t.Helper()
	jws, err := c.Sign(by)
	must(b.t, err)
	return &wire.Call{V: 1, Controller: "north-1", Authority: b.authority, Command: jws}
}

// send is take and what Run does after it.
func (b *bench) send(call *wire.Call, retained bool) {
	b.t.Helper()
	payload, err := call.Marshal()
	must(b.t, err)
	b.sendRaw(payload, retained)
}

func (b *bench) sendRaw(payload []byte, retained bool) {
	ctx := b.t.Context()
	if c, err := b.take(ctx, wire.Message{Payload: payload, Retained: retained}); err != nil {
		b.refused(ctx, c, err)
	}
}

// last is the newest record.
func (b *bench) last() visitorlog.Record {
	b.t.Helper()
	h, err := b.log.Head(b.t.Context())
	must(b.t, err)
	list, err := b.log.Entries(b.t.Context(), h.Size-1, 1)
	must(b.t, err)
	return list[0].Record
}

func TestASignedFreshCommandIsADoorsOrder(t *testing.T) {
	b := newBench(t)
	b.send(b.call(b.unlock(b.ask()), b.key), false)
	if len(b.a.list) != 1 || len(b.b.list) != 0 {
		t.Fatalf("door a got %+v, b got %+v", b.a.list, b.b.list)
	}
	if o := b.a.list[0]; o.Action != door.UnlockOnce || o.Operator != "guard-7" || o.Why != "INC-12" || o.ID != strings.Repeat("1", 32) {
		t.Errorf("order %+v", o)
	}
	if b.Nonce() != "" {
		t.Error("a used nonce is still given out")
	}
	if s := b.Status(); s.Obeyed != 1 || len(s.Refused) != 0 || b.announced != 1 {
		t.Errorf("%+v, announced %d", s, b.announced)
	}
}

func TestWhatIsRefusedMovesNothingAndIsRecorded(t *testing.T) {
	for name, tt := range map[string]struct {
		send   func(b *bench)
		want   Refusal
		signed bool // the record names the command
	}{
		"replayed": {func(b *bench) {
			call := b.call(b.unlock(b.ask()), b.key)
			b.send(call, false)
			b.a.list = nil
			b.send(call, false)
		}, Replayed, true},
		"retained": {func(b *bench) { b.send(b.call(b.unlock(b.ask()), b.key), true) }, Retained, false},
		"an ask that was retained": {func(b *bench) {
			b.send(&wire.Call{V: 1, Controller: "north-1"}, true)
			if b.Nonce() != "" {
				b.t.Error("it was answered")
			}
		}, Retained, false},
		"without a nonce given out": {func(b *bench) { b.send(b.call(b.unlock(nonce(1)), b.key), false) }, WrongNonce, true},
		"from before a restart": {func(b *bench) {
			call := b.call(b.unlock(b.ask()), b.key)
			b.start()
			b.send(call, false)
		}, WrongNonce, true},
		"from before a restart, after another ask": {func(b *bench) {
			call := b.call(b.unlock(b.ask()), b.key)
			b.start()
			b.ask()
			b.send(call, false)
		}, WrongNonce, true},
		"late": {func(b *bench) {
			call := b.call(b.unlock(b.ask()), b.key)
			b.gate.given = b.gate.given.Add(-NonceFor - time.Second)
			b.send(call, false)
		}, Late, true},
		"signed by nobody who was certified": {func(b *bench) { b.send(b.call(b.unlock(b.ask()), signer(b.t, keys.TypeCommand)), false) }, WrongSignature, false},
		"signed by the root itself": {func(b *bench) {
			root, err := b.root.As(keys.TypeCommand)
			must(b.t, err)
			b.send(b.call(b.unlock(b.ask()), root), false)
		}, WrongSignature, false},
		"a manifest's signature": {func(b *bench) {
			manifests, err := b.key.As(keys.TypeManifest)
			must(b.t, err)
			b.send(b.call(b.unlock(b.ask()), manifests), false)
		}, WrongSignature, false},
		"certified by another root": {func(b *bench) {
			other, err := keys.CertifyPolicyKey(signer(b.t, keys.TypePolicy), b.key.JWK(), 1, time.Now(), time.Now().Add(time.Hour))
			must(b.t, err)
			call := b.call(b.unlock(b.ask()), b.key)
			call.Authority = []string{other}
			b.send(call, false)
		}, WrongSignature, false},
		"for another controller, on this one's topic": {func(b *bench) {
			call := b.call(b.unlock(b.ask()), b.key)
			call.Controller = "south-1"
			b.send(call, false)
		}, WrongController, false},
		"signed for another controller": {func(b *bench) {
			c := b.unlock(b.ask())
			c.Controller = "south-1"
			b.send(b.call(c, b.key), false)
		}, WrongController, true},
		"for a door that is not here": {func(b *bench) {
			c := b.unlock(b.ask())
			c.Door = "c"
			b.send(b.call(c, b.key), false)
		}, UnknownDoor, true},
		"not a call": {func(b *bench) { b.sendRaw([]byte(`{"v":1,"controller":"north-1","unlock":true}`), false) }, Malformed, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			tt.send(b)
			if len(b.a.list)+len(b.b.list) > 0 {
				t.Errorf("a door was ordered %+v %+v", b.a.list, b.b.list)
			}
			if got := b.Status().Refused[tt.want]; got != 1 {
				t.Errorf("%s was counted %d times: %+v", tt.want, got, b.Status())
			}
			r := b.last()
			if r.Type != visitorlog.OperatorAction || !strings.Contains(r.Data.Detail, string(tt.want)) {
				t.Errorf("recorded as %s: %s", r.Type, r.Data.Detail)
			}
			switch c := r.Data.Command; {
			case (c != nil) != tt.signed:
				t.Errorf("the record's command is %+v", c)
			case c != nil && (!strings.HasPrefix(c.Result, "refused: "+string(tt.want)) || c.Operator != "guard-7"):
				t.Errorf("the record's command is %+v", c)
			}
		})
	}
}

func TestManyRefusalsOfOneKindDoNotFillTheLog(t *testing.T) {
	b := newBench(t)
	before, err := b.log.Head(t.Context())
	must(t, err)
	for range 200 {
		b.sendRaw([]byte("{}"), false)
	}
	after, err := b.log.Head(t.Context())
	must(t, err)
	if got := after.Size - before.Size; got != recordsAtOnce {
		t.Errorf("%d records, want %d", got, recordsAtOnce)
	}
	if got := b.Status().Refused[Malformed]; got != 200 {
		t.Errorf("%d were counted, want 200", got)
	}
	// The next one that is recorded says how many were not.
	b.counts[Malformed].since = b.counts[Malformed].since.Add(-recordsEvery)
	b.sendRaw([]byte("{}"), false)
	if got := b.last().Data.Detail; !strings.Contains(got, "192 more like it") {
		t.Errorf("recorded %q", got)
	}
}

// TestEachRefusalOfACommandForItsNonceIsRecorded: nobody but the CRM can make one,
// and whoever ordered it is to hear of it.
func TestEachRefusalOfACommandForItsNonceIsRecorded(t *testing.T) {
	b := newBench(t)
	b.a.err = errors.New("the disk is full")
	for i := range recordsAtOnce + 3 {
		c := b.unlock(b.ask())
		c.ID = nonce(i + 1)
		b.gate.given = time.Now()
		b.asks = limiter{most: asksAtOnce, every: asksEvery}
		b.send(b.call(c, b.key), false)
		if got := b.last().Data.Command; got == nil || got.ID != c.ID {
			t.Fatalf("refusal %d: recorded last is %+v", i, got)
		}
	}
}

func TestADoorThatDoesNotRecordIsAFailedCommand(t *testing.T) {
	b := newBench(t)
	b.a.err = errors.New("the disk is full")
	b.send(b.call(b.unlock(b.ask()), b.key), false)
	if r := b.last(); r.Data.Command == nil || !strings.HasPrefix(r.Data.Command.Result, "refused: failed") {
		t.Errorf("recorded %+v", r.Data.Command)
	}
	// What the door itself has refused it has recorded itself.
	size := b.last().Data.Sequence
	b.a.err = door.ErrRefused
	b.send(b.call(b.unlock(b.ask()), b.key), false)
	if got := b.last().Data.Sequence; got != size {
		t.Error("it was recorded twice")
	}
}

func TestEveryActionOfTheWireIsOneOfADoor(t *testing.T) {
	known := map[door.Action]bool{door.UnlockOnce: true, door.SetThreat: true, door.Disable: true, door.Enable: true, door.Identify: true,
		door.ResetPassback: true, door.ResetOccupancy: true, door.GiveCode: true}
	for _, a := range wire.Actions() {
		if !known[door.Action(a)] {
			t.Errorf("%q is nothing that a door does", a)
		}
	}
	if len(known) != len(wire.Actions()) {
		t.Errorf("doors know %d actions, the wire %d", len(known), len(wire.Actions()))
	}
}

func TestRunTakesWhatIsHandedOver(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	payload, err := (&wire.Call{V: 1, Controller: "north-1"}).Marshal()
	must(t, err)
	b.Handle(wire.Message{Payload: payload})
	for b.Nonce() == "" {
		time.Sleep(time.Millisecond)
	}
	cancel()
	must(t, <-done)
}
