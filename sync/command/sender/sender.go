// Package sender is the CRM's end of remote commands: it asks the controller for a
// nonce, signs the command for it, sends that once, and waits for the record that
// says what became of it.
package sender

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
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

// Errors of a command. After any but ErrNoAnswer nothing was ordered.
var (
	// ErrOffline: the controller gave no nonce in time.
	ErrOffline = errors.New("the controller does not answer")
	// ErrNoAnswer: the command was sent, and no record of it has come. It may have
	// been carried out.
	ErrNoAnswer = errors.New("no record of it has come: it may have been carried out, or not")
)

// Store knows what became of commands; *central.Store is one.
type Store interface {
	// May says whether a controller may send.
	May(ctx context.Context, controller string) error
	Command(ctx context.Context, controller, id string) (c central.Command, ok bool, err error)
}

// Authority is the key that signs, and what certifies it.
type Authority struct {
	JWS      []string    // wire.Call.Authority
	Commands wire.Signer // with the typ wire.CommandType
}

// Publisher publishes an MQTT message. It returns when the broker has taken it or
// ctx has ended.
type Publisher interface {
	Publish(ctx context.Context, topic string, payload []byte, retained bool) error
}

// Options is what a Sender needs from outside. Zero durations mean the defaults.
type Options struct {
	Store     Store
	Publisher Publisher
	// Authority is asked before each signature. It fails where nothing may be
	// signed, with what is to be done.
	Authority func() (*Authority, error)
	Clock     func() time.Time
	Logger    *slog.Logger

	NonceWithin  time.Duration // for a nonce; default 5 s
	AnswerWithin time.Duration // for the record; default 15 s
	Look         time.Duration // how often it is looked for; default 50 ms
}

// asks is how often a controller is asked for a nonce within NonceWithin.
const asks = 5

// Sender sends commands. Its methods may be used from several goroutines: commands
// for one controller go one after the other, each with a nonce of its own.
type Sender struct {
	o Options

	mu    sync.Mutex
	lines map[string]*line
}

// line is the way to one controller.
type line struct {
	turn   chan struct{} // full while a command is on its way
	nonces chan string   // that came while one was asked for
	last   string        // the nonce that was used last; of whose turn it is
}

// New returns a Sender.
func New(o Options) *Sender {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	for d, v := range map[*time.Duration]time.Duration{&o.NonceWithin: 5 * time.Second, &o.AnswerWithin: 15 * time.Second, &o.Look: 50 * time.Millisecond} {
		if *d <= 0 {
			*d = v
		}
	}
	return &Sender{o: o, lines: make(map[string]*line)}
}

func (s *Sender) line(controller string) *line {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[controller]
	if l == nil {
		l = &line{turn: make(chan struct{}, 1), nonces: make(chan string, 1)}
		s.lines[controller] = l
	}
	return l
}

// Heard takes the nonce of a state that a controller has just sent; a state that a
// broker had kept is none. It does not block. Nonces that nobody waits for are
// passed over.
func (s *Sender) Heard(controller, nonce string) {
	s.mu.Lock()
	l := s.lines[controller]
	s.mu.Unlock()
	if l == nil || nonce == "" {
		return
	}
	select {
	case <-l.nonces: // of two the newer counts
	default:
	}
	select {
	case l.nonces <- nonce:
	default:
	}
}

// Send sends a command, of which it fills in the id, the nonce and the times, and
// waits for what became of it. The id is known also after an error.
func (s *Sender) Send(ctx context.Context, c wire.Command) (id string, done central.Command, err error) {
	c.V, c.ID = wire.Version, random()
	topic, err := wire.Topic(c.Controller, wire.KindCommand)
	if err != nil {
		return c.ID, done, err
	}
	if err := c.Check(); err != nil { // before a nonce is given out for it
		return c.ID, done, err
	}
	if err := s.o.Store.May(ctx, c.Controller); err != nil {
		return c.ID, done, err
	}
	authority, err := s.o.Authority()
	if err != nil {
		return c.ID, done, err
	}
	l := s.line(c.Controller)
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return c.ID, done, ctx.Err()
	}
	if c.Nonce, err = s.nonce(ctx, l, topic, c.Controller); err != nil {
		return c.ID, done, err
	}
	c.Issued = s.o.Clock().UTC().Truncate(time.Millisecond)
	c.Expires = c.Issued.Add(wire.CommandFor)
	jws, err := c.Sign(authority.Commands)
	if err != nil {
		return c.ID, done, err
	}
	call := wire.Call{V: wire.Version, Controller: c.Controller, Authority: authority.JWS, Command: jws}
	l.last = c.Nonce
	if err := s.publish(ctx, topic, &call); err != nil {
		// The broker may have taken it all the same.
		err = fmt.Errorf("%w: %w", ErrNoAnswer, err)
		return c.ID, done, err
	}
	s.o.Logger.Info("command sent", "to", c.Controller, "action", string(c.Action), "door", c.Door, "id", c.ID, "operator", c.Operator)
	done, err = s.answer(ctx, c.Controller, c.ID)
	return c.ID, done, err
}

// nonce asks the controller for one, several times: a question may be lost, and a
// controller that hears too many at once answers only some.
func (s *Sender) nonce(ctx context.Context, l *line, topic, controller string) (string, error) {
	select {
	case <-l.nonces: // from before
	default:
	}
	ask := wire.Call{V: wire.Version, Controller: controller}
	if err := s.publish(ctx, topic, &ask); err != nil {
		return "", fmt.Errorf("%w: the broker does not take the question for it: %w", ErrOffline, err)
	}
	late, again := time.NewTimer(s.o.NonceWithin), time.NewTicker(s.o.NonceWithin/asks)
	defer late.Stop()
	defer again.Stop()
	asking, cancel := context.WithTimeout(ctx, s.o.NonceWithin)
	defer cancel()
	for {
		select {
		case nonce := <-l.nonces:
			if nonce != l.last { // of a state from before it was used
				return nonce, nil
			}
		case <-again.C:
			if err := s.publish(asking, topic, &ask); err != nil {
				s.o.Logger.Debug("a controller was not asked again for a nonce", "of", controller, "error", err)
			}
		case <-late.C:
			return "", fmt.Errorf("%w within %v: is it connected, and of a version that takes commands? Nothing was ordered", ErrOffline, s.o.NonceWithin)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// answer waits for the record.
func (s *Sender) answer(ctx context.Context, controller, id string) (central.Command, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.AnswerWithin)
	defer cancel()
	look := time.NewTicker(s.o.Look)
	defer look.Stop()
	for {
		switch c, ok, err := s.o.Store.Command(ctx, controller, id); {
		case ok:
			return c, nil
		case err != nil && ctx.Err() == nil:
			return central.Command{}, fmt.Errorf("%w: %w", ErrNoAnswer, err)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return central.Command{}, fmt.Errorf("%w within %v: look for %s in the controller's records", ErrNoAnswer, s.o.AnswerWithin, id)
		}
	}
}

// publish never has the broker keep anything: a command that is kept would come
// again with each connection.
func (s *Sender) publish(ctx context.Context, topic string, c *wire.Call) error {
	payload, err := c.Marshal()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.NonceWithin)
	defer cancel()
	return s.o.Publisher.Publish(ctx, topic, payload, wire.KindCommand.Retained())
}

func random() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
