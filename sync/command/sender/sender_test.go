package sender_test

import (
	"context"
	"crypto/tls"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/broker"
	"github.com/gatehouse-acs/gatehouse/sync/command/receiver"
	"github.com/gatehouse-acs/gatehouse/sync/command/sender"
	"github.com/gatehouse-acs/gatehouse/sync/mqtt"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func privateKey(t *testing.T) *keys.PrivateKey {
	t.Helper()
	text, err := keys.GenerateKey(keys.ES256)
	must(t, err)
	k, err := keys.ParsePrivateKey(text)
	must(t, err)
	return k
}

func signer(t *testing.T, typ string) *keys.Signer {
	t.Helper()
	text, err := keys.GenerateKey(keys.ES256)
	must(t, err)
	s, err := keys.ParseSigner(text, typ)
	must(t, err)
	return s
}

// site is a CRM's sender and a controller's receiver with the broker inside
// between them. What the door does not do by itself, its record, goes straight to
// the store of results.
type site struct {
	t         *testing.T
	sender    *sender.Sender
	crm       *mqtt.Conn
	root, key *keys.Signer
	authority []string
	log       *visitorlog.Log
	ca        *pki.Authority
	url       string

	mu       sync.Mutex
	receiver *receiver.Receiver
	obeyed   []door.Order
	results  map[string]central.Command
	revoked  bool
	kept     []wire.Message // that came down
}

func (s *site) May(context.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revoked {
		return central.ErrRevoked
	}
	return nil
}

func (s *site) Command(_ context.Context, _, id string) (central.Command, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.results[id]
	return c, ok, nil
}

func (s *site) Order(_ context.Context, o door.Order) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.obeyed = append(s.obeyed, o)
	if o.Why != "lost" {
		s.results[o.ID] = central.Command{Result: "done"}
	}
	return nil
}

func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.obeyed)
}

type clock struct{}

func (clock) Now() (time.Time, access.ClockState) { return time.Now(), access.ClockUnset }
func (clock) Floor() time.Time                    { return time.Time{} }

// run runs something until the test ends.
func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func (s *site) connect(name, subscription string, handle func(wire.Message)) *mqtt.Conn {
	s.t.Helper()
	key := privateKey(s.t)
	cert, err := s.ca.Client(name, key.Public(), time.Now(), time.Hour)
	must(s.t, err)
	config := pki.ClientTLS(tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key.Signer()}, s.ca.Certificate(), "127.0.0.1", time.Now)
	ready := make(chan struct{})
	c, err := mqtt.New(mqtt.Config{Broker: s.url, ClientID: name, TLS: func() (*tls.Config, error) { return config, nil },
		Subscriptions: []string{subscription}, OnConnect: func(context.Context) { close(ready) }})
	must(s.t, err)
	run(s.t, c.Run)
	run(s.t, func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case m := <-c.Messages():
				handle(m)
			}
		}
	})
	<-ready
	return c
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, results: map[string]central.Command{}, root: signer(t, keys.TypePolicy), key: signer(t, keys.TypeCommand)}
	certificate, err := keys.CertifyPolicyKey(s.root, s.key.JWK(), 1, time.Now(), time.Now().Add(time.Hour))
	must(t, err)
	s.authority = []string{certificate}
	s.ca, err = pki.NewAuthority(privateKey(t), "test", time.Now())
	must(t, err)
	key := privateKey(t)
	cert, err := s.ca.Server([]string{"127.0.0.1"}, key.Public(), time.Now(), time.Hour)
	must(t, err)
	b, err := broker.Listen(broker.Config{Listen: "127.0.0.1:0",
		TLS: pki.ServerTLS(tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key.Signer()}, s.ca.Certificate(), time.Now)})
	must(t, err)
	s.url = "tls://" + b.Addr().String()
	run(t, b.Run)

	dir := t.TempDir()
	_, err = keys.InitController(filepath.Join(dir, "keys"), keys.ES256)
	must(t, err)
	k, err := keys.LoadController(keys.File(filepath.Join(dir, "keys")))
	must(t, err)
	own, err := k.Log.Verifier(keys.TypeRecord)
	must(t, err)
	s.log, err = visitorlog.Open(dir, visitorlog.Options{
		Controller: "north-1", Signer: k.Log, Verifier: own, Note: k.Log.NoteSigner, NoteVerifier: k.Log.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			return time.Now(), visitorlog.Clock{State: access.ClockUnset, Boot: "boot", UptimeMS: 1}
		},
	})
	must(t, err)
	t.Cleanup(func() { must(t, s.log.Close()) })

	s.crm = s.connect(wire.CRM, wire.UpFilter(), func(m wire.Message) {
		if state, err := wire.ParseState(m.Payload); err == nil && !m.Retained {
			s.sender.Heard(state.Controller, state.Nonce)
		}
	})
	s.sender = sender.New(sender.Options{
		Store: s, Publisher: s.crm, NonceWithin: 2 * time.Second, AnswerWithin: time.Second, Look: time.Millisecond,
		Authority: func() (*sender.Authority, error) { return &sender.Authority{JWS: s.authority, Commands: s.key}, nil },
	})
	return s
}

