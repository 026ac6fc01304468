// Package uplink is the controller's end of the sync: it brings every record
// of the log to the CRM and keeps the CRM's receipts.
package uplink

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/note"
)

// Publisher publishes an MQTT message. It returns when the broker has taken
// it, or an error at once if there is no connection. A message of which it
// said either may still be lost, or arrive twice.
type Publisher interface {
	Publish(ctx context.Context, topic string, payload []byte, retained bool) error
}

// Options is what an Uplink needs from outside. Zero durations and counts
// mean the defaults.
type Options struct {
	Controller string
	Log        *visitorlog.Log // what is sent
	Publisher  Publisher
	// Receipts and Cosigner verify with the CRM's pinned key; Own verifies the
	// log's own checkpoints.
	Receipts wire.Verifier
	Cosigner note.Verifier
	Own      func(origin string) (note.Verifier, error)
	// Policy and Clock fill in the state; either may be nil.
	Policy func() uint64
	Clock  func() visitorlog.Clock
	// Received is called with the time and the policy version of each receipt
	// that verified: floors under the controller's clock and its allowlist.
	// Both may be lower than before. It must not block. It may be nil.
	Received func(t time.Time, policyVersion uint64)
	// Used is called with what the CRM knows to be used up, where a receipt names
	// any: it must stay so. It must not block. It may be nil.
	Used func(used []string)
	// Nonce is what states say for the next command; "": nothing. It may be nil.
	Nonce func() string
	// Silent is called when the CRM has left several states in a row without
	// an answer, though they could be published: a new connection may help.
	// It must not block. It may be nil.
	Silent func()
	Logger *slog.Logger

	Window      int           // batches in flight; default 8
	Rate        float64       // batches a second; default 200
	Deadline    time.Duration // for a receipt; doubles while none comes; default 5 s
	MaxDeadline time.Duration // default 2 min
	EarlyEvery  time.Duration // between early batches; default 200 ms
	StateEvery  time.Duration // between states on a connection in good order; default 1 min
	AckEvery    time.Duration // between receipts written to the log; default 250 ms
	CarryEvery  time.Duration // between records carried from what was set aside; default 250 ms
}

const (
	defaultWindow      = 8
	defaultRate        = 200
	defaultDeadline    = 5 * time.Second
	defaultMaxDeadline = 2 * time.Minute
	defaultEarlyEvery  = 200 * time.Millisecond
	defaultStateEvery  = time.Minute
	defaultAckEvery    = 250 * time.Millisecond
	defaultCarryEvery  = 250 * time.Millisecond

	burst        = 32 // batches at once beyond Rate
	maxEarly     = 32 // records of an early batch
	silentStates = 3  // unanswered states before Silent is called
	receiptQueue = 64 // receipts not yet looked at; more are dropped

	// batchRoom is what is left in a batch beside the records: its other
	// fields and the checkpoint.
	batchRoom = wire.MaxCheckpoint + 1<<10
)

// Status is a snapshot for health pages and metrics.
type Status struct {
	Synced       bool      // the CRM answers; false also while that is not yet known
	Epoch        string    // of the log
	Head         uint64    // records in the log
	Acknowledged uint64    // of them countersigned
	InFlight     int       // batches without a receipt
	Owed         uint64    // records without a receipt in the database set aside that is being sent
	LastReceipt  time.Time // when the last good one came; zero: none yet
	ReceiptTime  time.Time // the time in it
	Overdue      time.Time // since when a receipt has stayed out though messages were taken; zero: none has
	Batches      uint64    // sent, again or not
	Early        uint64    // early batches sent
	States       uint64
	Receipts     uint64 // that verified
	Bad          uint64 // receipts that did not verify
	Resent       uint64 // times that sending went back to the last receipt
	LastError    string
}

// Backlog is how many records have no receipt.
func (s Status) Backlog() uint64 { return s.Head - min(s.Acknowledged, s.Head) }

// Uplink sends one controller's records.
type Uplink struct {
	o       Options
	session string
	topics  struct{ records, state string }

	connected chan struct{}
	announce  chan struct{}
	receipts  chan []byte
	failed    chan error // the sender's
	diverged  chan visitorlog.Receipt

	mu     sync.Mutex
	status Status
}

// New checks the options and returns an Uplink; Run sets it to work.
func New(o Options) (*Uplink, error) {
	if o.Log == nil || o.Publisher == nil || o.Receipts == nil || o.Cosigner == nil || o.Own == nil {
		return nil, errors.New("uplink: an option is missing")
	}
	u := &Uplink{
		o:         o,
		connected: make(chan struct{}, 1),
		announce:  make(chan struct{}, 1),
		receipts:  make(chan []byte, receiptQueue),
		failed:    make(chan error, 1),
		diverged:  make(chan visitorlog.Receipt, 1),
	}
	var err error
	if u.topics.records, err = wire.Topic(o.Controller, wire.KindRecords); err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	if u.topics.state, err = wire.Topic(o.Controller, wire.KindState); err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	var id [16]byte
	rand.Read(id[:]) // never fails
	u.session = hex.EncodeToString(id[:])
	u.o.defaults()
	return u, nil
}

func (o *Options) defaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Window <= 0 {
		o.Window = defaultWindow
	}
	if o.Rate <= 0 {
		o.Rate = defaultRate
	}
	for _, d := range []struct {
		d *time.Duration
		v time.Duration
	}{
		{&o.Deadline, defaultDeadline}, {&o.MaxDeadline, defaultMaxDeadline}, {&o.EarlyEvery, defaultEarlyEvery},
		{&o.StateEvery, defaultStateEvery}, {&o.AckEvery, defaultAckEvery}, {&o.CarryEvery, defaultCarryEvery},
	} {
		if *d.d <= 0 {
			*d.d = d.v
		}
	}
	o.MaxDeadline = max(o.MaxDeadline, o.Deadline)
}

// Will is the message that the broker publishes when the connection is lost.
func (u *Uplink) Will() (wire.Message, error) {
	s := wire.State{V: wire.Version, Controller: u.o.Controller, Session: u.session}
	b, err := s.Marshal()
	if err != nil {
		return wire.Message{}, err
	}
	return wire.Message{Topic: u.topics.state, Payload: b, Retained: wire.KindState.Retained()}, nil
}

// Connected tells that a connection to the broker was made and its
// subscriptions stand. It does not block.
func (u *Uplink) Connected() {
	select {
	case u.connected <- struct{}{}:
	default:
	}
}

// Announce has a state be published now. It does not block.
func (u *Uplink) Announce() {
	select {
	case u.announce <- struct{}{}:
	default: // it is about to be
	}
}

// Handle takes the payload of a message on down/receipt. It does not block:
// what comes too fast is dropped, as a later receipt says the same and more.
func (u *Uplink) Handle(payload []byte) {
	select {
	case u.receipts <- payload:
	default:
	}
}

// Status returns a snapshot.
func (u *Uplink) Status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

func (u *Uplink) set(f func(*Status)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f(&u.status)
}
