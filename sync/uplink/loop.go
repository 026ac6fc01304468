package uplink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/tlog"
)

// loop is the uplink's one goroutine that decides. It is in one of two
// phases. While asking, it has published its state and waits for the receipt
// that answers just that state: only then does it know what the CRM holds.
// Once synced, it keeps a window of batches in flight after that, and the
// receipts move the window. When a receipt stays out, it asks again.
type loop struct {
	u   *Uplink
	ctx context.Context

	synced   bool
	epoch    string
	head     uint64
	acked    uint64   // what the CRM is known to hold
	next     uint64   // the first record not yet sent
	inFlight []uint64 // the ends of the batches sent and not receipted, rising

	number     uint64 // of the last state
	state      string // its name
	unanswered int    // states in a row
	wait       time.Duration
	deadline   *time.Timer // for the receipt that is due, if one is
	heartbeat  *time.Timer
	again      *time.Timer // when the rate or the gap between early batches allows more
	againAt    time.Time   // zero: not set
	rewound    bool        // sending went back since the last progress
	silent     bool        // the outage was logged
	overdueAt  time.Time   // when the receipt first stayed out that is still due; zero: none is
	down       bool        // the last message could not be published

	earlySent uint64 // records below this were sent, early or in their turn
	earlyAt   time.Time
	tokens    float64
	filled    time.Time

	aside aside

	out  chan wire.Message
	acks chan visitorlog.Receipt
}

// Run sends what the log holds and will hold, until ctx ends.
func (u *Uplink) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{
		u: u, ctx: ctx, wait: u.o.Deadline, tokens: burst, filled: time.Now(),
		deadline: stopped(), heartbeat: stopped(), again: stopped(), aside: aside{due: stopped()},
		out: make(chan wire.Message, u.o.Window+2), acks: make(chan visitorlog.Receipt, 1),
	}
	ended := make(chan struct{}, 2)
	go func() { l.send(); ended <- struct{}{} }()
	go func() { l.acknowledge(); ended <- struct{}{} }()
	defer func() {
		cancel()
		<-ended
		<-ended
		l.closeAside()
		for _, t := range []*time.Timer{l.deadline, l.heartbeat, l.again, l.aside.due} {
			t.Stop()
		}
	}()
	l.ask()
	for ctx.Err() == nil {
		appended := u.o.Log.Appended() // before the look at what there is
		l.fill()
		l.report()
		select {
		case <-ctx.Done():
		case <-appended:
		case <-u.connected:
			if l.down { // else the CRM did not answer on the last connection either
				l.down, l.wait, l.unanswered = false, u.o.Deadline, 0
			}
			l.ask()
		case <-u.announce:
			l.publishState()
		case payload := <-u.receipts:
			l.receive(payload)
		case r := <-u.diverged:
			l.reconcile(r)
		case err := <-u.failed:
			u.set(func(s *Status) { s.LastError = err.Error() })
			l.lost()
		case <-l.deadline.C:
			l.overdue()
		case <-l.heartbeat.C:
			l.beat()
		case <-l.aside.due.C:
			l.overdueAside()
		case <-l.again.C:
		}
	}
	return nil
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// report publishes the loop's view for Status.
func (l *loop) report() {
	l.u.set(func(s *Status) {
		s.Synced, s.Epoch, s.Head, s.Acknowledged, s.InFlight = l.synced, l.epoch, l.head, min(l.acked, l.head), len(l.inFlight)
		s.Overdue = l.overdueAt
		s.Owed = 0
		if l.aside.db != nil {
			s.Owed = l.aside.db.Owed()
		}
	})
}

// look reads the log's head. A new epoch starts everything over.
func (l *loop) look() bool {
	h, err := l.u.o.Log.Head(l.ctx)
	if err != nil {
		l.fault("read the log's head", err)
		return false
	}
	if h.Epoch != l.epoch {
		l.epoch = h.Epoch
		l.acked, l.next, l.earlySent, l.inFlight, l.synced = 0, 0, 0, nil, false
	}
	l.head = h.Size
	return true
}