// start connects the controller.
func (s *site) start() *mqtt.Conn {
	s.t.Helper()
	down, err := wire.DownFilter("north-1")
	must(s.t, err)
	s.restart(nil)
	conn := s.connect("north-1", down, func(m wire.Message) {
		s.mu.Lock()
		s.kept = append(s.kept, m)
		r := s.receiver
		s.mu.Unlock()
		r.Handle(m)
	})
	s.restart(conn)
	return conn
}

// restart is a new start of the controller's daemon.
func (s *site) restart(conn *mqtt.Conn) {
	s.t.Helper()
	var r *receiver.Receiver
	topic, err := wire.Topic("north-1", wire.KindState)
	must(s.t, err)
	number := uint64(0)
	r, err = receiver.New(receiver.Options{
		Controller: "north-1", Doors: map[string]receiver.Door{"a": s}, Clock: clock{}, Log: s.log,
		Verifier: func(authority []string) (wire.Verifier, error) {
			k, err := keys.OpenPolicyKey(s.root.JWK(), authority)
			if err != nil {
				return nil, err
			}
			return keys.NewVerifier(k.JWK, keys.TypeCommand)
		},
		Announce: func() {
			number++
			state := wire.State{V: 1, Controller: "north-1", Online: true, Session: epoch, Number: number, Epoch: epoch, Nonce: r.Nonce()}
			payload, err := state.Marshal()
			if err != nil {
				s.t.Error(err)
				return
			}
			if err := conn.Publish(context.Background(), topic, payload, true); err != nil {
				s.t.Error(err)
			}
		},
	})
	must(s.t, err)
	s.mu.Lock()
	s.receiver = r
	s.mu.Unlock()
	run(s.t, r.Run)
}

const epoch = "0123456789abcdef0123456789abcdef"

func unlock(why string) wire.Command {
	return wire.Command{Controller: "north-1", Action: wire.ActionUnlock, Door: "a", Operator: "guard-7", Why: why}
}

