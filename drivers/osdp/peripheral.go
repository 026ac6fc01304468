package osdp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// State is how far a bus has come with a peripheral. Only in Secure, and in
// ClearText where that was configured, is anything that it tells passed on.
type State byte

const (
	Offline    State = iota // it does not answer, or the line is gone
	Starting                // it answers: its identity and the Secure Channel come next
	Unsecured               // it answers, and there can be no Secure Channel; tried again every few seconds
	Installing              // on the default key, to be given its own; see Peripheral.Install
	ClearText               // it works, without the Secure Channel, as configured
	Secure                  // it works
)

var stateNames = [...]string{"offline", "starting", "unsecured", "installing", "clear text", "secure"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", byte(s))
}

// Status is what a bus knows of a peripheral.
type Status struct {
	Address      byte
	State        State
	Since        time.Time // of the state
	Err          error     // why the state is no better; nil: nothing is wrong
	ID           ID        // zero: it has not told yet
	Capabilities Capabilities
	Heard        time.Time // its last reply that was not a Busy; zero: none yet
	Counters     Counters
}

// Counters count from the start of the program.
type Counters struct {
	Replies   uint64 // that were good
	Repeats   uint64 // commands that were sent again
	Silent    uint64 // commands without a reply
	Garbled   uint64 // replies that were broken
	Busy      uint64 // replies that asked for patience
	Malformed uint64 // good frames with a message that makes no sense
	Lost      uint64 // Secure Channels
	Forged    uint64 // of these, by a wrong MAC or by clear text
}

// Peripheral is one on a Bus. Its methods may be called from any goroutine,
// those with a context not from Config.Handle.
type Peripheral struct {
	bus    *Bus
	config PeripheralConfig
	scan   chan struct{} // held by the one scan that is under way

	mu      sync.Mutex
	status  Status
	changed chan struct{} // closed when the state does
	proved  Key           // the key of the Secure Channel, once it stands

	// What follows is of Run's goroutine.
	step      step
	number    byte // of the next command
	out       *outgoing
	session   *SecureChannel
	began     time.Time // the session
	key       Key       // of the handshake that is under way
	random    [8]byte
	useNext   bool // the key that was begun is the likelier one
	triedBoth bool
	install   bool // with the default key
	queue     []*job
	initial   []Command // still to be asked after a start
	waiting   *job      // for a reply that comes when it is polled
	abandoned ReplyCode // of a scan that nobody waits for any more; 0: none
	forget    time.Time // when it cannot come any more
	aborted   bool      // it says so; scans that follow wait until it is silent
	parts     Assembler
	asked     time.Time
	polled    time.Time
	commanded bool // since then
	due       time.Time
	misses    int
	parked    bool // it went over to another rate
}

// outgoing is a command on its way. What is sent again is the same bytes.
type outgoing struct {
	command Command
	raw     []byte
	number  byte
	job     *job // nil: the bus's own
}

// job is a command that somebody waits for.
type job struct {
	command  Command
	later    ReplyCode // that may come when polled, after an ACK; 0: none
	install  bool      // for the channel on the default key, and for no other
	park     bool      // the baud rate is being changed
	dropped  bool      // nobody waits any more
	finished chan result
}

type result struct {
	reply Reply
	err   error
}

// finish gives the outcome; the first one counts.
func (j *job) finish(reply Reply, err error) {
	if j == nil {
		return
	}
	select {
	case j.finished <- result{reply, err}:
	default:
	}
}

// waiter is who waits for what is on its way; nil: nobody.
func (o *outgoing) waiter() *job {
	if o == nil {
		return nil
	}
	return o.job
}

// forgetScan is how long the reply to a scan that nobody waits for may still
// come.
const forgetScan = 30 * time.Second

func newPeripheral(b *Bus, c PeripheralConfig) *Peripheral {
	return &Peripheral{
		bus: b, config: c, scan: make(chan struct{}, 1), changed: make(chan struct{}),
		status: Status{Address: c.Address},
	}
}

