package ingest

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

const epoch = "0123456789abcdef0123456789abcdef"

// store notes what it is given, and does with it what the test wants. The
// real one is tested with the uplink.
type store struct {
	mu      sync.Mutex
	may     map[string]error
	batches []central.Batch
	runs    []int // how many batches came together
	refuse  map[uint64]central.Refusal
	reports []central.Report
	early   []central.Batch
	asked   int
	used    []string
	hold    func(controller string) // called without the lock
	fail    error
}

func (s *store) May(_ context.Context, controller string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	err, ok := s.may[controller]
	if !ok {
		return fmt.Errorf("%q: %w", controller, central.ErrUnknownController)
	}
	return err
}

func (s *store) Ingest(_ context.Context, run ...central.Batch) (central.Head, []central.Refusal, error) {
	last := run[len(run)-1]
	if s.hold != nil {
		s.hold(last.Controller)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return central.Head{}, nil, s.fail
	}
	s.batches = append(s.batches, run...)
	s.runs = append(s.runs, len(run))
	refusals := make([]central.Refusal, len(run))
	for i, b := range run {
		refusals[i] = s.refuse[b.First]
	}
	return central.Head{Controller: last.Controller, Epoch: last.Epoch, Size: last.First + uint64(len(last.Records)),
		Checkpoint: last.Checkpoint, PolicyVersion: 4}, refusals, nil
}

func (s *store) Report(_ context.Context, r central.Report) (central.Head, central.Refusal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return central.Head{}, "", s.fail
	}
	s.reports = append(s.reports, r)
	return central.Head{Controller: r.Controller, Epoch: r.Epoch}, central.RefusedFork, nil
}

func (s *store) Early(_ context.Context, b central.Batch) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return 0, s.fail
	}
	s.early = append(s.early, b)
	return len(b.Records), nil
}

func (s *store) Used(context.Context, string) ([]string, error) { return s.used, nil }

func (s *store) count(controller string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, b := range s.batches {
		if b.Controller == controller {
			n++
		}
	}
	return n
}

// published notes what is published.
type published struct {
	mu   sync.Mutex
	list []wire.Message
	err  error
}

func (p *published) Publish(_ context.Context, topic string, payload []byte, retained bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.list = append(p.list, wire.Message{Topic: topic, Payload: payload, Retained: retained})
	return nil
}

type rig struct {
	*Ingester
	store    *store
	out      *published
	receipts wire.Verifier
}

// newRig starts an ingester in the test's bubble, with the controllers a and b.
func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := keys.NewCosigner(key, "crm.example")
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Public().Receipts()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{store: &store{may: map[string]error{"a": nil, "b": nil, "gone": central.ErrRevoked}}, out: &published{}, receipts: v}
	o.Store, o.Publisher, o.Receipts = r.store, r.out, c.Receipts()
	r.Ingester = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func batchOf(controller string, first uint64, change ...func(*wire.Batch)) wire.Message {
	b := &wire.Batch{V: 1, Controller: controller, Epoch: epoch, First: first, Records: []string{"x.y.z"}, Checkpoint: "note"}
	for _, c := range change {
		c(b)
	}
	payload, err := b.Marshal()
	if err != nil {
		panic(err)
	}
	return wire.Message{Topic: "gatehouse/" + controller + "/up/records", Payload: payload}
}

func stateOf(controller string, online bool) wire.Message {
	s := &wire.State{V: 1, Controller: controller, Online: online, Session: epoch, Number: 1, Epoch: epoch, Time: time.Now().UTC()}
	payload, err := s.Marshal()
	if err != nil {
		panic(err)
	}
	return wire.Message{Topic: "gatehouse/" + controller + "/up/state", Payload: payload}
}

