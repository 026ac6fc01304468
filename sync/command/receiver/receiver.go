// Package receiver is the controller's end of remote commands: it gives out nonces,
// and has a door carry out what was signed for one of them. Whatever was retained,
// replayed, delayed, meant for somebody else or signed by somebody else is refused:
// counted by its reason, and recorded.
package receiver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const (
	queue       = 16               // messages not yet looked at; more are dropped
	orderWithin = 10 * time.Second // for a door to record an order and begin with it
	asksAtOnce  = 10               // beyond that, asksEvery
	asksEvery   = 500 * time.Millisecond
)

// Door carries out orders; *door.Door is one.
type Door interface {
	Order(context.Context, door.Order) error
}

// Clock is the controller's clock.
type Clock interface {
	Now() (wall time.Time, state access.ClockState)
	Floor() time.Time // the latest time that the CRM has vouched for; zero: none
}

// Log makes records durable.
type Log interface {
	Append(ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error)
}

// Options is what a Receiver needs from outside.
type Options struct {
	Controller string
	Doors      map[string]Door // at least one
	// Verifier verifies the chain from the pinned policy root to the key that signs
	// commands, and gives what verifies those.
	Verifier func(authority []string) (wire.Verifier, error)
	// Announce has a state be published, with Receiver.Nonce in it. It must not
	// block.
	Announce func()
	Clock    Clock
	Log      Log
	Logger   *slog.Logger
}

// Status is a snapshot for people and for metrics.
type Status struct {
	Asked   uint64             `json:"asked"`  // times that a nonce was asked for
	Obeyed  uint64             `json:"obeyed"` // commands that a door was given
	Refused map[Refusal]uint64 `json:"refused,omitempty"`
	Last    string             `json:"last_refusal,omitempty"`
}

// Receiver takes the commands of one controller.
type Receiver struct {
	o        Options
	first    Door // for what is of the whole controller
	messages chan wire.Message

	mu     sync.Mutex
	gate   gate
	status Status

	asks   limiter               // of Run's goroutine
	counts map[Refusal]*coalesce // likewise
}

// New checks the options and returns a Receiver; Run sets it to work.
func New(o Options) (*Receiver, error) {
	if o.Controller == "" || len(o.Doors) == 0 || o.Verifier == nil || o.Announce == nil || o.Clock == nil || o.Log == nil {
		return nil, errors.New("command receiver: an option is missing")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Receiver{
		o: o, first: o.Doors[slices.Min(slices.Collect(maps.Keys(o.Doors)))],
		messages: make(chan wire.Message, queue),
		gate:     gate{controller: o.Controller},
		status:   Status{Refused: make(map[Refusal]uint64)},
		asks:     limiter{most: asksAtOnce, every: asksEvery},
		counts:   make(map[Refusal]*coalesce),
	}, nil
}

// Handle takes a message on down/command. It does not block: what comes too fast
// is dropped.
func (r *Receiver) Handle(m wire.Message) {
	select {
	case r.messages <- m:
	default:
	}
}

// Nonce is what the next state is to say; "": nothing.
func (r *Receiver) Nonce() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gate.offered(time.Now())
}

// Status returns a snapshot.
func (r *Receiver) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Refused = maps.Clone(s.Refused)
	return s
}

// Run takes commands one after the other until ctx ends.
func (r *Receiver) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-r.messages:
			if c, err := r.take(ctx, m); err != nil && ctx.Err() == nil {
				r.refused(ctx, c, err)
			}
		}
	}
}

// take deals with one message. The command is there if its signature is good.
func (r *Receiver) take(ctx context.Context, m wire.Message) (c *wire.Command, err error) {
	call, err := wire.ParseCall(m.Payload)
	switch {
	case err != nil:
		return nil, refuse(Malformed, "%v", err)
	case m.Retained:
		return nil, refuse(Retained, "a broker had kept it")
	case call.Controller != r.o.Controller:
		return nil, refuse(WrongController, "it is for %q", call.Controller)
	case call.Command == "":
		r.ask()
		return nil, nil
	}
	v, err := r.o.Verifier(call.Authority)
	if err != nil {
		return nil, refuse(WrongSignature, "%v", err)
	}
	if c, err = wire.OpenCommand(call.Command, v); err != nil {
		return nil, refuse(WrongSignature, "%v", err)
	}
	now := reading{monotonic: time.Now(), floor: r.o.Clock.Floor()}
	now.wall, now.state = r.o.Clock.Now()
	r.mu.Lock()
	err = r.gate.admit(c, now)
	r.mu.Unlock()
	if err != nil {
		return c, err
	}
	return c, r.obey(ctx, c)
}