// Address is the peripheral's address now.
func (p *Peripheral) Address() byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status.Address
}

// Status is what is known now.
func (p *Peripheral) Status() Status {
	s, _ := p.snapshot()
	return s
}

// Changed is closed when the state is another one, or has another reason. Taken
// before Status, it misses no change.
func (p *Peripheral) Changed() <-chan struct{} {
	_, changed := p.snapshot()
	return changed
}

func (p *Peripheral) snapshot() (Status, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Capabilities = slices.Clone(s.Capabilities)
	return s, p.changed
}

// Wait waits until the peripheral works: it is Secure, or in ClearText where
// that is configured. It fails when ctx ends, with the reason why it does not.
func (p *Peripheral) Wait(ctx context.Context) error {
	for {
		s, changed := p.snapshot()
		if s.State == Secure || s.State == ClearText {
			return nil
		}
		select {
		case <-changed:
		case <-p.bus.stopped:
			return ErrStopped
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.Err)
		}
	}
}

// Do sends a command and waits for its reply. A NAK is an error, of type NAK; a
// Busy is not seen. While the peripheral starts, the command waits; Do fails at
// once when the peripheral is offline or has no Secure Channel. When ctx ends,
// the command may have been carried out or not.
//
// Commands that change keys, address and rate have methods of their own, and so
// have scans.
func (p *Peripheral) Do(ctx context.Context, c Command) (Reply, error) {
	switch c.Command() {
	case CodeKEYSET, CodeCHLNG, CodeSCRYPT, CodeCOMSET, CodeBIOREAD, CodeBIOMATCH, CodePOLL:
		return nil, fmt.Errorf("%v has a method of its own", c.Command())
	}
	return p.do(ctx, &job{command: c})
}

func (p *Peripheral) do(ctx context.Context, j *job) (Reply, error) {
	j.finished = make(chan result, 1)
	if err := p.bus.call(ctx, func() { p.enqueue(j) }); err != nil {
		return nil, err
	}
	select {
	case r := <-j.finished:
		return r.reply, r.err
	case <-ctx.Done():
		// It takes a moment, for the bus ends its turn: what is asked next must come
		// after it.
		p.bus.call(context.WithoutCancel(ctx), func() { p.drop(j) })
		select {
		case r := <-j.finished: // it came meanwhile
			forget(r.reply)
		default:
		}
		return nil, ctx.Err()
	}
}

// forget clears a template that nobody gets.
func forget(r Reply) {
	if m, ok := r.(BioTemplate); ok {
		clear(m.Template)
	}
}

// The methods below run in the bus's goroutine.

func (p *Peripheral) enqueue(j *job) {
	switch s := p.Status(); {
	case s.State == Offline:
		j.finish(nil, because(ErrOffline, s.Err))
	case s.State == Unsecured:
		j.finish(nil, because(ErrUnsecured, s.Err))
	case len(p.queue) >= maxQueue:
		j.finish(nil, ErrQueueFull)
	default:
		p.queue = append(p.queue, j)
		if p.out == nil && p.step == stepReady {
			p.due = time.Time{}
		}
	}
}

// because joins what is known of the reason.
func because(err, reason error) error {
	if reason == nil || errors.Is(reason, err) {
		return orError(reason, err)
	}
	return fmt.Errorf("%w: %w", err, reason)
}

func orError(err, or error) error {
	if err == nil {
		return or
	}
	return err
}

// drop is told that nobody waits for a command any more. One that is on its way
// has to be finished, for the sake of its number.
func (p *Peripheral) drop(j *job) {
	j.dropped = true
	p.queue = slices.DeleteFunc(p.queue, func(q *job) bool { return q == j })
	if p.waiting == j {
		p.waiting = nil
		p.abandon(j.later)
		p.abort()
	}
}