func TestEachBatchAndStateIsAnsweredAfterTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		r.Handle(t.Context(), batchOf("a", 7))
		synctest.Wait()
		r.Handle(t.Context(), stateOf("b", true))
		synctest.Wait()
		if len(r.out.list) != 2 {
			t.Fatalf("%d receipts, want 2", len(r.out.list))
		}
		for i, want := range []wire.Receipt{
			{V: 1, Controller: "a", Epoch: epoch, Size: 8, Checkpoint: "note", PolicyVersion: 4, Used: []string{}},
			{V: 1, Controller: "b", Epoch: epoch, Used: []string{}, State: epoch + ".1"},
		} {
			m := r.out.list[i]
			got, err := wire.OpenReceipt(string(m.Payload), r.receipts)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Time.Equal(time.Now()) {
				t.Errorf("receipt of %v at %v", got.Time, time.Now())
			}
			got.Time = time.Time{}
			if fmt.Sprint(*got) != fmt.Sprint(want) || m.Topic != "gatehouse/"+want.Controller+"/down/receipt" || m.Retained {
				t.Errorf("receipt %+v on %q, retained %v; want %+v", got, m.Topic, m.Retained, want)
			}
		}
		s := r.Stats()
		if s.Batches != 1 || s.Records != 1 || s.States != 1 || s.Receipts != 2 || s.Refused["fork"] != 1 || len(s.Dropped) != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestNothingIsReceiptedThatWasNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		r.store.fail = errors.New("disk full")
		r.Handle(t.Context(), batchOf("a", 0))
		r.Handle(t.Context(), stateOf("a", true))
		early := func(b *wire.Batch) { b.Early, b.Checkpoint = true, "" }
		r.Handle(t.Context(), batchOf("a", 5, early))
		synctest.Wait()
		r.store.fail = nil
		r.Handle(t.Context(), batchOf("a", 5, early)) // stored, but aside
		r.Handle(t.Context(), stateOf("a", false))    // nobody is there to answer
		synctest.Wait()
		if len(r.out.list) != 0 {
			t.Errorf("%d receipts, want none", len(r.out.list))
		}
		if s := r.Stats(); s.Dropped["store"] != 3 || s.Early != 1 || len(r.store.early) != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestWhatIsNotAControllersOwnIsDroppedWithItsReason(t *testing.T) {
	good := batchOf("a", 0)
	with := func(topic string, payload []byte) wire.Message { return wire.Message{Topic: topic, Payload: payload} }
	for _, tt := range []struct {
		name, reason string
		m            wire.Message
	}{
		{"no topic", "topic", with("", good.Payload)},
		{"wildcard", "topic", with("gatehouse/+/up/records", good.Payload)},
		{"its own receipts", "topic", with("gatehouse/a/down/receipt", good.Payload)},
		{"a kind of another part", "topic", with("gatehouse/a/up/fetch", good.Payload)},
		{"unknown controller", "unknown", batchOf("c", 0)},
		{"revoked controller", "unknown", batchOf("gone", 0)},
		{"another's payload", "controller", with("gatehouse/b/up/records", good.Payload)},
		{"another's state", "controller", with("gatehouse/b/up/state", stateOf("a", true).Payload)},
		{"a batch as state", "payload", with("gatehouse/a/up/state", good.Payload)},
		{"a state as batch", "payload", with("gatehouse/a/up/records", stateOf("a", true).Payload)},
		{"nothing", "payload", with("gatehouse/a/up/records", nil)},
		{"not JSON", "payload", with("gatehouse/a/up/records", []byte("hello"))},
		{"nested", "payload", with("gatehouse/a/up/records", []byte(strings.Repeat("[", 100_000)))},
		{"too large", "payload", with("gatehouse/a/up/records", make([]byte, wire.MaxPayload+1))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Options{})
				r.Handle(t.Context(), tt.m)
				synctest.Wait()
				if s := r.Stats(); len(s.Dropped) != 1 || s.Dropped[tt.reason] != 1 {
					t.Errorf("dropped %v, want one for %q", s.Dropped, tt.reason)
				}
				if len(r.store.batches)+len(r.store.reports)+len(r.store.early)+len(r.out.list) != 0 {
					t.Error("it reached the store, or was answered")
				}
			})
		})
	}
}

func TestMessagesOfAControllerKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Workers: 8, Queue: 200})
		r.store.hold = func(string) { time.Sleep(time.Millisecond) }
		for i := range uint64(100) {
			r.Handle(t.Context(), batchOf("a", i))
			r.Handle(t.Context(), batchOf("b", i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for _, name := range []string{"a", "b"} {
			var got []uint64
			for _, b := range r.store.batches {
				if b.Controller == name {
					got = append(got, b.First)
				}
			}
			if len(got) != 100 || !slices.IsSorted(got) {
				t.Errorf("%s: %v, want 0 to 99 in order", name, got)
			}
		}
	})
}

