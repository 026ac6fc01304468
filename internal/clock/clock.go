// Package clock doubts the time. It reads the wall clock together with what
// is known of it: whether something disciplines it, whether a real-time clock
// kept it while the power was off, and times that have certainly passed.
package clock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
)

const (
	// maxSyncError is the error bound up to which the clock counts as
	// disciplined now. The kernel lets the bound grow by 0.5 ms a second
	// (500 ppm) from the last correction, so 4 s is reached a little over two
	// hours after the time source went away: longer than the longest usual
	// NTP poll of 2,048 s, and long before the kernel itself gives up at 16 s.
	maxSyncError = 4 * time.Second

	// slack is how far the clock may read before a time that has passed:
	// the CRM's own clock and a build machine's are not exact either.
	slack = time.Minute

	// rtcAgreement is how far a real-time clock and the system's may differ
	// if the one was set from the other at boot. Boot programs that only wind
	// the clock on to a time saved in a file leave a larger difference.
	rtcAgreement = time.Hour

	// stepOver is the size from which a jump of the clock is reported.
	// NTP slews what is smaller.
	stepOver = 2 * time.Second

	// rememberEvery is how far the floor rises before it is remembered again:
	// each receipt raises it, and each memory costs a card several writes. The
	// log keeps the receipts themselves.
	rememberEvery = 10 * time.Minute

	watchEvery = time.Second
)

// Evidence is what is known of the wall clock at one moment.
type Evidence struct {
	Wall  time.Time
	Floor time.Time // has passed by the CRM's word; zero: none known
	Build time.Time // has passed, since the program was built then
	// Kernel is the kernel's own view.
	Kernel Kernel
	// Disciplined says that a time source set the clock at least once since
	// boot, whether or not it still does.
	Disciplined bool
	// Kept says that the platform always starts the clock from one that runs
	// while the power is off (a PC's, a virtual machine's).
	Kept bool
	// RTC is what the real-time clock that set the system's at boot reads;
	// zero if there is none.
	RTC time.Time
}

// Kernel is the state of the clock as adjtimex(2) tells it.
type Kernel struct {
	Unsynchronised bool // STA_UNSYNC
	MaxError       time.Duration
}

// State judges the clock.
//
//   - unset: it reads earlier than a time that has certainly passed, or
//     nothing vouches for it since boot: no time source, no real-time clock.
//     A time that merely looks plausible vouches for nothing: on a machine
//     without a real-time clock it is the time of the last shutdown.
//   - synchronised: a time source disciplines it now.
//   - drifting: a time source did so earlier since boot, or a real-time clock
//     kept it; nothing holds it now.
func State(e Evidence) access.ClockState {
	passed := e.Build
	if e.Floor.After(passed) {
		passed = e.Floor
	}
	switch {
	case e.Wall.Before(passed.Add(-slack)):
		return access.ClockUnset
	case !e.Kernel.Unsynchronised && e.Kernel.MaxError <= maxSyncError:
		return access.ClockSynchronised
	case e.Disciplined || !e.Kernel.Unsynchronised || e.Kept || rtcKept(e, passed):
		return access.ClockDrifting
	default:
		return access.ClockUnset
	}
}

// rtcKept reports whether a real-time clock kept the time: its own reading is
// possible, and the system's clock still agrees with it.
func rtcKept(e Evidence, passed time.Time) bool {
	if e.RTC.IsZero() || e.RTC.Before(passed.Add(-slack)) {
		return false
	}
	return e.Wall.Sub(e.RTC).Abs() <= rtcAgreement
}

// Memory is what a clock must not forget when the program ends. The caller
// keeps it.
type Memory struct {
	Floor time.Time `json:"floor,omitzero"`
	// Boot is the boot in which a time source was last seen to discipline
	// the clock.
	Boot string `json:"boot,omitempty"`
}

// Options make a Clock.
type Options struct {
	Memory Memory
	// Remember is called, one call at a time, when the boot has changed or the
	// floor has risen by rememberEvery, from whichever goroutine noticed. May
	// be nil.
	Remember func(Memory)
	Logger   *slog.Logger
}

// Clock is the controller's clock. It may be used from several goroutines.
type Clock struct {
	sys      system
	boot     string
	build    time.Time
	remember func(Memory)
	log      *slog.Logger

	mu       sync.Mutex
	memory   Memory
	platform platform // as last read
	faulty   bool     // adjtimex failed, and it was said

	remembering sync.Mutex
	told        Memory
}

// New reads what there is to know of the machine's clock. It fails only if
// the kernel does not say which boot this is.
func New(o Options) (*Clock, error) { return newClock(o, linux{}, buildTime()) }