func (l *loop) fault(what string, err error) {
	if l.ctx.Err() != nil {
		return
	}
	l.u.o.Logger.Error("uplink: "+what, "error", err)
	l.u.set(func(s *Status) { s.LastError = fmt.Sprintf("%s: %v", what, err) })
}

// ask publishes the state and waits for the receipt that answers it.
func (l *loop) ask() {
	l.synced = false
	l.inFlight = nil
	l.aside.end = 0
	l.heartbeat.Stop()
	l.deadline.Reset(jitter(l.wait))
	l.publishState()
}

func (l *loop) publishState() {
	if !l.look() {
		return
	}
	s := wire.State{
		V: wire.Version, Controller: l.u.o.Controller, Online: true, Session: l.u.session, Number: l.number + 1,
		Time: time.Now().UTC().Truncate(time.Microsecond), Epoch: l.epoch, Acknowledged: l.u.o.Log.Acknowledged(),
	}
	if l.head > 0 {
		var err error
		if s.Checkpoint, err = l.u.o.Log.Checkpoint(l.ctx, l.head); err != nil {
			l.fault("sign the head", err)
			return
		}
	}
	if l.u.o.Policy != nil {
		s.PolicyVersion = l.u.o.Policy()
	}
	if l.u.o.Clock != nil {
		c := l.u.o.Clock()
		s.Clock = &c
	}
	if l.u.o.Nonce != nil {
		s.Nonce = l.u.o.Nonce()
	}
	b, err := s.Marshal()
	if err != nil {
		l.fault("write the state", err)
		return
	}
	l.number++
	l.state = s.Name()
	if l.enqueue(wire.Message{Topic: l.u.topics.state, Payload: b, Retained: wire.KindState.Retained()}) {
		l.u.set(func(s *Status) { s.States++ })
	}
}

// enqueue hands a message to the sender, unless that is behind: then the
// deadline will bring it again.
func (l *loop) enqueue(m wire.Message) bool {
	select {
	case l.out <- m:
		return true
	default:
		return false
	}
}

// send publishes what the loop decided, in order.
func (l *loop) send() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case m := <-l.out:
			err := l.u.o.Publisher.Publish(l.ctx, m.Topic, m.Payload, m.Retained)
			if err == nil || l.ctx.Err() != nil {
				continue
			}
			select {
			case l.u.failed <- err:
			default:
			}
		}
	}
}

// lost takes note that a message was not published. A new connection, or the
// deadline, starts over.
func (l *loop) lost() {
	l.down = true
	if l.synced {
		l.synced = false
		l.inFlight = nil
		l.heartbeat.Stop()
		l.deadline.Reset(jitter(l.wait))
	}
}

// overdue asks again, each time a little later.
func (l *loop) overdue() {
	if l.down { // it is the connection, not the CRM
		l.down = false // unless the next message fails too
		l.wait = l.u.o.Deadline
		l.ask()
		return
	}
	if l.synced {
		l.u.set(func(s *Status) { s.Resent++ })
	} else if l.unanswered++; l.unanswered%silentStates == 0 && l.u.o.Silent != nil {
		l.u.o.Silent()
	}
	if l.overdueAt.IsZero() {
		l.overdueAt = time.Now()
	}
	if !l.silent {
		l.silent = true
		l.u.o.Logger.Warn("no receipt from the CRM, asking again until one comes", "acknowledged", l.acked, "head", l.head)
	}
	l.wait = min(2*l.wait, l.u.o.MaxDeadline)
	l.ask()
}

// beat publishes the state on a connection in good order, so that the CRM
// knows that the controller lives, and the controller that receipts arrive.
func (l *loop) beat() {
	l.heartbeat.Reset(l.u.o.StateEvery)
	if len(l.inFlight) > 0 {
		return // their receipts tell as much
	}
	l.deadline.Reset(jitter(l.wait))
	l.publishState()
}

// jitter spreads the controllers that lost the same CRM at the same time.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/4+1) }