// What waits for one commit shares the next, as far as it is of one epoch and
// nothing else stands between; the order stays.
func TestBatchesThatWaitTogetherAreStoredTogetherAndHaveOneReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Workers: 1})
		r.store.hold = func(string) { time.Sleep(time.Second) }
		next := strings.Repeat("e", 32)
		ofNext := func(b *wire.Batch) { b.Epoch = next }
		early := func(b *wire.Batch) { b.Early, b.Checkpoint = true, "" }
		r.Handle(t.Context(), batchOf("a", 0))
		synctest.Wait() // it is with the store
		for _, m := range []wire.Message{
			batchOf("a", 1), batchOf("a", 2), batchOf("a", 90, early), batchOf("a", 3), stateOf("a", true),
			batchOf("a", 4), batchOf("a", 0, ofNext), batchOf("a", 1, ofNext), batchOf("a", 2, ofNext), batchOf("a", 3, ofNext),
		} {
			r.Handle(t.Context(), m)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		// The ninth of those that waited begins another run: MaxRun is eight.
		if want := []int{1, 2, 1, 1, 2, 2}; !slices.Equal(r.store.runs, want) {
			t.Errorf("stored together: %v, want %v", r.store.runs, want)
		}
		var got []string
		for _, m := range r.out.list {
			p, err := wire.OpenReceipt(string(m.Payload), r.receipts)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%.1s %d %v", p.Epoch, p.Size, p.State != ""))
		}
		want := []string{"0 1 false", "0 3 false", "0 4 false", "0 0 true", "0 5 false", "e 2 false", "e 4 false"}
		if !slices.Equal(got, want) {
			t.Errorf("receipts %q, want %q", got, want)
		}
		if s := r.Stats(); s.Batches != 9 || s.Records != 9 || s.Early != 1 || s.States != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A controller sends again what was lost when a receipt brings nothing new, so
// one receipt for some that were taken and some that were not would hide that.
func TestARunThatWasTakenInPartIsAnsweredTwice(t *testing.T) {
	for _, tt := range []struct {
		name   string
		refuse []uint64
		want   int
	}{{"all taken", nil, 1}, {"one refused", []uint64{2}, 2}, {"two refused", []uint64{1, 3}, 2}, {"all refused", []uint64{1, 2, 3}, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Options{Workers: 1})
				r.store.hold = func(string) { time.Sleep(time.Second) }
				r.store.refuse = map[uint64]central.Refusal{}
				for _, first := range tt.refuse {
					r.store.refuse[first] = central.RefusedBeyond
				}
				r.Handle(t.Context(), batchOf("a", 0))
				synctest.Wait()
				for first := range uint64(3) {
					r.Handle(t.Context(), batchOf("a", first+1))
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if s := r.Stats(); !slices.Equal(r.store.runs, []int{1, 3}) || s.Receipts != uint64(1+tt.want) ||
					s.Refused["beyond"] != uint64(len(tt.refuse)) || s.Records != uint64(4-len(tt.refuse)) {
					t.Errorf("stored together %v, stats %+v; want %d receipts for the three", r.store.runs, s, tt.want)
				}
			})
		})
	}
}

// One that cannot be read stops none of those beside it.
func TestABadMessageAmongBatchesIsDroppedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Workers: 1})
		r.store.hold = func(string) { time.Sleep(time.Second) }
		r.Handle(t.Context(), batchOf("a", 0))
		synctest.Wait()
		other := batchOf("b", 2)
		other.Topic = "gatehouse/a/up/records"
		for _, m := range []wire.Message{batchOf("a", 1), {Topic: "gatehouse/a/up/records", Payload: []byte("{")}, other, batchOf("a", 2)} {
			r.Handle(t.Context(), m)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.Stats(); !slices.Equal(r.store.runs, []int{1, 2}) || s.Dropped["payload"] != 1 || s.Dropped["controller"] != 1 || s.Receipts != 2 {
			t.Errorf("stored together %v, stats %+v", r.store.runs, s)
		}
	})
}

func TestAControllerThatIsStuckDoesNotStopAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Workers: 2})
		release := make(chan struct{})
		r.store.hold = func(c string) {
			if c == "a" {
				<-release
			}
		}
		for i := range uint64(10) {
			r.Handle(t.Context(), batchOf("a", i))
		}
		for i := range uint64(10) {
			r.Handle(t.Context(), batchOf("b", i))
		}
		synctest.Wait()
		if a, b := r.store.count("a"), r.store.count("b"); a != 0 || b != 10 {
			t.Errorf("%d batches of the stuck controller and %d of the other, want 0 and 10", a, b)
		}
		close(release)
		synctest.Wait()
		if a := r.store.count("a"); a != 10 {
			t.Errorf("%d batches after it went on, want 10", a)
		}
	})
}

