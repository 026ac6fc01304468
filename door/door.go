package door

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const (
	// Patience is how long after the last factor was given the strike may still
	// move for it. Break-glass opens then without a record.
	Patience = 3 * time.Second
	// Repeat is how long a card must be away from a reader before it is read
	// again. A card that is left on a reader is one presentation.
	Repeat = time.Second

	delayedAfter = 300 * time.Millisecond // when the indicator shows waiting
	healthyAfter = 500 * time.Millisecond // without an error: the fault is over
	panicOver    = time.Minute            // the same after a panic
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 2 * time.Second
	flushFor     = 2 * time.Second // for the last records, at the end
	slowWaits    = 8               // for the disk, of a door at the same time
	maxFaultText = 200             // bytes
)

// Reader delivers presentations. Read blocks until there is one. An error
// other than ctx's own means that the reader is faulty: it is recorded and
// shown, and Read is called again, later and later.
//
// A Reader may have a method Health() badge.Health. Its numbers are then part
// of the door's status, and what is likely wrong is recorded when it has
// seemed so for a while.
type Reader interface {
	Read(ctx context.Context) (badge.Read, error)
}

// Strike is the lock. Both methods are idempotent and return soon; an error
// means that the strike may not have moved.
type Strike interface {
	Unlock() error
	Lock() error
}

// Input is a contact, a button, a sensor or a key switch. Watch calls changed
// with the present state at once and then with each debounced change, from
// one goroutine, until ctx ends or the input is faulty.
type Input interface {
	Watch(ctx context.Context, changed func(active bool)) error
}

// Indicator shows a Pattern by whatever lights and sounds it has. Show is
// idempotent.
type Indicator interface {
	Show(pattern string) error
}

// Log makes records durable. Append calls write inside the one transaction
// that the record is written in, serially over all doors, and returns when
// the record is on disk; an error means that it never will be.
// AppendReserved is the same with space kept in advance. State reads what
// transactions left under a key; nil: nothing.
type Log interface {
	Append(ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error)
	AppendReserved(ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error)
	State(ctx context.Context, key string) ([]byte, error)
}

// Allowlist knows who may enter, and what doors ask for.
type Allowlist interface {
	// Lookup gives nil for an unknown card.
	Lookup(badge.Credential) (*access.Entry, error)
	// Person gives nil for a person who is unknown, or may not be identified
	// without a card.
	Person(id string) (*access.Entry, error)
	// CheckPIN compares digits, '0' to '9', with what is kept of an entry's PINs.
	CheckPIN(e *access.Entry, digits []byte) (ok, duress bool)
	// Rules are those of a door for the way in or out; nil where the policy says
	// nothing of that.
	Rules(door string, side access.Direction) []access.Rule
	// Site is what is asked at a door beside factors; nil: nothing. It may not be
	// changed.
	Site(door string) *access.Door
	// Code is the entry of a one-time code, by its digits, '0' to '9'; nil: there is
	// no such code.
	Code(digits []byte) (*access.Entry, error)
	// PolicyAt names what is served, by the door's own ladder of age.
	PolicyAt(door string, now time.Time) access.Policy
}

// Enrolled knows what was enrolled of people at scanners.
type Enrolled interface {
	// References are what was enrolled of a person at a scanner. The caller
	// clears them.
	References(person, scanner string) ([]biometric.Reference, error)
	// Person is whose finger or eye a scanner keeps in a slot, and whether it is
	// one that is given only under a threat. An empty person is nobody.
	Person(scanner string, slot uint32) (person string, duress bool, err error)
}

// Clock is the controller's clock.
type Clock interface {
	Now() (wall time.Time, state access.ClockState)
	Moment() access.Moment
}

// ReaderConfig is one reader of a door.
type ReaderConfig struct {
	Name      string
	Direction access.Direction // of the passage: In for the reader outside
	// Formats are tried in order. The first that fits the frame and gives a
	// card on the allowlist is taken.
	Formats []*badge.Format
	Reader  Reader
	// Factor is what a card number of this reader proves; 0: Badge. A reader that
	// looks at fingers or eyes itself, and gives the number of the person whom it
	// knows, proves Fingerprint or Iris.
	Factor access.Factor
	// Alone lets such a factor open by itself, though the reader's wires are not
	// authenticated.
	Alone bool
	// Keypad is how the reader's keypad sends; empty: it has none, and no PIN is
	// asked at it.
	Keypad         badge.KeypadEncoding
	KeypadFacility uint64 // of a 26-bit keypad's PINs
}