// receive looks at a receipt.
func (l *loop) receive(payload []byte) {
	r, root, err := l.open(payload)
	if err != nil {
		l.u.o.Logger.Warn("receipt refused", "error", err)
		l.u.set(func(s *Status) { s.Bad++; s.LastError = err.Error() })
		return
	}
	l.u.set(func(s *Status) { s.Receipts++; s.LastReceipt = time.Now(); s.ReceiptTime = r.Time })
	if l.u.o.Received != nil {
		l.u.o.Received(r.Time, r.PolicyVersion)
	}
	if l.u.o.Used != nil && len(r.Used) > 0 {
		l.u.o.Used(r.Used)
	}
	kept := visitorlog.Receipt{Epoch: r.Epoch, Size: r.Size, Root: root, Checkpoint: r.Checkpoint,
		Time: r.Time, PolicyVersion: r.PolicyVersion, JWS: string(payload)}
	if db := l.aside.db; db != nil && r.Epoch == db.Epoch() {
		l.receiveAside(kept)
		return
	}
	if !l.look() || r.Epoch != l.epoch {
		return // of an epoch before, of which nothing is owed
	}
	if r.Size > 0 {
		if !l.ours(kept) {
			l.reconcile(kept)
			return
		}
		l.keep(kept)
		l.u.o.Logger.Debug("receipt", "size", r.Size)
	}
	// An answer to a state alone is not enough: a broker may pass states on and
	// drop records.
	if r.Size > l.acked || r.Size == l.head {
		l.overdueAt = time.Time{}
	}
	if l.silent && l.overdueAt.IsZero() {
		l.silent = false
		l.u.o.Logger.Info("the CRM answers again", "stored", r.Size, "head", l.head)
	}
	switch {
	case r.State != "" && r.State == l.state && !l.synced:
		// What the CRM says it holds is so, even if it held more before.
		if had := l.u.o.Log.Acknowledged(); r.Size < had {
			l.u.o.Logger.Warn("the CRM holds fewer records than it had countersigned: was it restored from a backup? They are sent again",
				"epoch", l.epoch, "stored", r.Size, "countersigned", had)
		}
		l.synced, l.rewound, l.unanswered = true, false, 0
		if l.overdueAt.IsZero() {
			l.wait = l.u.o.Deadline
		}
		l.acked, l.next, l.inFlight = r.Size, r.Size, nil
		l.deadline.Stop()
		l.heartbeat.Reset(l.u.o.StateEvery)
	case !l.synced:
	case r.Size > l.acked:
		l.progress(r.Size)
	case r.State != "":
		if len(l.inFlight) == 0 {
			l.deadline.Stop()
		}
	case r.Size == l.acked && len(l.inFlight) > 0 && !l.rewound:
		// A batch arrived and the CRM holds no more than before: one before
		// it was lost. Once is enough until there is progress; if that was
		// not it, the deadline decides.
		l.rewound = true
		l.next, l.inFlight = l.acked, nil
		l.u.set(func(s *Status) { s.Resent++ })
	}
}

// progress moves the window.
func (l *loop) progress(size uint64) {
	l.acked, l.rewound, l.wait = size, false, l.u.o.Deadline
	l.next = max(l.next, size)
	n := 0
	for n < len(l.inFlight) && l.inFlight[n] <= size {
		n++
	}
	l.inFlight = l.inFlight[n:]
	if len(l.inFlight) == 0 {
		l.deadline.Stop()
	} else {
		l.deadline.Reset(jitter(l.wait))
	}
}