// With one worker, whoever waits gets the next turn, however much the other
// has queued.
func TestControllersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Workers: 1})
		r.store.hold = func(string) { time.Sleep(time.Second) }
		for i := range uint64(20) {
			r.Handle(t.Context(), batchOf("a", i))
		}
		time.Sleep(1500 * time.Millisecond)
		r.Handle(t.Context(), batchOf("b", 0))
		time.Sleep(2 * time.Second)
		if n := r.store.count("b"); n != 1 {
			t.Errorf("the second controller still waits behind the first's queue")
		}
	})
}

func TestABabblingControllerIsLimitedAloneAndHeardAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Rate: 10, Burst: 20, Queue: 1000})
		for i := range uint64(100) {
			r.Handle(t.Context(), batchOf("a", i))
		}
		r.Handle(t.Context(), batchOf("b", 0))
		synctest.Wait()
		if a, b, s := r.store.count("a"), r.store.count("b"), r.Stats(); a != 20 || b != 1 || s.Dropped["rate"] != 80 {
			t.Errorf("%d and %d batches, dropped %v; want 20, 1 and 80", a, b, s.Dropped)
		}
		time.Sleep(time.Second)
		for i := range uint64(100) {
			r.Handle(t.Context(), batchOf("a", i))
		}
		synctest.Wait()
		if a := r.store.count("a"); a != 30 {
			t.Errorf("%d batches a second later, want 30", a)
		}
	})
}

func TestTheQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Workers: 1, Queue: 5})
		release := make(chan struct{})
		r.store.hold = func(string) { <-release }
		for i := range uint64(50) {
			r.Handle(t.Context(), batchOf("a", i))
			synctest.Wait()
		}
		if s := r.Stats(); s.Queued != 5 || s.Dropped["full"] != 44 {
			t.Errorf("%d waiting, dropped %v; want 5 and 44", s.Queued, s.Dropped)
		}
		close(release)
		synctest.Wait()
		if s := r.Stats(); s.Queued != 0 || s.Batches != 6 {
			t.Errorf("%d waiting, %d handled; want 0 and 6", s.Queued, s.Batches)
		}
	})
}

// The store is not asked about a controller for each message, and a
// revocation is heeded soon all the same.
func TestARevocationIsHeededWithinSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		for i := range uint64(10) {
			r.Handle(t.Context(), batchOf("a", i))
		}
		synctest.Wait()
		if r.store.asked != 1 {
			t.Errorf("the store was asked %d times, want once", r.store.asked)
		}
		r.store.may["a"] = central.ErrRevoked
		time.Sleep(mayFor)
		r.Handle(t.Context(), batchOf("a", 10))
		synctest.Wait()
		if n, s := r.store.count("a"), r.Stats(); n != 10 || s.Dropped["unknown"] != 1 {
			t.Errorf("%d batches, dropped %v; want 10 and one", n, s.Dropped)
		}
	})
}

func TestAReceiptThatCannotBePublishedIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		r.out.err = errors.New("no connection")
		r.Handle(t.Context(), batchOf("a", 0))
		synctest.Wait()
		if s := r.Stats(); s.Dropped["publish"] != 1 || s.Receipts != 0 {
			t.Errorf("stats %+v, want one receipt not published", s)
		}
	})
}

func FuzzHandle(f *testing.F) {
	for _, m := range []wire.Message{batchOf("a", 0), stateOf("a", true), stateOf("a", false)} {
		f.Add(m.Topic, m.Payload)
	}
	f.Add("gatehouse/a/up/records", []byte(`{"v":1}`))
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	c, err := keys.NewCosigner(key, "crm.example")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		s := &store{may: map[string]error{"a": nil}}
		out := &published{}
		in := New(Options{Store: s, Publisher: out, Receipts: c.Receipts()})
		in.Handle(t.Context(), wire.Message{Topic: topic, Payload: payload})
		if l, run := in.take(); l != nil {
			for _, r := range in.handle(t.Context(), l.controller, run) {
				in.answer(t.Context(), r)
			}
		}
		for _, m := range out.list {
			if m.Topic != "gatehouse/a/down/receipt" {
				t.Errorf("%q on %q was answered on %q", payload, topic, m.Topic)
			}
		}
		for _, b := range s.batches {
			if b.Controller != "a" {
				t.Errorf("%q on %q reached the store as %q's", payload, topic, b.Controller)
			}
		}
	})
}
