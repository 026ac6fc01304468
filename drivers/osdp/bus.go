package osdp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// DefaultPollEvery is how often a peripheral that has nothing to tell is
// polled; the standard wants it at least this often, where the line allows.
const DefaultPollEvery = 50 * time.Millisecond

// How a bus spends its time.
const (
	eager       = 3                      // times that an unanswered command is sent at its peripheral's next turns
	quietShare  = 20                     // asking those that do not answer costs one part in so many of the line's time
	busyPause   = 20 * time.Millisecond  // before a busy peripheral is asked again
	retryPause  = 5 * time.Second        // between attempts at a Secure Channel that failed
	lossPause   = time.Second            // before a channel that hardly lived is begun anew
	pollAtLeast = 250 * time.Millisecond // between polls, however many commands wait
	maxQueue    = 64                     // commands that wait for one peripheral
	reopenFirst = 500 * time.Millisecond // before a line that was lost is opened again
	reopenLast  = 15 * time.Second
)

// Config describes a Bus. Zero values of numbers and times are the defaults.
type Config struct {
	// Open opens the line at a rate. It is called again after the line was lost.
	Open func(baud int) (Line, error)
	Baud int // DefaultBaud

	Peripherals []PeripheralConfig

	// Handle is told what peripherals tell, and how their state changes, one
	// event at a time. It must not wait: while it runs nobody is polled, and a
	// method with a context would wait for the bus, which waits for Handle.
	Handle func(Event)

	PollEvery    time.Duration // DefaultPollEvery; negative: without a pause
	ReplyTimeout time.Duration // DefaultReplyTimeout
	Gap          time.Duration // DefaultGap
	Mark         bool          // send a mark byte before each command
}

// PeripheralConfig describes one peripheral of a Bus.
type PeripheralConfig struct {
	Address byte // 0 to MaxAddress
	// Keys has the peripheral's key: the bus speaks to it over the Secure Channel
	// and in no other way.
	Keys KeyStore
	// ClearText says, in place of Keys, that the bus speaks to this peripheral
	// without the Secure Channel: whoever has access to the wires can read and
	// forge everything.
	ClearText bool
	// Checksum is for peripherals that do not know the CRC.
	Checksum bool
}

// Event is what a peripheral told, or a change of its state. The outcome of a
// BioRead or BioMatch is not among them: a BioTemplate or BioScore here answers
// nobody's question.
type Event struct {
	Peripheral *Peripheral
	At         time.Time
	Reply      Reply // such as a Card; nil: the state changed
	State      State // Secure, or ClearText where it was configured: otherwise Reply is nil
	// Err is why the state is neither; nil: it only begins. With Secure and
	// ClearText, it is that what the peripheral told makes no sense.
	Err error
}

// Errors of a bus. They come wrapped.
var (
	ErrOffline     = errors.New("the peripheral does not answer")
	ErrUnsecured   = errors.New("there is no Secure Channel with the peripheral")
	ErrChannelLost = errors.New("the Secure Channel was lost, and the command may or may not have been carried out")
	ErrNoKey       = errors.New("there is no key for the peripheral: install one")
	ErrKey         = errors.New("the peripheral has another key")
	ErrDefaultKey  = errors.New("the default key is everybody's: it secures nothing")
	ErrQueueFull   = errors.New("too many commands wait for the peripheral")
	ErrTooLong     = errors.New("the peripheral's buffer is too small for the command")
	ErrScanPending = errors.New("the peripheral may still answer an earlier scan: try again in a while")
	ErrStopped     = errors.New("the bus has stopped")
	ErrUnexpected  = errors.New("the reply is not one to the command")
)

// Bus is the panel's side of one serial line, with one or more peripherals. One
// goroutine, in Run, speaks on the line; the methods of its peripherals hand
// their commands to it.
type Bus struct {
	config      Config
	peripherals []*Peripheral
	link        link
	calls       chan func() // run between two turns
	stopped     chan struct{}
	at          int       // whose turn it is
	quietDue    time.Time // when one of those that do not answer may be asked
}