// ask answers with a nonce, in a state.
func (r *Receiver) ask() {
	now := time.Now()
	if !r.asks.allow(now) {
		return
	}
	var b [16]byte
	rand.Read(b[:]) // never fails
	r.mu.Lock()
	r.status.Asked++
	r.gate.ask(now, hex.EncodeToString(b[:]))
	r.mu.Unlock()
	r.o.Announce()
}

// obey gives the order to its door, whose record is the answer.
func (r *Receiver) obey(ctx context.Context, c *wire.Command) error {
	d := r.first
	if c.Action.AtDoor() {
		if d = r.o.Doors[c.Door]; d == nil {
			return refuse(UnknownDoor, "there is no door %q", c.Door)
		}
	}
	o, err := order(c)
	if err != nil {
		return refuse(Malformed, "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, orderWithin)
	defer cancel()
	r.set(func(s *Status) { s.Obeyed++ })
	if err = d.Order(ctx, o); errors.Is(err, door.ErrRefused) {
		return nil // the door has recorded why
	}
	return err
}

// order is what a command means at a door.
func order(c *wire.Command) (door.Order, error) {
	o := door.Order{
		Action: door.Action(c.Action), ID: c.ID, Operator: c.Operator, Why: c.Why,
		Threat: c.Threat, Person: c.Person, Kind: c.Kind, Host: c.Host, Area: c.Area, Count: c.Count,
	}
	var err error
	if c.Action == wire.ActionCode {
		o.Code, err = c.CodeIndex()
	}
	return o, err
}

func (r *Receiver) set(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// refused counts a refusal and records it. Somebody who sends a lot of what is
// refused does not fill the log with it; what only the CRM can have sent is always
// recorded.
func (r *Receiver) refused(ctx context.Context, c *wire.Command, err error) {
	reason, detail := why(err)
	r.set(func(s *Status) {
		s.Refused[reason]++
		s.Last = string(reason) + ": " + detail
	})
	r.o.Logger.Warn("command refused", "reason", string(reason), "error", detail)
	more, ok := uint64(0), true
	if !reason.nonceUsed() {
		k := r.counts[reason]
		if k == nil {
			k = &coalesce{limiter: limiter{most: recordsAtOnce, every: recordsEvery}}
			r.counts[reason] = k
		}
		more, ok = k.record(time.Now())
	}
	if !ok {
		return
	}
	if _, err := r.o.Log.Append(ctx, func(*visitorlog.Tx) (visitorlog.Draft, error) {
		return draft(c, reason, detail, more), nil
	}); err != nil {
		r.o.Logger.Error("refused command not recorded", "error", err)
	}
}

const (
	recordsAtOnce = 8 // refusals of a reason that are recorded one by one
	recordsEvery  = 10 * time.Minute
	maxDetail     = 800 // bytes
)

// draft is the record of a refusal. Of a command whose signature is not good,
// nothing is repeated.
func draft(c *wire.Command, reason Refusal, detail string, more uint64) visitorlog.Draft {
	detail = plain(detail)
	d := visitorlog.Data{Detail: fmt.Sprintf("a command was refused: %s: %s", reason, detail)}
	if more > 0 {
		d.Detail += fmt.Sprintf("; %d more like it before were not recorded one by one", more)
	}
	if c != nil {
		d.Command = &visitorlog.Command{ID: c.ID, Action: string(c.Action), Operator: c.Operator, Why: c.Why,
			Result: fmt.Sprintf("refused: %s: %s", reason, detail)}
	}
	return visitorlog.Draft{Type: visitorlog.OperatorAction, Data: d}
}
