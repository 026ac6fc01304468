// Package ingest is the CRM's end of the sync: it takes what controllers
// send, hands it to the store, and answers with receipts.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

// Store is where records are kept; *central.Store is one.
type Store interface {
	// Ingest stores batches of one epoch, at most central.MaxRun.
	Ingest(ctx context.Context, run ...central.Batch) (central.Head, []central.Refusal, error)
	Report(ctx context.Context, r central.Report) (central.Head, central.Refusal, error)
	Early(ctx context.Context, b central.Batch) (kept int, err error)
	// Used is what a controller used up of late, the newest first.
	Used(ctx context.Context, controller string) ([]string, error)
	// May says whether a controller may send: nil, or an error that is
	// central.ErrUnknownController or central.ErrRevoked.
	May(ctx context.Context, controller string) error
}

// Publisher publishes an MQTT message. It returns when the broker has taken
// it or ctx has ended.
type Publisher interface {
	Publish(ctx context.Context, topic string, payload []byte, retained bool) error
}

// Options is what an Ingester needs from outside. Zero limits mean the
// defaults.
type Options struct {
	Store     Store
	Publisher Publisher
	Receipts  wire.Signer // with the typ wire.ReceiptType
	Logger    *slog.Logger

	Queue   int     // messages waiting, of each controller; default 32
	Rate    float64 // messages a second that are taken of each controller; default 250
	Burst   int     // messages taken at once beyond that; default 400
	Workers int     // messages dealt with or answered at the same time; default 4 × GOMAXPROCS
}

const (
	defaultQueue = 32
	defaultRate  = 250 // above an uplink at work
	defaultBurst = 400

	// maxQueued bounds the bytes that wait over all controllers.
	maxQueued = 64 << 20
	// maxLanes bounds how many controllers are kept track of.
	maxLanes = 10_000
	// mayFor is how long an answer of Store.May is believed before a message
	// is queued; the store itself looks again at each message.
	mayFor = 2 * time.Second

	publishWithin = 5 * time.Second
)

// Ingester takes messages from controllers. The messages of one controller
// are handled one after the other, in the order in which they came; those of
// different controllers take turns.
type Ingester struct {
	o Options

	mu     sync.Mutex
	lanes  map[string]*lane
	ready  []*lane // lanes with work that no worker holds, first come first served
	queued int     // bytes
	stats  Stats
	wake   chan struct{}
}

// lane is what is kept of one controller.
type lane struct {
	controller string
	queue      []queued
	busy       bool // on the ready list or with a worker
	tokens     float64
	filled     time.Time
	may        error
	asked      time.Time
}

type queued struct {
	kind     wire.Kind
	payload  []byte
	retained bool
}

// Stats counts since the start. Reasons for drops are the keys of Dropped.
type Stats struct {
	Batches  uint64 // handled, whatever became of them
	Records  uint64 // in the batches that were applied, duplicates too
	Early    uint64 // early records kept
	States   uint64
	Receipts uint64 // published
	Refused  map[string]uint64
	Dropped  map[string]uint64
	Queued   int // messages waiting now
}

// Why a message is dropped without an answer.
const (
	dropTopic      = "topic"      // not one that a controller writes
	dropUnknown    = "unknown"    // from a controller that may not send
	dropRate       = "rate"       // its controller sends too much
	dropFull       = "full"       // too many are waiting
	dropPayload    = "payload"    // not a valid payload
	dropController = "controller" // topic and payload name different controllers
	dropStore      = "store"      // the store failed
	dropPublish    = "publish"    // the receipt could not be published
)

// New returns an Ingester; Run sets it to work.
func New(o Options) *Ingester {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Queue <= 0 {
		o.Queue = defaultQueue
	}
	if o.Rate <= 0 {
		o.Rate = defaultRate
	}
	if o.Burst <= 0 {
		o.Burst = defaultBurst
	}
	if o.Workers <= 0 {
		o.Workers = 4 * runtime.GOMAXPROCS(0) // they wait for the disk and the broker
	}
	return &Ingester{
		o: o, lanes: map[string]*lane{}, wake: make(chan struct{}, o.Workers),
		stats: Stats{Refused: map[string]uint64{}, Dropped: map[string]uint64{}},
	}
}