// New makes a bus; Run starts it. Every fault of the configuration is told.
func New(c Config) (*Bus, error) {
	c.Baud = orDefault(c.Baud, DefaultBaud)
	c.PollEvery = max(0, orDefault(c.PollEvery, DefaultPollEvery))
	c.ReplyTimeout = orDefault(c.ReplyTimeout, DefaultReplyTimeout)
	c.Gap = orDefault(c.Gap, DefaultGap)
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(""+format, args...)) }
	if c.Open == nil {
		fault("there is no way to open the line")
	}
	if !slices.Contains(Bauds, c.Baud) {
		fault("%d baud is not one of %v", c.Baud, Bauds)
	}
	if c.Gap <= 0 || c.ReplyTimeout <= c.Gap {
		fault("the reply time-out (%v) is not longer than the gap (%v)", c.ReplyTimeout, c.Gap)
	}
	if len(c.Peripherals) == 0 {
		fault("there is no peripheral")
	}
	b := &Bus{
		config:  c,
		link:    link{baud: c.Baud, reply: c.ReplyTimeout, gap: c.Gap, mark: c.Mark},
		calls:   make(chan func()),
		stopped: make(chan struct{}),
	}
	for _, pc := range c.Peripherals {
		if pc.Address > MaxAddress {
			fault("address %#02x is above %#02x", pc.Address, MaxAddress)
		}
		if b.Peripheral(pc.Address) != nil {
			fault("there are two peripherals with address %d", pc.Address)
		}
		if (pc.Keys == nil) != pc.ClearText {
			fault("the peripheral with address %d needs either keys or the express wish for clear text", pc.Address)
		}
		b.peripherals = append(b.peripherals, newPeripheral(b, pc))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return b, nil
}

func orDefault[T int | time.Duration](v, or T) T {
	if v == 0 {
		return or
	}
	return v
}

// Peripherals are those of the configuration, in its order.
func (b *Bus) Peripherals() []*Peripheral { return slices.Clone(b.peripherals) }

// Peripheral finds the one that has an address now; nil: none.
func (b *Bus) Peripheral(address byte) *Peripheral {
	for _, p := range b.peripherals {
		if p.Address() == address {
			return p
		}
	}
	return nil
}

// Run speaks on the line until ctx ends, and returns its error. A line that
// cannot be opened, or is lost, is every peripheral's state until it is there
// again. Run is called once.
func (b *Bus) Run(ctx context.Context) error {
	defer close(b.stopped)
	pause := reopenFirst
	for ctx.Err() == nil {
		line, err := b.config.Open(b.link.baud)
		if err == nil {
			b.link.line = line
			pause = reopenFirst
			err = b.talk(ctx)
			b.link.line = nil
			if e := line.Close(); err == nil {
				err = e
			}
		}
		if ctx.Err() != nil {
			break
		}
		for _, p := range b.peripherals {
			p.offline(fmt.Errorf("%w: %w", ErrOffline, err))
		}
		b.idle(ctx, pause)
		pause = min(2*pause, reopenLast)
	}
	for _, p := range b.peripherals {
		p.fail(ErrStopped)
	}
	return ctx.Err()
}