// open verifies a receipt: signed by the pinned key, for this controller, and
// its checkpoint signed by our own log and by the cosigner.
func (l *loop) open(payload []byte) (*wire.Receipt, tlog.Hash, error) {
	r, err := wire.OpenReceipt(string(payload), l.u.o.Receipts)
	if err != nil {
		return nil, tlog.Hash{}, err
	}
	if r.Controller != l.u.o.Controller {
		return nil, tlog.Hash{}, fmt.Errorf("receipt is for controller %q", r.Controller)
	}
	if r.Size == 0 {
		return r, tlog.Hash{}, nil
	}
	origin := visitorlog.Origin(r.Controller, r.Epoch)
	own, err := l.u.o.Own(origin)
	if err != nil {
		return nil, tlog.Hash{}, fmt.Errorf("receipt: %w", err)
	}
	c, err := visitorlog.OpenCheckpoint(r.Checkpoint, own)
	if err != nil {
		return nil, tlog.Hash{}, fmt.Errorf("receipt without our own signature: %w", err)
	}
	if _, err := visitorlog.OpenCheckpoint(r.Checkpoint, l.u.o.Cosigner); err != nil {
		return nil, tlog.Hash{}, fmt.Errorf("receipt without the CRM's cosignature: %w", err)
	}
	if c.Origin != origin || c.Size != r.Size {
		return nil, tlog.Hash{}, fmt.Errorf("receipt for size %d of epoch %s has a checkpoint of size %d of %q", r.Size, r.Epoch, c.Size, c.Origin)
	}
	return r, c.Root, nil
}

// ours reports whether the log agrees with a receipt of its epoch.
func (l *loop) ours(r visitorlog.Receipt) bool {
	if r.Size > l.head {
		return false
	}
	root, err := l.u.o.Log.Root(l.ctx, r.Size)
	if err != nil {
		l.fault("read the log's root", err)
		return false
	}
	return root == r.Root
}

// reconcile gives a receipt that contradicts the log to the log, which sets
// its database aside and begins a new epoch.
func (l *loop) reconcile(r visitorlog.Receipt) {
	begun, err := l.u.o.Log.Reconcile(l.ctx, r)
	if err != nil {
		l.fault("reconcile the log with the CRM", err)
		return
	}
	if begun {
		l.u.o.Logger.Error("the log contradicts what the CRM countersigned: a new epoch was begun", "epoch", r.Epoch, "size", r.Size, "head", l.head)
		l.ask()
	}
}

// keep hands a receipt to the goroutine that writes it to the log. Only the
// newest counts.
func (l *loop) keep(r visitorlog.Receipt) {
	select {
	case waiting := <-l.acks:
		if waiting.Epoch == r.Epoch && waiting.Size > r.Size {
			r = waiting // they may come out of order
		}
	default:
	}
	l.acks <- r // this goroutine alone sends, and has made room
}

// acknowledge writes receipts to the log, not too often: each costs a card
// several writes, and losing one costs only sending a little again.
func (l *loop) acknowledge() {
	for {
		var r visitorlog.Receipt
		select {
		case <-l.ctx.Done():
			l.acknowledgeLast()
			return
		case r = <-l.acks:
		}
		switch err := l.u.o.Log.Acknowledge(l.ctx, r); {
		case errors.Is(err, visitorlog.ErrDiverged):
			select {
			case l.u.diverged <- r:
			default:
			}
		case errors.Is(err, visitorlog.ErrEpoch), err == nil:
		default:
			l.fault("keep a receipt", err)
		}
		pause := time.NewTimer(l.u.o.AckEvery)
		select {
		case <-l.ctx.Done():
			pause.Stop()
			l.acknowledgeLast()
			return
		case <-pause.C:
		}
	}
}

// acknowledgeLast keeps the receipt that still waits when the uplink ends, so
// that the next start does not begin with what was receipted.
func (l *loop) acknowledgeLast() {
	select {
	case r := <-l.acks:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), time.Second)
		defer cancel()
		if err := l.u.o.Log.Acknowledge(ctx, r); err != nil {
			l.u.o.Logger.Warn("last receipt not kept", "error", err)
		}
	default:
	}
}