// Stats returns a snapshot of the counters.
func (in *Ingester) Stats() Stats {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.stats
	s.Refused, s.Dropped = clone(s.Refused), clone(s.Dropped)
	for _, l := range in.lanes {
		s.Queued += len(l.queue)
	}
	return s
}

func clone(m map[string]uint64) map[string]uint64 {
	c := make(map[string]uint64, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// Handle queues a message or drops it; the controller sends again what it
// gets no receipt for. It does not wait for anything but a short look into
// the store.
func (in *Ingester) Handle(ctx context.Context, m wire.Message) {
	controller, kind, err := wire.ParseTopic(m.Topic)
	if err != nil || (kind != wire.KindRecords && kind != wire.KindState) {
		in.drop(dropTopic, controller, err)
		return
	}
	if len(m.Payload) > wire.MaxPayload {
		in.drop(dropPayload, controller, wire.ErrTooLarge)
		return
	}
	if err := in.may(ctx, controller); err != nil {
		in.drop(dropUnknown, controller, err)
		return
	}
	in.mu.Lock()
	reason := in.enqueue(controller, queued{kind, m.Payload, m.Retained}, time.Now())
	in.mu.Unlock()
	if reason != "" {
		in.drop(reason, controller, nil)
		return
	}
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// may asks the store whether a controller may send, and believes the answer
// for a moment.
func (in *Ingester) may(ctx context.Context, controller string) error {
	now := time.Now()
	in.mu.Lock()
	l := in.lanes[controller]
	known := l != nil && now.Sub(l.asked) < mayFor
	var err error
	if known {
		err = l.may
	}
	in.mu.Unlock()
	if known {
		return err
	}
	err = in.o.Store.May(ctx, controller)
	in.mu.Lock()
	defer in.mu.Unlock()
	if l = in.lanes[controller]; l == nil {
		if len(in.lanes) >= maxLanes {
			in.forget()
		}
		l = &lane{controller: controller, tokens: float64(in.o.Burst), filled: now}
		in.lanes[controller] = l
	}
	l.may, l.asked = err, now
	return err
}

// forget drops the lanes that wait for nothing.
func (in *Ingester) forget() {
	for name, l := range in.lanes {
		if !l.busy && len(l.queue) == 0 {
			delete(in.lanes, name)
		}
	}
}

// enqueue returns why the message was not queued, or nothing.
func (in *Ingester) enqueue(controller string, q queued, now time.Time) string {
	l := in.lanes[controller]
	if l == nil {
		return dropFull
	}
	l.tokens = min(float64(in.o.Burst), l.tokens+now.Sub(l.filled).Seconds()*in.o.Rate)
	l.filled = now
	if l.tokens < 1 {
		return dropRate
	}
	l.tokens--
	if len(l.queue) >= in.o.Queue || in.queued+len(q.payload) > maxQueued {
		return dropFull
	}
	l.queue = append(l.queue, q)
	in.queued += len(q.payload)
	if !l.busy {
		l.busy = true
		in.ready = append(in.ready, l)
	}
	return ""
}

func (in *Ingester) drop(reason, controller string, err error) {
	in.count(func(s *Stats) { s.Dropped[reason]++ })
	in.o.Logger.Debug("message dropped", "reason", reason, "controller", controller, "error", err)
}

func (in *Ingester) count(f func(*Stats)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	f(&in.stats)
}

// Run handles what was queued until ctx ends.
func (in *Ingester) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range in.o.Workers {
		wg.Go(func() { in.work(ctx) })
	}
	wg.Wait()
	return nil
}

func (in *Ingester) work(ctx context.Context) {
	for ctx.Err() == nil {
		l, run := in.take()
		if l == nil {
			select {
			case <-ctx.Done():
			case <-in.wake:
			}
			continue
		}
		receipts := in.handle(ctx, l.controller, run)
		// Others may go on with the lane while this one waits for the broker.
		// Receipts may so overtake each other: each says all that counts.
		in.release(l)
		for _, r := range receipts {
			in.answer(ctx, r)
		}
	}
}

// take returns the oldest messages of the lane whose turn it is, as many as
// may be stored together: what waited for the same commit shares the next.
// Nobody else gets any of that lane until release. There may be no such lane.
func (in *Ingester) take() (*lane, []queued) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.ready) == 0 {
		return nil, nil
	}
	l := in.ready[0]
	in.ready = in.ready[1:]
	n := min(len(l.queue), central.MaxRun)
	run := l.queue[:n:n]
	l.queue = l.queue[n:]
	for _, q := range run {
		in.queued -= len(q.payload)
	}
	return l, run
}