// ScannerConfig is one scanner of a door.
type ScannerConfig struct {
	Name      string           // of no reader either
	Direction access.Direction // of the passage
	Factor    access.Factor    // what it proves: Fingerprint or Iris
	Scanner   biometric.Scanner
	// Identify makes it find out who somebody is while nobody has presented
	// anything on its side.
	Identify bool
	// Alone lets its factor open by itself, though its wires are not
	// authenticated.
	Alone bool
}

// Config is what a door is made of.
type Config struct {
	Name     string
	Times    Times
	Zone     *time.Location // the site's
	Readers  []ReaderConfig
	Scanners []ScannerConfig
	Strike   Strike

	// The following may be nil: the door has none.
	Contact       Input // active while the door is open
	RequestToExit Input
	Tamper        Input
	Lockdown      Input // of several doors: see Share
	Indicator     Indicator

	Log       Log
	Allowlist Allowlist
	Enrolled  Enrolled // may be nil where there are no scanners
	Clock     Clock
	Logger    *slog.Logger

	// Rules are what the door asks for on the way in and out, where the policy
	// says nothing of that; nil: the badge.
	Rules        map[access.Direction][]access.Rule
	FactorWindow time.Duration // from one factor to the next; 0: 10 s
	DuressOpens  bool          // to whoever is threatened; it alarms either way
	Limits       access.Limits // of failures
	Secrets      Secrets       // nil: where nobody is ever locked out, nor in an area
	Neighbours   *Neighbours   // of the controller; nil: the door has none
}

// DefaultFactorWindow is how long somebody has for the next factor.
const DefaultFactorWindow = 10 * time.Second

// Door is one door with its readers. Its strike moves only from within Run.
type Door struct {
	cfg      Config
	log      *slog.Logger
	work     chan func(*loop) // what happened, for the loop to deal with
	running  context.Context  // of what Run has started
	parts    sync.WaitGroup   // of the same
	ended    chan struct{}    // the loop has
	sides    map[access.Direction]*side
	scanners []*scanner
	ran      atomic.Bool
	lockdown atomic.Bool             // for decisions: as early as it is known
	disabled atomic.Pointer[string]  // why, by order; nil: not known yet
	traces   atomic.Pointer[[]trace] // of those whose passage is awaited
	codes    codes
	wake     chan struct{} // to look at what others have changed
	status   atomic.Pointer[Status]
	records  *recorder
	slow     chan struct{} // a token for whatever waits for the disk
}

// New checks the configuration of a door.
func New(cfg Config) (*Door, error) {
	var errs []error
	missing := func(is bool, what string) {
		if is {
			errs = append(errs, errors.New("no "+what))
		}
	}
	missing(cfg.Name == "", "name")
	missing(cfg.Strike == nil, "strike")
	missing(cfg.Log == nil, "log")
	missing(cfg.Allowlist == nil, "allowlist")
	missing(cfg.Clock == nil, "clock")
	missing(cfg.Zone == nil, "time zone")
	missing(cfg.Logger == nil, "logger")
	missing(cfg.Enrolled == nil && len(cfg.Scanners) > 0, "knowledge of who was enrolled at its scanners")
	missing(cfg.Secrets == nil && (cfg.Limits.PersonAfter > 0 || cfg.Limits.ReaderAfter > 0), "secrets for lock-outs")
	errs = append(errs, cfg.Times.Validate())
	if cfg.FactorWindow < 0 {
		errs = append(errs, fmt.Errorf("factor_window: %v is shorter than zero", cfg.FactorWindow))
	}
	cfg.Readers = slices.Clone(cfg.Readers)
	for i := range cfg.Readers {
		errs = append(errs, cfg.Readers[i].complete())
	}
	for i := range cfg.Scanners {
		errs = append(errs, cfg.Scanners[i].validate())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("door %q: %w", cfg.Name, err)
	}
	if cfg.FactorWindow == 0 {
		cfg.FactorWindow = DefaultFactorWindow
	}
	d := &Door{
		cfg:   cfg,
		log:   cfg.Logger.With("door", cfg.Name),
		work:  make(chan func(*loop)),
		ended: make(chan struct{}),
		sides: map[access.Direction]*side{access.In: {}, access.Out: {}},
		slow:  make(chan struct{}, slowWaits),
		wake:  make(chan struct{}, 1),
	}
	d.traces.Store(new([]trace))
	if d.cfg.Neighbours == nil {
		d.cfg.Neighbours = NewNeighbours()
	}
	if err := d.cfg.Neighbours.join(cfg.Name, d.poke); err != nil {
		return nil, err
	}
	for i := range d.cfg.Scanners {
		d.scanners = append(d.scanners, &scanner{ScannerConfig: &d.cfg.Scanners[i], turn: make(chan struct{}, 1), doubts: make(chan error, 1)})
	}
	d.records = newRecorder(cfg.Name, cfg.Log, d.log)
	l := newLoop(d)
	l.publish()
	return d, nil
}