func TestACommandIsAnsweredByItsRecord(t *testing.T) {
	s := newSite(t)
	s.start()
	for range 3 { // each with a nonce of its own
		if _, c, err := s.sender.Send(t.Context(), unlock("INC-12")); err != nil || c.Result != "done" {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, _, err := s.sender.Send(t.Context(), unlock("INC-12")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := s.count(); got != 7 {
		t.Errorf("%d were obeyed, want 7", got)
	}
}

func TestWhatHappenedIsSaidWhereThereIsNoRecord(t *testing.T) {
	s := newSite(t)
	if _, _, err := s.sender.Send(t.Context(), unlock("INC-12")); !errors.Is(err, sender.ErrOffline) {
		t.Errorf("nobody is there: %v", err)
	}
	s.start()
	if id, _, err := s.sender.Send(t.Context(), unlock("lost")); !errors.Is(err, sender.ErrNoAnswer) || id == "" {
		t.Errorf("its record does not come: %q, %v", id, err)
	}
	if _, _, err := s.sender.Send(t.Context(), wire.Command{Controller: "north-1", Action: wire.ActionUnlock, Operator: "guard-7", Why: "x"}); err == nil {
		t.Error("an unlock of no door was sent")
	}
	s.mu.Lock()
	s.revoked = true
	s.mu.Unlock()
	if _, _, err := s.sender.Send(t.Context(), unlock("INC-12")); !errors.Is(err, central.ErrRevoked) {
		t.Errorf("to a revoked controller: %v", err)
	}
	if got := s.count(); got != 1 {
		t.Errorf("%d were obeyed, want 1", got)
	}
}

// TestAnOrderThatIsWrittenWrongDoesNotDelayTheNext: whoever mistypes a lockdown
// gives it again at once.
func TestAnOrderThatIsWrittenWrongDoesNotDelayTheNext(t *testing.T) {
	s := newSite(t)
	s.start()
	wrong := unlock("INC-12")
	wrong.Operator = "M. Jansen"
	if _, _, err := s.sender.Send(t.Context(), wrong); err == nil || errors.Is(err, sender.ErrOffline) {
		t.Errorf("an operator without an id: %v", err)
	}
	if _, _, err := s.sender.Send(t.Context(), unlock("INC-12")); err != nil {
		t.Errorf("the next: %v", err)
	}
}

// TestAQuestionThatIsLostIsAskedAgain: a controller answers only so many at once,
// and who gives orders to all its doors is not to be told that it is offline.
func TestAQuestionThatIsLostIsAskedAgain(t *testing.T) {
	s := newSite(t)
	s.start()
	for i := range 13 { // it answers 10 at once
		if _, _, err := s.sender.Send(t.Context(), unlock("INC-12")); err != nil {
			t.Fatalf("command %d: %v", i, err)
		}
	}
}

// TestWhatAnybodyKeptOfACommandIsObeyedNoMore replays what came over the broker:
// at once, after another command, and after a restart; and has the broker keep it.
func TestWhatAnybodyKeptOfACommandIsObeyedNoMore(t *testing.T) {
	s := newSite(t)
	conn := s.start()
	if _, _, err := s.sender.Send(t.Context(), unlock("INC-12")); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	command := s.kept[len(s.kept)-1]
	s.mu.Unlock()
	refused := func(why receiver.Refusal) {
		t.Helper()
		s.mu.Lock()
		r := s.receiver
		s.mu.Unlock()
		before := r.Status().Refused[why]
		must(t, s.crm.Publish(t.Context(), command.Topic, command.Payload, false))
		for end := time.Now().Add(30 * time.Second); r.Status().Refused[why] == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not refused as %s: %+v", why, r.Status())
			}
		}
	}
	refused(receiver.Replayed)
	if _, _, err := s.sender.Send(t.Context(), unlock("INC-12")); err != nil {
		t.Fatal(err)
	}
	refused(receiver.Replayed)
	s.restart(conn)
	refused(receiver.WrongNonce)
	if _, _, err := s.sender.Send(t.Context(), unlock("INC-12")); err != nil {
		t.Fatal(err)
	}
	refused(receiver.WrongNonce)

	// The broker inside keeps no command, whoever asks it to.
	s.mu.Lock()
	before := len(s.kept)
	s.mu.Unlock()
	must(t, s.crm.Publish(t.Context(), command.Topic, command.Payload, true))
	refused(receiver.WrongNonce) // comes behind it
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) != before+1 {
		t.Errorf("a retained command was passed on")
	}
	if len(s.obeyed) != 3 {
		t.Errorf("%d were obeyed, want 3", len(s.obeyed))
	}
}