func (in *Ingester) release(l *lane) {
	in.mu.Lock()
	more := len(l.queue) > 0
	if l.busy = more; more {
		in.ready = append(in.ready, l)
	}
	in.mu.Unlock()
	if more {
		select {
		case in.wake <- struct{}{}:
		default:
		}
	}
}

// handle deals with messages in their order and returns the receipts that
// answer them. Batches of one epoch that follow each other go into the store
// together.
func (in *Ingester) handle(ctx context.Context, controller string, run []queued) (receipts []wire.Receipt) {
	var batches []central.Batch
	together := func() {
		if len(batches) > 0 {
			receipts = in.records(ctx, batches, receipts)
			batches = nil
		}
	}
	for _, q := range run {
		if q.kind == wire.KindState {
			together()
			receipts = in.state(ctx, controller, q.payload, receipts)
			continue
		}
		b, err := wire.ParseBatch(q.payload)
		if err == nil && b.Controller != controller {
			in.drop(dropController, controller, fmt.Errorf("payload is of controller %q", b.Controller))
			continue
		}
		if err != nil {
			in.drop(dropPayload, controller, err)
			continue
		}
		if b.Early || (len(batches) > 0 && batches[0].Epoch != b.Epoch) {
			together()
		}
		batch := central.Batch{Controller: controller, Epoch: b.Epoch, First: b.First, Records: b.Records, Checkpoint: b.Checkpoint}
		if b.Early {
			in.early(ctx, batch)
			continue
		}
		batches = append(batches, batch)
	}
	together()
	return receipts
}

// records stores batches of one epoch and adds the receipt for them. If some
// were taken and some were not, it comes twice: the first tells the controller
// how far it came, and the second, which brings nothing new, to send again.
func (in *Ingester) records(ctx context.Context, run []central.Batch, receipts []wire.Receipt) []wire.Receipt {
	controller, epoch := run[0].Controller, run[0].Epoch
	head, refusals, err := in.o.Store.Ingest(ctx, run...)
	in.count(func(s *Stats) {
		s.Batches += uint64(len(run))
		for i, refusal := range refusals {
			if refusal == central.Applied {
				s.Records += uint64(len(run[i].Records))
			} else {
				s.Refused[string(refusal)]++
			}
		}
	})
	if err != nil {
		for range run {
			in.failed(ctx, controller, err)
		}
		return receipts
	}
	for _, refusal := range refusals {
		in.refused("batch", controller, epoch, refusal)
	}
	r := receipt(head, "")
	isRefused := func(r central.Refusal) bool { return r != central.Applied }
	if slices.Contains(refusals, central.Applied) && slices.ContainsFunc(refusals, isRefused) {
		receipts = append(receipts, r)
	}
	return append(receipts, r)
}