// complete fills in what the reader proves, and says what it lacks.
func (r *ReaderConfig) complete() error {
	if r.Name == "" || r.Reader == nil || len(r.Formats) == 0 || r.Direction != access.In && r.Direction != access.Out {
		return fmt.Errorf("reader %q: it needs a name, a device, a direction and a format", r.Name)
	}
	switch r.Factor {
	case 0:
		r.Factor = access.Badge
	case access.Badge, access.Fingerprint, access.Iris:
	default:
		return fmt.Errorf("reader %q: a card number cannot prove %s", r.Name, r.Factor)
	}
	if r.Keypad == "" {
		return nil
	}
	if _, err := badge.NewKeypad(r.Keypad, r.KeypadFacility, keysTogether); err != nil {
		return fmt.Errorf("reader %q: %w", r.Name, err)
	}
	return nil
}

func (s *ScannerConfig) validate() error {
	if s.Name == "" || s.Scanner == nil || s.Factor != access.Fingerprint && s.Factor != access.Iris || s.Direction != access.In && s.Direction != access.Out {
		return fmt.Errorf("scanner %q: it needs a name, a device, a direction, and fingerprint or iris as its factor", s.Name)
	}
	return nil
}

// Run runs the door until ctx ends. The strike is locked when it returns,
// whatever ended it; an error means that a part panicked in the loop itself or
// that the strike could not be locked. Run can be called once.
func (d *Door) Run(ctx context.Context) (err error) {
	if d.ran.Swap(true) {
		return fmt.Errorf("door %q: it ran already", d.cfg.Name)
	}
	l := newLoop(d)
	inner, cancel := context.WithCancel(ctx)
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	var recorder sync.WaitGroup
	d.running = inner
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("door", "event", "panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("door %q: panic: %v", d.cfg.Name, p)
		}
		err = errors.Join(err, l.lockFinally()) // before anything that may take its time
		close(d.ended)
		cancel()
		d.parts.Wait()
		d.endLoans()
		stopRecording()
		recorder.Wait()
		d.records.flush(flushFor)
	}()

	l.step(Started{})
	kept := d.readKept(inner)
	recorder.Go(func() { d.records.run(recording, d.reportLog(inner)) })
	if d.cfg.Indicator != nil {
		d.parts.Go(func() { d.indicate(inner, l.shows) })
	}
	known := d.watchInputs(inner)
	for _, s := range d.scanners {
		d.parts.Go(func() { d.watchScanner(inner, s) })
	}
	known = d.both(kept, known)
	d.parts.Go(func() {
		select {
		case <-known:
			d.post(inner, func(l *loop) { l.scanning = true })
		case <-inner.Done():
		}
	})
	for i := range d.cfg.Readers {
		if _, ok := d.cfg.Readers[i].Reader.(healthReporter); ok {
			d.parts.Go(func() { d.watchHealth(inner, &d.cfg.Readers[i]) })
		}
		d.parts.Go(func() {
			// Nobody is let in before it is known whether there is a lockdown, or the
			// door is disabled.
			select {
			case <-known:
				d.read(inner, &d.cfg.Readers[i])
			case <-inner.Done():
			}
		})
	}
	l.run(ctx)
	return nil
}

// Name is the door's name.
func (d *Door) Name() string { return d.cfg.Name }

// post gives the loop something to do. It returns when the loop has taken it,
// or when ctx has ended.
func (d *Door) post(ctx context.Context, f func(*loop)) {
	select {
	case d.work <- f:
	case <-ctx.Done():
	}
}

// postEvent is post of an event alone.
func (d *Door) postEvent(ctx context.Context, ev Event) {
	d.post(ctx, func(l *loop) { l.step(ev) })
}