// fill sends batches until the window or the rate is used up, and the newest
// records early if they would have to wait.
func (l *loop) fill() {
	l.again.Stop()
	l.againAt = time.Time{}
	before := l.epoch
	if !l.look() {
		l.retry(l.u.o.Deadline)
		return
	}
	if l.epoch != before {
		l.ask()
	}
	for l.synced && l.next < l.head && len(l.inFlight) < l.u.o.Window {
		if wait := l.spend(); wait > 0 {
			l.retry(wait)
			break
		}
		b, err := l.batch(l.next, wire.MaxBatchRecords)
		if err == nil {
			b.Checkpoint, err = l.u.o.Log.Checkpoint(l.ctx, b.End())
		}
		if err != nil {
			if l.damaged(err) {
				return
			}
			l.fault("read the log", err)
			l.retry(l.u.o.Deadline)
			break // what can be read is still seen early
		}
		if !l.publish(b) {
			l.retry(l.u.o.EarlyEvery) // the sender is behind
			break
		}
		if len(l.inFlight) == 0 {
			l.deadline.Reset(jitter(l.wait))
		}
		l.next = b.End()
		l.inFlight = append(l.inFlight, l.next)
		l.u.set(func(s *Status) { s.Batches++ })
	}
	l.early()
	l.drain()
	l.carry()
}

// damaged gives an error to the log that says that a record cannot be read
// back. If that is so, a new epoch was begun, and what can be read of the old
// one is sent as set aside.
func (l *loop) damaged(err error) bool {
	var fault *visitorlog.Fault
	if !errors.As(err, &fault) {
		return false
	}
	begun, derr := l.u.o.Log.Damaged(l.ctx)
	if derr != nil {
		l.fault("examine the log", derr)
		return false
	}
	if begun {
		l.u.o.Logger.Error("the log cannot be read back: a new epoch was begun", "epoch", l.epoch, "error", err)
		l.ask()
	}
	return begun
}

// retry has fill look again after d, or sooner if something else wants that.
func (l *loop) retry(d time.Duration) {
	if at := time.Now().Add(d); l.againAt.IsZero() || at.Before(l.againAt) {
		l.againAt = at
		l.again.Reset(d)
	}
}

// spend takes leave to send one batch, or says how long to wait for it.
func (l *loop) spend() time.Duration {
	now := time.Now()
	l.tokens = min(burst, l.tokens+now.Sub(l.filled).Seconds()*l.u.o.Rate)
	l.filled = now
	if l.tokens < 1 {
		return time.Duration((1 - l.tokens) / l.u.o.Rate * float64(time.Second))
	}
	l.tokens--
	return 0
}

// batch reads the records of a batch from first on: as many as there are and
// fit.
func (l *loop) batch(first uint64, most int) (*wire.Batch, error) {
	room := wire.MaxBatch - batchRoom
	epoch, entries, err := l.u.o.Log.Signed(l.ctx, first, most, room)
	if err != nil {
		return nil, err
	}
	if epoch != l.epoch {
		return nil, fmt.Errorf("the log has begun epoch %s", epoch)
	}
	b := &wire.Batch{V: wire.Version, Controller: l.u.o.Controller, Epoch: l.epoch, First: first}
	for i, e := range entries {
		if e.Seq != first+uint64(i) {
			return nil, fmt.Errorf("record %d is not the one that was asked for", first+uint64(i))
		}
		if room -= len(e.JWS) + len(`"",`); room < 0 {
			break
		}
		b.Records = append(b.Records, e.JWS)
	}
	if len(b.Records) == 0 {
		return nil, fmt.Errorf("record %d is not in the log", first)
	}
	return b, nil
}

func (l *loop) publish(b *wire.Batch) bool {
	payload, err := b.Marshal()
	if err != nil {
		l.fault("write a batch", err)
		return false
	}
	return l.enqueue(wire.Message{Topic: l.u.topics.records, Payload: payload})
}

// early sends the newest records ahead of a backlog that is longer than the
// window.
func (l *loop) early() {
	from := max(l.earlySent, l.next)
	if !l.synced || from >= l.head {
		return
	}
	now := time.Now()
	if wait := l.earlyAt.Add(l.u.o.EarlyEvery).Sub(now); wait > 0 {
		l.retry(wait)
		return
	}
	if l.head-from > maxEarly {
		from = l.head - maxEarly
	}
	b, err := l.batch(from, int(l.head-from))
	if err != nil {
		l.fault("read the newest records", err)
		return
	}
	b.Early = true
	if !l.publish(b) {
		return
	}
	l.earlySent, l.earlyAt = b.End(), now
	l.u.set(func(s *Status) { s.Early++ })
}