// early keeps records that were sent ahead of their turn; there is no receipt
// for them.
func (in *Ingester) early(ctx context.Context, b central.Batch) {
	kept, err := in.o.Store.Early(ctx, b)
	if err != nil {
		in.failed(ctx, b.Controller, err)
		return
	}
	in.count(func(s *Stats) { s.Early += uint64(kept) })
}

// state handles a state and adds the receipt for it.
func (in *Ingester) state(ctx context.Context, controller string, payload []byte, receipts []wire.Receipt) []wire.Receipt {
	s, err := wire.ParseState(payload)
	if err != nil {
		in.drop(dropPayload, controller, err)
		return receipts
	}
	if s.Controller != controller {
		in.drop(dropController, controller, fmt.Errorf("payload is of controller %q", s.Controller))
		return receipts
	}
	head, refusal, err := in.o.Store.Report(ctx, central.Report{Controller: controller, Epoch: s.Epoch, Session: s.Session,
		Online: s.Online, Checkpoint: s.Checkpoint, Acknowledged: s.Acknowledged})
	in.count(func(st *Stats) {
		st.States++
		if err == nil && refusal != central.Applied {
			st.Refused[string(refusal)]++
		}
	})
	if err != nil {
		in.failed(ctx, controller, err)
		return receipts
	}
	if !s.Online {
		in.o.Logger.Info("controller is offline", "controller", controller)
		return receipts
	}
	in.refused("state", controller, s.Epoch, refusal)
	r := receipt(head, s.Name())
	// Only here: a card that was restored sends a state before anything else.
	used, err := in.o.Store.Used(ctx, controller)
	if err != nil {
		in.unanswered(ctx, dropStore, controller, err)
		return receipts
	}
	r.Used = append(r.Used, used[:min(len(used), wire.MaxUsed)]...)
	return append(receipts, r)
}

func (in *Ingester) refused(what, controller, epoch string, r central.Refusal) {
	if r != central.Applied && r != central.RefusedBeyond { // gaps come with every lost message
		in.o.Logger.Warn(what+" refused", "reason", string(r), "controller", controller, "epoch", epoch)
	}
}

// failed drops a message that the store would not or could not take.
func (in *Ingester) failed(ctx context.Context, controller string, err error) {
	if errors.Is(err, central.ErrUnknownController) || errors.Is(err, central.ErrRevoked) {
		in.drop(dropUnknown, controller, err)
		return
	}
	in.unanswered(ctx, dropStore, controller, err)
}

// unanswered drops a message that deserved an answer.
func (in *Ingester) unanswered(ctx context.Context, reason, controller string, err error) {
	if ctx.Err() == nil {
		in.o.Logger.Error("message not answered", "reason", reason, "controller", controller, "error", err)
	}
	in.drop(reason, controller, err)
}

func receipt(h central.Head, state string) wire.Receipt {
	return wire.Receipt{
		V: wire.Version, Controller: h.Controller, Epoch: h.Epoch, Size: h.Size, Checkpoint: h.Checkpoint,
		PolicyVersion: h.PolicyVersion, Used: []string{}, State: state,
	}
}

// answer signs a receipt and publishes it.
func (in *Ingester) answer(ctx context.Context, r wire.Receipt) {
	if err := in.publish(ctx, r); err != nil {
		in.unanswered(ctx, dropPublish, r.Controller, err)
		return
	}
	in.count(func(s *Stats) { s.Receipts++ })
}

// publish gives a receipt the time at which it is sent: controllers without a
// clock of their own set a floor by it.
func (in *Ingester) publish(ctx context.Context, r wire.Receipt) error {
	r.Time = time.Now().UTC().Truncate(time.Microsecond)
	jws, err := r.Sign(in.o.Receipts)
	if err != nil {
		return err
	}
	topic, err := wire.Topic(r.Controller, wire.KindReceipt)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishWithin)
	defer cancel()
	if err := in.o.Publisher.Publish(ctx, topic, []byte(jws), wire.KindReceipt.Retained()); err != nil {
		return fmt.Errorf("publish receipt: %w", err)
	}
	return nil
}