// Alive waits until the door's loop takes notice, and fails if it does not
// before ctx ends: it has not begun, hangs, or has ended.
func (d *Door) Alive(ctx context.Context) error {
	return d.ask(ctx, func(*loop) {})
}

// ask is post that says whether the loop took f.
func (d *Door) ask(ctx context.Context, f func(*loop)) error {
	select {
	case d.work <- f:
		return nil
	case <-d.ended:
		return fmt.Errorf("door %q has ended", d.cfg.Name)
	case <-ctx.Done():
		return fmt.Errorf("door %q does not answer: %w", d.cfg.Name, ctx.Err())
	}
}

// loop is the goroutine that owns the machine and the strike.
type loop struct {
	*Door
	stopping bool
	scanning bool // scanners may be asked
	m        *Machine
	events   []Event      // the first is being dealt with
	shows    chan Pattern // holds the newest only
	faults   map[string]string
	crashed  map[string]bool // parts whose fault is a panic
	unlocked bool            // what the strike was last told to be
	strikeOK bool            // and whether it did
	grant    *Grant          // that it was unlocked for
	retryAt  time.Time       // zero: the strike needs no retry
	backoff  time.Duration
	counts   Counts
	last     time.Time         // of the last decision
	said     func()            // writes the line about it, once
	keys     map[string]uint64 // keypad bursts of each reader
	outcomes map[visitorlog.FactorOutcome]uint64
	likely   map[string]string // what is likely wrong with the wires of a reader
	blind    bool              // what orders left cannot be read
	freeing  bool              // a record that the door is free for everybody is being written
	freeAt   time.Time         // no earlier is it tried again
	lookAt   time.Time         // when to look again at what no event tells; zero: never
}

func newLoop(d *Door) *loop {
	return &loop{
		Door:     d,
		m:        NewMachine(d.cfg.Times, d.cfg.FactorWindow, d.cfg.Contact != nil),
		shows:    make(chan Pattern, 1),
		faults:   make(map[string]string),
		crashed:  make(map[string]bool),
		strikeOK: true,
		said:     func() {},
		keys:     make(map[string]uint64),
		outcomes: make(map[visitorlog.FactorOutcome]uint64),
		likely:   make(map[string]string),
	}
}

// run deals with what happens until ctx ends.
func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.look()
		if next := earlier(earlier(l.m.Next(), l.retryAt), l.lookAt); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			l.stopping = true
			l.step(Stopped{"the controller stopped"})
			return
		case f := <-l.work:
			f(l)
		case <-l.wake:
		case <-timer.C:
			l.step(Tick{}) // first: it may end the time for which the strike is tried again
			if !l.retryAt.IsZero() && !time.Now().Before(l.retryAt) {
				l.move()
			}
		}
		l.reconsider()
		l.arrange()
	}
}

// step lets the machine step and does what it says. A step that follows from
// another (a strike that fails) begins when that one is done.
func (l *loop) step(ev Event) {
	l.events = append(l.events, ev)
	if len(l.events) > 1 {
		return
	}
	for len(l.events) > 0 {
		l.stepOnce(l.events[0])
		l.events = l.events[1:]
	}
	l.publish()
}

func (l *loop) stepOnce(ev Event) {
	before := l.m.State()
	now := time.Now()
	for _, c := range l.m.Step(now, ev) {
		switch c := c.(type) {
		case Unlock:
			l.unlocked, l.grant = true, c.Grant
			l.move()
		case Lock:
			l.unlocked, l.grant = false, nil
			l.move()
		case Record:
			l.records.add(l.record(now, c))
		case Signal:
			l.show(c.Pattern)
		case Alarm:
			l.counts.Alarms++
			l.log.Warn("alarm", append([]any{"event", eventName(c.Type)}, grantAttrs(c.Grant)...)...)
		case Ask:
			l.sides[c.Attempt.Side].asked.Store(&c.Attempt)
		case StopAsking:
			l.sides[c.Side].asked.Store(nil)
		case Await:
			l.sides[c.Side].waiting.Store(len(c.Attempts) > 0)
		case Conclude:
			l.conclude(c)
		}
	}
	after := l.m.State()
	if before.Contact != after.Contact {
		l.log.Info("door", "event", "contact", "contact", string(after.Contact))
	}
	if after.Warning && !before.Warning {
		l.log.Info("door", "event", "held_warning")
	}
}

