package gpio

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// lamps are what of an indicator is on.
type lamps uint8

const (
	green lamps = 1 << iota
	red
	beep
	dark lamps = 0
)

var everyLamp = []lamps{green, red, beep}

// step is what is on, and for how long; 0: until another pattern is shown.
type step struct {
	on   lamps
	last time.Duration
}

// pattern is shown once, and then its second part again and again.
type pattern struct{ once, again []step }

const ms = time.Millisecond

// patterns differ in their rhythm too: not everybody tells red from green, and
// not everybody hears.
var patterns = map[string]pattern{
	"idle":            {nil, []step{{red, 0}}},
	"waiting":         {[]step{{green | beep, 100 * ms}}, []step{{green, 400 * ms}, {dark, 400 * ms}}},
	"granted":         {[]step{{green | beep, 400 * ms}}, []step{{green, 0}}},
	"denied":          {[]step{{red | beep, 120 * ms}, {dark, 120 * ms}, {red | beep, 120 * ms}, {dark, 120 * ms}, {red | beep, 120 * ms}, {dark, 120 * ms}}, []step{{red, 120 * ms}, {dark, 120 * ms}}},
	"fault":           {[]step{{green | red | beep, 800 * ms}}, []step{{red, 500 * ms}, {green, 500 * ms}}},
	"held_warning":    {nil, []step{{red | beep, 250 * ms}, {dark, 250 * ms}}},
	"ask_badge":       ask(1),
	"ask_fingerprint": ask(2),
	"ask_iris":        ask(3),
	"ask_pin":         ask(4),
	"ask_company":     ask(5),
	"identify":        {nil, []step{{green | red, 300 * ms}, {dark, 300 * ms}}},
	"try_again":       {[]step{{red | beep, 120 * ms}, {dark, 120 * ms}, {red | beep, 120 * ms}, {dark, 120 * ms}}, []step{{green, 150 * ms}, {red, 150 * ms}, {dark, 300 * ms}}},
}

// ask beeps once and flashes green as often as n, again and again: two lights
// have no words for what is asked, but flashes can be counted.
func ask(n int) pattern {
	var p pattern
	for range n {
		p.again = append(p.again, step{green, 100 * ms}, step{dark, 150 * ms})
	}
	p.again[len(p.again)-1].last = 600 * ms // between one group and the next
	p.once = slices.Clone(p.again)
	p.once[0].on |= beep
	return p
}

// Indicator is up to two lights and a beeper.
type Indicator struct {
	lines map[lamps]*driven

	mu      sync.Mutex
	pattern string
	err     error // of the last pattern that could not be shown
	closed  bool

	changed chan struct{} // holds one token: look again
}

func newIndicator(lines map[lamps]*driven) *Indicator {
	i := &Indicator{lines: lines, changed: make(chan struct{}, 1)}
	go i.play()
	return i
}

// Show shows a pattern from its beginning, unless it is the one that is shown
// already. It fails for one that does not exist, and once for one that could
// not be shown.
func (i *Indicator) Show(pattern string) error {
	if _, ok := patterns[pattern]; !ok {
		return fmt.Errorf("unknown pattern %q", pattern)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return ErrClosed
	}
	err := i.err
	if i.pattern != pattern || err != nil {
		i.err = nil
		i.pattern = pattern
		i.wake()
	}
	return err
}

// wake has the player look again.
func (i *Indicator) wake() {
	select {
	case i.changed <- struct{}{}:
	default: // it has not looked since it was last woken
	}
}

// play is the one goroutine that drives the lines, until the indicator is
// closed.
func (i *Indicator) play() {
	for {
		i.mu.Lock()
		p, closed := patterns[i.pattern], i.closed
		i.mu.Unlock()
		if closed {
			return
		}
		i.perform(p)
	}
}

// perform shows a pattern until there is something else to do.
func (i *Indicator) perform(p pattern) {
	for steps := p.once; ; steps = p.again {
		for _, s := range steps {
			if err := i.light(s.on); err != nil {
				i.mu.Lock()
				i.err = err
				i.mu.Unlock()
				<-i.changed
				return
			}
			var over <-chan time.Time
			if s.last > 0 {
				over = time.After(s.last)
			}
			select {
			case <-i.changed:
				return
			case <-over:
			}
		}
		if len(p.again) == 0 {
			<-i.changed // nothing was ever shown
			return
		}
	}
}

// light switches every line that is there.
func (i *Indicator) light(on lamps) error {
	var faults []error
	for _, lamp := range everyLamp {
		if line, ok := i.lines[lamp]; ok {
			faults = append(faults, line.on(on&lamp != 0))
		}
	}
	return errors.Join(faults...)
}

// Look tells the lines' levels at this moment, in words.
func (i *Indicator) Look() (string, error) {
	var each []string
	for _, lamp := range everyLamp {
		if line, ok := i.lines[lamp]; ok {
			text, err := line.look("on", "off")
			if err != nil {
				return "", err
			}
			each = append(each, text)
		}
	}
	return strings.Join(each, ", "), nil
}

// close leaves everything dark, whatever the player still tries, and ends it.
func (i *Indicator) close() error {
	i.mu.Lock()
	closed := i.closed
	i.closed = true
	i.mu.Unlock()
	if closed {
		return nil
	}
	i.wake()
	var faults []error
	for _, line := range i.lines {
		faults = append(faults, line.close())
	}
	return errors.Join(faults...)
}