// abandon remembers that the outcome of a scan may come which is not that of the
// next one.
func (p *Peripheral) abandon(code ReplyCode) {
	p.abandoned, p.forget = code, time.Now().Add(forgetScan)
}

// abort asks the peripheral to end the scan that was abandoned, before anything
// else is sent.
func (p *Peripheral) abort() { p.initial = append(p.initial, Abort{}) }

// settle looks for the end of a scan that was abandoned: the peripheral says that
// it has aborted it, and then that it has nothing to tell. No outcome can come any
// more.
func (p *Peripheral) settle(command Command, reply ReplyCode) {
	switch command.(type) {
	case Abort:
		p.aborted = reply == CodeACK
	case Poll:
		if p.aborted && reply == CodeACK {
			p.abandoned, p.aborted = 0, false
		}
	}
}

// cut ends the command that is on its way and the scan that is waited for.
func (p *Peripheral) cut(err error) {
	for _, j := range []*job{p.waiting, p.out.waiter()} {
		j.finish(nil, err)
		if j != nil && j.later != 0 {
			p.abandon(j.later)
		}
	}
	p.waiting, p.out = nil, nil
}

// fail ends every command that waits.
func (p *Peripheral) fail(err error) {
	p.cut(err)
	for _, j := range p.queue {
		j.finish(nil, err)
	}
	p.queue = nil
}

func (p *Peripheral) count(f func(*Counters)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.status.Counters)
}

// set changes the state, and tells.
func (p *Peripheral) set(now time.Time, s State, err error) {
	p.mu.Lock()
	if p.status.State == s && sameError(p.status.Err, err) {
		p.mu.Unlock()
		return
	}
	p.status.State, p.status.Since, p.status.Err = s, now, err
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	p.tell(Event{At: now, State: s, Err: err})
}

func sameError(a, b error) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Error() == b.Error()
}

func (p *Peripheral) tell(e Event) {
	e.Peripheral = p
	if p.bus.config.Handle != nil {
		p.bus.config.Handle(e)
	}
}

// quiet reports whether the peripheral does not answer, and is asked rarely.
func (p *Peripheral) quiet() bool {
	return !p.parked && (p.misses >= eager || p.misses > 0 && p.status.State == Offline)
}

// reset begins anew with the number 0, at which the peripheral forgets its
// session too.
func (p *Peripheral) reset(why error) {
	p.cut(because(ErrChannelLost, why))
	p.step, p.number, p.session, p.initial = stepID, 0, nil, nil
	p.aborted = false
	p.triedBoth = false
	p.parts.Reset()
	p.due = time.Time{}
}

// restart begins anew at once. What waits in the queue goes on waiting.
func (p *Peripheral) restart(now time.Time, why error) {
	p.reset(why)
	if p.status.State != Offline {
		p.set(now, Starting, why)
	}
}

// lose ends the Secure Channel. One that hardly lived is not begun anew at
// once.
func (p *Peripheral) lose(now time.Time, why error) {
	p.count(func(c *Counters) {
		c.Lost++
		if errors.Is(why, ErrMAC) || errors.Is(why, ErrClear) {
			c.Forged++
		}
	})
	young := now.Sub(p.began) < lossPause
	p.restart(now, why)
	if young {
		p.due = now.Add(lossPause)
	}
}

// unsecure gives the Secure Channel up for a while. There is no other way to
// speak to the peripheral until then.
func (p *Peripheral) unsecure(now time.Time, why error) {
	p.reset(why)
	p.fail(because(ErrUnsecured, why))
	p.set(now, Unsecured, why)
	p.due = now.Add(retryPause)
}

// offline gives the peripheral up until it answers.
func (p *Peripheral) offline(why error) {
	p.fail(why)
	p.reset(why)
	p.set(time.Now(), Offline, why)
	p.misses = 0 // it is asked once, whatever became of the line
}