// idle does what it is asked to until d has passed.
func (b *Bus) idle(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case f := <-b.calls:
			f()
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// call runs f in Run's goroutine, between two turns.
func (b *Bus) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case b.calls <- func() { f(); close(done) }:
		<-done
		return nil
	case <-b.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// talk gives one peripheral after the other its turn, until ctx ends or the
// line fails.
func (b *Bus) talk(ctx context.Context) error {
	b.quietDue = time.Time{}
	wake := time.NewTimer(0)
	defer wake.Stop()
	for ctx.Err() == nil {
		p, wait := b.next(time.Now())
		if p == nil {
			wake.Reset(wait)
			select {
			case f := <-b.calls:
				f()
			case <-wake.C:
			case <-ctx.Done():
			}
			continue
		}
		if err := b.turn(p); err != nil {
			return err
		}
		select {
		case f := <-b.calls:
			f()
		default:
		}
	}
	return nil
}

// next chooses whose turn it is, or how long nobody has one. Those that do not
// answer share a small part of the line's time, so that they do not slow down
// the others; the rest take turns.
func (b *Bus) next(now time.Time) (*Peripheral, time.Duration) {
	soonest := now.Add(time.Second)
	var quiet *Peripheral
	for _, p := range b.peripherals {
		if p.quiet() && (quiet == nil || p.asked.Before(quiet.asked)) {
			quiet = p
		}
	}
	if quiet != nil {
		if !b.quietDue.After(now) {
			return quiet, 0
		}
		soonest = earlier(soonest, b.quietDue)
	}
	for i := range b.peripherals {
		at := (b.at + i) % len(b.peripherals)
		p := b.peripherals[at]
		switch {
		case p.quiet() || p.parked:
		case !p.due.After(now):
			b.at = at + 1
			return p, 0
		default:
			soonest = earlier(soonest, p.due)
		}
	}
	return nil, soonest.Sub(now)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// turn sends one command to a peripheral and deals with what comes back. An
// error is the line's.
func (b *Bus) turn(p *Peripheral) error {
	start := time.Now()
	p.asked = start
	if p.out == nil {
		p.out = p.prepare(start)
	} else {
		p.count(func(c *Counters) { c.Repeats++ })
	}
	f, raw, err := b.link.exchange(p.out.raw, p.Address(), p.out.number)
	now := time.Now()
	if err == nil && isBusy(f) && now.Sub(p.status.Heard) >= OfflineAfter {
		// Nothing proves that it comes from the peripheral.
		err = errBusy
	}
	switch {
	case err == nil:
		p.answered(start, now, f, raw)
	case noReply(err):
		p.unanswered(now, err)
		if p.quiet() {
			share := time.Duration(quietShare)
			if !b.anyAnswers() {
				share = 2 // nobody is waiting
			}
			b.quietDue = now.Add(max(now.Sub(start), busyPause) * share)
		}
	default:
		return err
	}
	return nil
}

// anyAnswers reports whether some peripheral does.
func (b *Bus) anyAnswers() bool {
	return slices.ContainsFunc(b.peripherals, func(p *Peripheral) bool { return !p.quiet() && !p.parked })
}

// SetBaud moves every peripheral and the line to another rate (COMSET). Each
// has to answer: with one that does not, nothing is changed. If a peripheral
// refuses half way, the line follows those that have moved, and the error names
// the one that stays behind.
func (b *Bus) SetBaud(ctx context.Context, baud int) error {
	if !slices.Contains(Bauds, baud) {
		return fmt.Errorf("%d baud is not one of %v", baud, Bauds)
	}
	for _, p := range b.peripherals {
		if s := p.Status().State; s != Secure && s != ClearText {
			return fmt.Errorf("the peripheral with address %d is %v: no rate was changed", p.Address(), s)
		}
	}
	moved := false
	var faults []error
	for _, p := range b.peripherals {
		reply, err := p.do(ctx, &job{command: SetComm{p.Address(), uint32(baud)}, park: true})
		comm, ok := reply.(Comm)
		switch {
		case err == nil && !ok:
			err = ErrUnexpected
		case err == nil && comm.Baud != uint32(baud):
			err = fmt.Errorf("it stays at %d baud", comm.Baud)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("peripheral with address %d: %w", p.Address(), err))
			if !moved {
				break
			}
			continue
		}
		moved = true
	}
	if moved {
		var failed error
		err := b.call(context.WithoutCancel(ctx), func() {
			b.link.baud = baud
			if b.link.line != nil { // lost just now, it will be opened at the new rate
				failed = b.link.line.SetBaud(baud)
			}
			for _, p := range b.peripherals {
				p.parked = false
				p.restart(time.Now(), nil)
			}
		})
		if err = errors.Join(err, failed); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