func newClock(o Options, sys system, build time.Time) (*Clock, error) {
	boot, err := sys.boot()
	if err != nil {
		return nil, fmt.Errorf("reading the boot id: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Clock{
		sys: sys, boot: boot, build: build, log: o.Logger,
		remember: o.Remember, memory: o.Memory, told: o.Memory,
		platform: sys.platform(),
	}, nil
}

// Now is the wall clock with its state. The time keeps Go's monotonic
// reading.
func (c *Clock) Now() (time.Time, access.ClockState) {
	e := c.Evidence()
	return e.Wall, State(e)
}

// Evidence is what is known of the wall clock now.
func (c *Clock) Evidence() Evidence {
	kernel, err := c.sys.kernel()
	if err != nil {
		// A sandbox may forbid the call. Nothing is then known of a time
		// source, and what is not known does not count.
		kernel = Kernel{Unsynchronised: true}
	}
	now, uptime := c.sys.now(), c.sys.uptime()

	c.mu.Lock()
	if err != nil && !c.faulty {
		c.log.Warn("the kernel does not tell the state of the clock; it counts as not synchronised", "error", err)
	}
	c.faulty = err != nil
	e := Evidence{
		Wall: now, Floor: c.memory.Floor, Build: c.build, Kernel: kernel,
		Disciplined: c.platform.synchronised || c.memory.Boot == c.boot,
		Kept:        c.platform.kept, RTC: c.platform.rtc(uptime),
	}
	changed := false
	if !kernel.Unsynchronised && c.memory.Boot != c.boot {
		c.memory.Boot, changed = c.boot, true
	}
	c.mu.Unlock()

	if changed {
		c.tell()
	}
	return e
}

// Stamp is what a record says of the clock. Its fields are those of
// visitorlog.Clock, to which it converts.
type Stamp struct {
	State    access.ClockState
	Boot     string
	UptimeMS int64
}

// Stamp is the wall clock in UTC with all that a record says of it.
func (c *Clock) Stamp() (time.Time, Stamp) {
	now, state := c.Now()
	return now.UTC(), Stamp{State: state, Boot: c.boot, UptimeMS: c.Uptime().Milliseconds()}
}

// Moment is now, to be compared with another moment, also over a restart.
func (c *Clock) Moment() access.Moment {
	now, state := c.Now()
	return access.Moment{Wall: now, Clock: state, Boot: c.boot, Uptime: c.Uptime()}
}

// Boot is the kernel's id of this boot.
func (c *Clock) Boot() string { return c.boot }

// Uptime is the time since boot, suspended time included.
func (c *Clock) Uptime() time.Duration { return c.sys.uptime() }

// Floor is the latest time that the CRM has vouched for; zero: none.
func (c *Clock) Floor() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.memory.Floor
}

// SetFloor raises the floor to the time of a receipt from the CRM, whose
// signature the caller has checked. It never lowers it.
func (c *Clock) SetFloor(t time.Time) {
	c.mu.Lock()
	raised := t.After(c.memory.Floor)
	if raised {
		c.memory.Floor = t
	}
	c.mu.Unlock()
	if raised {
		c.tell()
	}
}

// tell hands the memory to the caller, in order and never an older one after
// a newer.
func (c *Clock) tell() {
	c.remembering.Lock()
	defer c.remembering.Unlock()
	c.mu.Lock()
	m := c.memory
	c.mu.Unlock()
	if c.remember != nil && (m.Boot != c.told.Boot || m.Floor.Sub(c.told.Floor) >= rememberEvery) {
		c.told = m
		c.remember(m)
	}
}

// TLSTime is the time by which certificates are judged: the latest of the
// clock, the floor and the build. A controller whose clock was never set can
// so still tell an expired certificate, and reach what sets its clock.
func (c *Clock) TLSTime() time.Time {
	t := c.sys.now()
	for _, passed := range []time.Time{c.Floor(), c.build} {
		if passed.After(t) {
			t = passed
		}
	}
	return t
}

// Step is a jump of the wall clock: somebody set it, or a time source found
// it too wrong to slew.
type Step struct {
	From time.Time // what the clock would have read
	To   time.Time // what it read instead
}

// By is how far the clock jumped; negative: backwards.
func (s Step) By() time.Duration { return s.To.Sub(s.From) }

// Run compares the wall clock with the time since boot once a second until
// ctx ends, and reports jumps of more than two seconds in either direction.
// Smaller ones add up until they are as large.
func (c *Clock) Run(ctx context.Context, stepped func(Step)) {
	var w watcher
	c.look(&w, stepped)
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			c.look(&w, stepped)
		}
	}
}

func (c *Clock) look(w *watcher, stepped func(Step)) {
	before := c.sys.uptime()
	wall := c.sys.now().Round(0) // drops the monotonic reading, which hides steps
	after := c.sys.uptime()
	// Held up between the two readings, their difference says nothing.
	if after-before > stepOver/4 {
		return
	}
	step, ok := w.look(wall, after)
	if !ok {
		c.Evidence() // notices that a time source has come
		return
	}
	p := c.sys.platform()
	c.mu.Lock()
	c.platform = p
	c.mu.Unlock()
	stepped(step)
}

// watcher holds the wall clock against the time since boot. Slewing moves
// both; only a step changes the difference.
type watcher struct {
	zero time.Time // the wall clock's reading at boot, as last believed
}

func (w *watcher) look(wall time.Time, uptime time.Duration) (Step, bool) {
	zero := wall.Add(-uptime)
	if w.zero.IsZero() {
		w.zero = zero
		return Step{}, false
	}
	if zero.Sub(w.zero).Abs() <= stepOver {
		return Step{}, false
	}
	s := Step{From: w.zero.Add(uptime), To: wall}
	w.zero = zero
	return s, true
}