// record makes the record that the machine asks for.
func (l *loop) record(now time.Time, c Record) *pending {
	wall, _ := l.cfg.Clock.Now()
	p := &pending{
		at: now, wall: wall, cause: c.Grant,
		draft: visitorlog.Draft{Type: c.Type, Data: visitorlog.Data{
			Door:   l.cfg.Name,
			Active: c.Active,
			Detail: c.Detail,
		}},
	}
	if g := c.Grant; g != nil {
		p.draft.Subject = g.Person
		p.draft.Data.Reader = g.Reader
		p.draft.Data.Direction = g.Direction
		p.draft.Data.Kind = g.Kind
	}
	switch c.Type {
	case visitorlog.PassageEntered, visitorlog.PassageLeft:
		p.draft.Data.Area = c.Grant.Area
	case visitorlog.PassageNotEntered:
		l.stayed(c.Grant)
		if len(c.Grant.traces) > 0 || !c.Grant.Durable {
			p.also = l.takesBack(c.Grant)
		}
	case visitorlog.FreeAccess:
		p.also = func(tx *visitorlog.Tx) (string, error) { return "", tx.Set(freeStates+l.cfg.Name, nil) }
	case visitorlog.BreakGlass:
		p.reserved = true
	case visitorlog.DoorForced, visitorlog.DoorHeld, visitorlog.DoorClosed, visitorlog.RequestToExit, visitorlog.Tamper:
		p.key = string(c.Type) // an input may chatter
	}
	return p
}

// move makes the strike what it was last told to be. After an error nobody
// knows where it stands: it is locked first and then tried again.
func (l *loop) move() {
	act, state := l.cfg.Strike.Lock, "locked"
	if l.unlocked {
		act, state = l.cfg.Strike.Unlock, "unlocked"
	}
	err := guard(act)
	l.said() // before the line about the strike
	if err == nil {
		l.retryAt, l.backoff, l.strikeOK = time.Time{}, 0, true
		l.log.Info("strike", append([]any{"state", state}, grantAttrs(l.grant)...)...)
		l.fault("strike", nil)
		return
	}
	if l.unlocked {
		err = errors.Join(err, guard(l.cfg.Strike.Lock))
	}
	if l.strikeOK {
		l.log.Error("strike", "wanted", state, "error", err)
	}
	l.strikeOK = false
	l.backoff = longer(l.backoff)
	l.retryAt = time.Now().Add(l.backoff)
	l.fault("strike", err)
}

// lockFinally locks the strike for good.
func (l *loop) lockFinally() error {
	var err error
	for range 3 {
		if err = guard(l.cfg.Strike.Lock); err == nil {
			return nil
		}
		time.Sleep(minBackoff)
	}
	l.log.Error("strike", "wanted", "locked", "error", err)
	return fmt.Errorf("door %q: the strike could not be locked: %w", l.cfg.Name, err)
}

// fault begins (err is not nil), goes on, or ends a part's fault. It is
// recorded when it begins and when it ends.
func (l *loop) fault(part string, err error) {
	before, was := l.faults[part]
	switch {
	case err == nil && !was:
		return
	case err != nil && was:
		l.faults[part] = clip(err.Error())
		return
	}
	active := err != nil
	detail := before
	if active {
		l.counts.Faults++
		detail = clip(err.Error())
		l.faults[part] = detail
		l.log.Warn("door", "event", "fault", "part", part, "fault", detail)
	} else {
		delete(l.faults, part)
		delete(l.crashed, part)
		l.log.Info("door", "event", "repaired", "part", part)
	}
	now := time.Now()
	p := l.record(now, Record{Type: visitorlog.DoorFault, Active: &active, Detail: part + ": " + detail})
	if name, ok := l.takes(part); ok {
		p.draft.Type = visitorlog.ReaderFault
		p.draft.Data.Reader = name
		p.draft.Data.Detail = detail
	}
	p.key = "fault " + part
	l.records.add(p)
	l.step(FaultChanged{len(l.faults) > 0})
}

// readerPart is the name of a reader among the parts of a door, and scannerPart
// that of a scanner.
func readerPart(name string) string  { return "reader " + name }
func scannerPart(name string) string { return "scanner " + name }

