package panel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
)

// What a peripheral says that it has: levels of its capabilities.
const (
	timedLight = 2 // lights flash, and change by themselves
	rowOf      = 16
)

// pattern is what a reader shows. Its light does something once, if it can, and
// then something else until another pattern comes.
type pattern struct {
	once  osdp.Flash
	times uint16 // how long that lasts, in units of 100 ms; 0: it does nothing once
	light osdp.Flash
	beep  osdp.Buzz
	text  string // at most rowOf characters
}

// steady is a light that does not change. With both times zero some readers
// stay dark.
func steady(c osdp.Color) osdp.Flash { return osdp.Flash{On: 1, OnColor: c, OffColor: c} }

// blink is on and off, in units of 100 ms.
func blink(on, off byte, c osdp.Color) osdp.Flash { return osdp.Flash{On: on, Off: off, OnColor: c} }

func beep(on, off, count byte) osdp.Buzz {
	return osdp.Buzz{Tone: osdp.ToneDefault, On: on, Off: off, Count: count}
}

var silence = osdp.Buzz{Tone: osdp.ToneOff}

// patterns differ in their rhythm and their words too: not everybody tells red
// from green, and not everybody hears.
var patterns = map[string]pattern{
	"idle":            {light: steady(osdp.Red), beep: silence, text: "Show your badge"},
	"waiting":         {light: blink(4, 4, osdp.Green), beep: beep(1, 1, 1), text: "Please wait"},
	"granted":         {once: blink(1, 1, osdp.Green), times: 4, light: steady(osdp.Green), beep: beep(4, 1, 1), text: "Come in"},
	"denied":          {light: blink(1, 1, osdp.Red), beep: beep(1, 1, 3), text: "No entry"},
	"fault":           {light: osdp.Flash{On: 5, Off: 5, OnColor: osdp.Red, OffColor: osdp.Green}, beep: beep(8, 1, 1), text: "Out of order"},
	"held_warning":    {light: blink(2, 3, osdp.Red), beep: beep(2, 3, 0), text: "Close the door"},
	"ask_badge":       {light: blink(9, 1, osdp.Amber), beep: beep(1, 1, 1), text: "Your badge"},
	"ask_fingerprint": {light: blink(5, 5, osdp.Amber), beep: beep(1, 1, 1), text: "Your finger"},
	"ask_iris":        {light: blink(2, 2, osdp.Amber), beep: beep(1, 1, 1), text: "Look here"},
	"ask_pin":         {light: blink(1, 9, osdp.Amber), beep: beep(1, 1, 1), text: "Your PIN, then #"},
	"ask_company":     {light: blink(5, 2, osdp.Amber), beep: beep(1, 1, 2), text: "Second person"},
	"identify":        {light: osdp.Flash{On: 2, Off: 2, OnColor: osdp.Green, OffColor: osdp.Red}, beep: beep(1, 9, 3), text: "This is the door"},
	"try_again":       {once: blink(1, 1, osdp.Red), times: 4, light: osdp.Flash{On: 2, Off: 2, OnColor: osdp.Amber, OffColor: osdp.Red}, beep: beep(1, 1, 2), text: "Once more"},
}

// Indicator is the first light, the buzzer and the display of a reader: those of
// them that it says it has.
type Indicator struct {
	p      *peripheral
	reader byte

	mu     sync.Mutex
	wanted string
	err    error // of the last pattern that could not be shown
	wake   chan struct{}
}

func newIndicator(p *peripheral, reader byte) *Indicator {
	return &Indicator{p: p, reader: reader, wake: make(chan struct{}, 1)}
}

// Show has a pattern shown, now and whenever the reader is there again. It does
// not wait for that. It fails for a pattern that does not exist, while the
// reader does not work, and once for one that could not be shown.
func (i *Indicator) Show(name string) error {
	if _, ok := patterns[name]; !ok {
		return fmt.Errorf("unknown pattern %q", name)
	}
	if err := i.p.start(); err != nil {
		return err
	}
	i.mu.Lock()
	err := i.err
	i.wanted, i.err = name, nil
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default: // it has not looked since it was last woken
	}
	if wrong := i.p.condition().wrong; wrong != nil {
		return wrong
	}
	return err
}

// play shows what is wanted, until ctx ends.
func (i *Indicator) play(ctx context.Context) {
	shown, on := "", 0 // and on which channel
	for ctx.Err() == nil {
		c := i.p.condition()
		i.mu.Lock()
		wanted := i.wanted
		i.mu.Unlock()
		if c.up && wanted != "" && (wanted != shown || c.channel != on) {
			shown, on = wanted, c.channel
			if err := i.perform(ctx, patterns[wanted]); err != nil {
				shown = ""
				if now := i.p.condition(); !now.up || now.channel != on {
					continue // that is why, and it is shown when the reader is back
				}
				i.mu.Lock()
				i.err = fmt.Errorf("%v: %w", i.p, err)
				i.mu.Unlock()
			}
			// Another pattern may be wanted by now: then wake holds a token.
		}
		select {
		case <-i.wake:
		case <-c.changed:
		case <-ctx.Done():
		}
	}
}

// perform tells the reader what to show.
func (i *Indicator) perform(ctx context.Context, p pattern) error {
	commands := i.commands(p, i.p.own.Status().Capabilities)
	if len(commands) == 0 {
		return errors.New("it says that it has neither light nor buzzer nor display")
	}
	for _, c := range commands {
		if _, err := i.p.own.Do(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// commands are a pattern in the words of a reader with these capabilities.
func (i *Indicator) commands(p pattern, can osdp.Capabilities) []osdp.Command {
	var all []osdp.Command
	if level := can.Get(osdp.FunctionLED).Level; level > 0 {
		led := osdp.LED{Reader: i.reader, Temporary: osdp.LEDCancel, Permanent: true, Steady: p.light}
		switch {
		case level < timedLight:
			led.Steady = steady(p.light.OnColor)
		case p.times > 0:
			led.Temporary, led.Flash, led.Timer = osdp.LEDSet, p.once, p.times
		}
		all = append(all, osdp.SetLEDs{led})
	}
	if can.Get(osdp.FunctionBuzzer).Level > 0 {
		p.beep.Reader = i.reader
		all = append(all, p.beep)
	}
	if can.Get(osdp.FunctionText).Level > 0 {
		// The whole row, so that nothing of the last words is left in it.
		text := p.text + strings.Repeat(" ", rowOf-len(p.text))
		all = append(all, osdp.ShowText{Reader: i.reader, Mode: osdp.TextPermanent, Row: 1, Column: 1, Text: text})
	}
	return all
}