// takes is the name of the reader or scanner that a part is, if it is one.
func (d *Door) takes(part string) (name string, ok bool) {
	for i := range d.cfg.Readers {
		if name = d.cfg.Readers[i].Name; readerPart(name) == part {
			return name, true
		}
	}
	for i := range d.cfg.Scanners {
		if name = d.cfg.Scanners[i].Name; scannerPart(name) == part {
			return name, true
		}
	}
	return "", false
}

// failed locks the door after a panic: once for each fault of the part, as one
// that panics for ever must not keep others from passing.
func (l *loop) failed(part string, p *panicked) {
	if l.crashed[part] {
		return
	}
	l.crashed[part] = true
	l.log.Error("door", "event", "panic", "part", part, "panic", p.Error(), "stack", p.stack)
	l.step(Stopped{"the door was locked: a part of it failed"})
}

// show hands the newest pattern to the indicator's goroutine.
func (l *loop) show(p Pattern) {
	select {
	case <-l.shows: // not shown yet, and old
	default:
	}
	l.shows <- p
}

// indicate shows patterns. An indicator that fails is tried again until
// another pattern is to be shown or it works.
func (d *Door) indicate(ctx context.Context, shows <-chan Pattern) {
	var wait time.Duration
	var pattern Pattern
	for {
		var again <-chan time.Time
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case pattern = <-shows:
		case <-again:
		}
		err := guard(func() error { return d.cfg.Indicator.Show(string(pattern)) })
		if err == nil && wait == 0 {
			continue
		}
		d.post(ctx, func(l *loop) { l.fault("indicator", err) })
		if wait = longer(wait); err == nil {
			wait = 0
		}
	}
}

// watchInputs starts the goroutines of the inputs. The channel that it
// returns is closed when each has told its state or failed for the first time.
func (d *Door) watchInputs(ctx context.Context) <-chan struct{} {
	nothing := func(*loop) {}
	inputs := []struct {
		part    string
		in      Input
		changed func(active bool) Event
		lost    func(*loop)
	}{
		{"contact", d.cfg.Contact, func(open bool) Event {
			if open {
				return Opened{}
			}
			return Closed{}
		}, func(l *loop) { l.step(ContactLost{}) }},
		{"request to exit", d.cfg.RequestToExit, func(active bool) Event { return ExitRequested{active} },
			func(l *loop) { l.step(ExitRequested{false}) }},
		{"tamper", d.cfg.Tamper, func(active bool) Event { return TamperChanged{active} }, nothing},
		// A lockdown outlives the fault of its switch.
		{"lockdown", d.cfg.Lockdown, func(active bool) Event {
			d.lockdown.Store(active) // at once for decisions
			return LockdownChanged{active}
		}, nothing},
	}
	var first sync.WaitGroup
	for _, in := range inputs {
		if in.in == nil {
			continue
		}
		first.Add(1)
		d.parts.Go(func() { d.watch(ctx, in.part, in.in, in.changed, in.lost, sync.OnceFunc(first.Done)) })
	}
	known := make(chan struct{})
	d.parts.Go(func() {
		first.Wait()
		close(known)
	})
	return known
}

func (d *Door) watch(ctx context.Context, part string, in Input, event func(bool) Event, lost func(*loop), first func()) {
	defer first()
	var wait time.Duration
	for ctx.Err() == nil {
		err := guard(func() error {
			return in.Watch(ctx, func(active bool) {
				wait = 0
				ev := event(active)
				d.post(ctx, func(l *loop) {
					l.fault(part, nil)
					l.step(ev)
				})
				first()
			})
		})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it stopped to watch")
		}
		d.post(ctx, func(l *loop) {
			var p *panicked
			if errors.As(err, &p) {
				l.failed(part, p)
			}
			l.fault(part, err)
			lost(l)
		})
		first()
		wait = longer(wait)
		sleep(ctx, wait)
	}
}

// panicked is a panic of a driver, as an error.
type panicked struct {
	value any
	stack string
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// guard calls f and turns its panic into an error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicked{p, string(debug.Stack())}
		}
	}()
	return f()
}

// longer is the wait after the one that did not help.
func longer(wait time.Duration) time.Duration {
	return min(max(2*wait, minBackoff), maxBackoff)
}

// sleep waits, less long if ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// clip makes an error's text fit for records and status.
func clip(s string) string {
	s = strings.ReplaceAll(s, "\n", "; ")
	if len(s) > maxFaultText {
		s = s[:maxFaultText]
	}
	return strings.ToValidUTF8(s, "?")
}
