package scanner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// Scanner is a fingerprint module at a door.
type Scanner struct {
	device   Device // its rate is known once the module was found
	way      way
	settings *Settings
	log      *slog.Logger

	turn  fingerprint.Turn // to use the module
	shown time.Time        // when the lamp showed what came of a scan; of whoever has the turn

	mu      sync.Mutex
	known   bool // whether conn and fault say something yet
	conn    *connection
	fault   error            // while there is no connection
	left    []fingerprint.ID // what an enrolment may have left behind
	changed chan struct{}    // closed and replaced when conn or fault changes
}

var _ biometric.Copier = (*Scanner)(nil)

// connection is a module that can be used.
type connection struct {
	module fingerprint.Module
	failed chan error // holds why it cannot be used any longer
	proved time.Time  // when it was last the module that was set up; of whoever has the turn
}

func newScanner(d *Device, w way, s *Settings, log *slog.Logger) *Scanner {
	return &Scanner{
		device: *d, way: w, settings: s, log: log.With("port", d.Port),
		turn: fingerprint.NewTurn(), changed: make(chan struct{}),
	}
}

// keep keeps the connection until ctx ends.
func (s *Scanner) keep(ctx context.Context) {
	k := fingerprint.Keep{
		Open: func(ctx context.Context) (fingerprint.Module, error) {
			return families[s.device.Family].open(ctx, &s.device, s.way)
		},
		Serial:  s.device.Serial,
		Prepare: s.prepare,
		Use:     s.use,
		State: func(fault error) {
			if fault != nil {
				s.become(nil, fault)
			}
		},
		Backoff: s.settings.backoff,
	}
	k.Run(ctx) // ends with ctx, and for nothing else
	s.become(nil, ErrClosed)
}

// prepare makes a module that was just connected what the configuration says.
func (s *Scanner) prepare(ctx context.Context, m fingerprint.Module) error {
	if m.Info().Serial == "" {
		return fmt.Errorf("%w: the module tells no serial number, and could be exchanged unnoticed: set mark = true, and it keeps one in its notepad", biometric.ErrUnsupported)
	}
	if want := s.device.Security; want != 0 {
		level, err := m.Security(ctx)
		if err == nil && level != want {
			err = m.SetSecurity(ctx, want)
		}
		if err != nil {
			return fmt.Errorf("the level of security: %w", err)
		}
	}
	s.mu.Lock()
	left := slices.Clone(s.left)
	s.mu.Unlock()
	for _, id := range left {
		if err := m.Delete(ctx, id); err != nil && !errors.Is(err, fingerprint.ErrEmpty) {
			return fmt.Errorf("what is left of an enrolment in slot %d: %w", id, err)
		}
	}
	s.mu.Lock()
	s.left = nil
	s.mu.Unlock()
	return nil
}

// use lends the module out until it fails. While nobody uses it, it is asked
// now and then whether it is still there.
func (s *Scanner) use(ctx context.Context, m fingerprint.Module) error {
	i := m.Info()
	s.log.Info("fingerprint module connected", "family", i.Family, "model", i.Model, "firmware", i.Firmware, "serial", i.Serial, "capacity", i.Capacity, "baud", i.Baud)
	if s.device.Serial == "" {
		s.log.Warn("whichever fingerprint module answers first is taken: set serial to this one's", "serial", i.Serial)
	}
	s.device.Baud = i.Baud // to look for it again would keep the door waiting
	c := &connection{m, make(chan error, 1), time.Now()}
	s.become(c, nil)
	idle := time.NewTicker(s.settings.idle)
	defer idle.Stop()
	for {
		select {
		case err := <-c.failed:
			return err
		case <-ctx.Done():
			s.become(nil, ErrClosed)
			return ctx.Err()
		case <-idle.C:
			s.ping(ctx, c)
		}
	}
}

// ping asks a module that nobody uses whether it is there.
func (s *Scanner) ping(ctx context.Context, c *connection) {
	select {
	case s.turn <- struct{}{}:
		defer s.turn.Give()
		s.judge(ctx, c, c.prove(ctx))
	default: // whoever uses it does
	}
}

// prove asks a module whether it is there, and still the one that was set up.
func (c *connection) prove(ctx context.Context) error {
	err := c.module.Ping(ctx)
	if err == nil {
		c.proved = time.Now()
	}
	return err
}

// judge looks whether a connection can still be used after err.
func (s *Scanner) judge(ctx context.Context, c *connection, err error) {
	left, isLeft := errors.AsType[*fingerprint.LeftError](err)
	if isLeft {
		s.mu.Lock()
		s.left = append(s.left, left.ID) // for the next connection to delete
		s.mu.Unlock()
	}
	if err == nil || !isLeft && (ctx.Err() != nil || fingerprint.IsRefusal(err)) {
		return
	}
	s.become(nil, err)
	select {
	case c.failed <- err:
	default:
	}
}

// become has everybody know whether there is a connection. That the driver is
// closed is the last that is known.
func (s *Scanner) become(c *connection, fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.fault, ErrClosed) {
		return
	}
	s.known, s.conn, s.fault = true, c, fault
	close(s.changed)
	s.changed = make(chan struct{})
}

// connection waits until it is known whether there is one.
func (s *Scanner) connection(ctx context.Context) (*connection, error) {
	for {
		s.mu.Lock()
		known, c, fault, changed := s.known, s.conn, s.fault, s.changed
		s.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case known:
			return c, fault
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// alone has f use the module while nobody else does. Where one scan follows the
// other, so that it is never idle, it is asked before some of them whether it is
// still the same one.
func (s *Scanner) alone(ctx context.Context, f func(fingerprint.Module) error) error {
	if err := s.turn.Take(ctx); err != nil {
		return err
	}
	defer s.turn.Give()
	c, err := s.connection(ctx)
	if err != nil {
		return err
	}
	if time.Since(c.proved) > 2*s.settings.idle {
		err = c.prove(ctx)
	}
	if err == nil {
		err = f(c.module)
	}
	s.judge(ctx, c, err)
	switch {
	case errors.Is(err, serial.ErrClosed):
		return ErrClosed
	case errors.Is(err, fingerprint.ErrUnsupported):
		return fmt.Errorf("%w: %w", biometric.ErrUnsupported, err)
	}
	return err
}

// Watch tells whether the module can be used. Attempts to connect that fail
// alike are one fault.
func (s *Scanner) Watch(ctx context.Context, changed func(fault error)) error {
	told, last := false, error(nil)
	for {
		s.mu.Lock()
		known, fault, wake := s.known, s.fault, s.changed
		s.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(fault, ErrClosed):
			return ErrClosed
		case known && (!told || !alike(last, fault)):
			told, last = true, fault
			changed(fault)
			continue // changed may have taken long
		}
		select {
		case <-ctx.Done():
		case <-wake:
		}
	}
}

// alike reports whether two faults are the same to whoever is to mend them.
func alike(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	silent := func(err error) bool { return fingerprint.NoAnswer(err) || errors.Is(err, fingerprint.ErrNotFound) }
	if silent(a) || silent(b) {
		return silent(a) && silent(b)
	}
	for _, kind := range []error{fingerprint.ErrWrongModule, fingerprint.ErrLocked, fingerprint.ErrRestarted, serial.ErrGone, serial.ErrStuck} {
		if errors.Is(a, kind) || errors.Is(b, kind) {
			return errors.Is(a, kind) && errors.Is(b, kind)
		}
	}
	return a.Error() == b.Error()
}

// Scan waits for a finger, for as long as the device's timeout, and compares
// it: with one reference 1:1; with several by finding out whose it is, which
// must then be one of them; with none, with everybody's.
func (s *Scanner) Scan(ctx context.Context, with []biometric.Reference) (biometric.Match, error) {
	var got biometric.Match
	err := s.alone(ctx, func(m fingerprint.Module) error {
		s.waiting(ctx, m)
		found, err := compare(ctx, m, with)
		if err == nil {
			got = outcome(found, with)
		}
		s.result(ctx, m, got.Outcome)
		return err
	})
	if err != nil {
		return biometric.Match{}, err
	}
	return got, nil
}

func compare(ctx context.Context, m fingerprint.Module, with []biometric.Reference) (fingerprint.Match, error) {
	if len(with) == 1 {
		found, err := m.Verify(ctx, fingerprint.ID(with[0].Slot))
		if !errors.Is(err, fingerprint.ErrEmpty) && !errors.Is(err, fingerprint.ErrNoSuchID) {
			return found, err
		}
		// A slot that is empty is nobody's, as among several.
	}
	return m.Identify(ctx)
}

// outcome is a module's match as one of the references.
func outcome(found fingerprint.Match, with []biometric.Reference) biometric.Match {
	switch found.Outcome {
	case fingerprint.Matched, fingerprint.Duress:
	case fingerprint.Fake:
		return biometric.Match{Outcome: biometric.Fake}
	case fingerprint.NoFinger:
		return biometric.Match{Outcome: biometric.Nobody}
	case fingerprint.TryAgain:
		return biometric.Match{Outcome: biometric.TryAgain}
	default:
		return biometric.Match{Outcome: biometric.NoMatch}
	}
	m := biometric.Match{Outcome: biometric.Matched, Slot: uint32(found.ID), Duress: found.Outcome == fingerprint.Duress}
	if len(with) == 0 {
		return m
	}
	i := slices.IndexFunc(with, func(r biometric.Reference) bool { return r.Slot == m.Slot })
	if i < 0 {
		return biometric.Match{Outcome: biometric.NoMatch}
	}
	m.Part = with[i].Part
	m.Duress = m.Duress || with[i].Duress
	return m
}

const (
	// lampTime is how long the lamp may keep anybody waiting.
	lampTime = 200 * time.Millisecond
	// resultTime is for how long the lamp is left to show what came of a scan.
	resultTime = time.Second
)

var results = map[biometric.Outcome]fingerprint.Light{
	biometric.Matched:  {Colour: fingerprint.Green, Effect: fingerprint.Flash, Times: 2},
	biometric.NoMatch:  {Colour: fingerprint.Red, Effect: fingerprint.Flash, Times: 2},
	biometric.Fake:     {Colour: fingerprint.Red, Effect: fingerprint.Flash, Times: 2},
	biometric.TryAgain: {Colour: fingerprint.Yellow, Effect: fingerprint.Flash, Times: 2},
}

// waiting has the lamp say that a finger is waited for, unless it still says
// what came of the one before.
func (s *Scanner) waiting(ctx context.Context, m fingerprint.Module) {
	if m.Info().Coloured && time.Since(s.shown) > resultTime {
		light(ctx, m, fingerprint.Light{Colour: fingerprint.Blue, Effect: fingerprint.Breathe})
	}
}

// result has the lamp say what came of a scan; it goes out where nothing did.
func (s *Scanner) result(ctx context.Context, m fingerprint.Module, o biometric.Outcome) {
	if !m.Info().Coloured {
		return
	}
	l, ok := results[o]
	if ok {
		s.shown = time.Now()
	}
	light(ctx, m, l)
}

// light sets the lamp. That it fails is no fault: what is asked of the module
// next tells if it is the module that does.
func light(ctx context.Context, m fingerprint.Module, l fingerprint.Light) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lampTime)
	defer cancel()
	_ = m.Show(ctx, l)
}

var actions = map[fingerprint.Action]biometric.Action{
	fingerprint.Place: biometric.Place,
	fingerprint.Lift:  biometric.Lift,
	fingerprint.Again: biometric.Again,
}

// Enroll takes a finger into a slot that is empty; the module refuses one that
// it has already. If the module fails so that nobody knows what is in the slot,
// the error says so, and the slot is emptied when the module is back.
func (s *Scanner) Enroll(ctx context.Context, c biometric.Capture) (biometric.Captured, error) {
	if !c.Part.Valid() || c.Part.Modality() != biometric.Fingerprint {
		return biometric.Captured{}, fmt.Errorf("%w: %q is no finger", biometric.ErrUnsupported, c.Part)
	}
	var got biometric.Captured
	err := s.alone(ctx, func(m fingerprint.Module) (err error) {
		s.waiting(ctx, m)
		defer s.result(ctx, m, "")
		got.Quality, err = m.Enroll(ctx, fingerprint.Enrollment{ID: fingerprint.ID(c.Slot), Progress: func(step fingerprint.Step) {
			if c.Tell != nil {
				c.Tell(biometric.Step{Action: actions[step.Action], Capture: step.Capture, Captures: step.Captures})
			}
		}})
		return err
	})
	if err != nil {
		return biometric.Captured{}, err
	}
	return got, nil
}

// About is what the module tells of itself. Modules take each other's templates
// if they are of one family, model and size of template; of a model that tells
// neither, the capacity tells it from others.
func (s *Scanner) About(ctx context.Context) (biometric.About, error) {
	var about biometric.About
	err := s.alone(ctx, func(m fingerprint.Module) error {
		if err := m.Ping(ctx); err != nil {
			return err
		}
		i, f := m.Info(), families[s.device.Family]
		about = biometric.About{
			Model:    i.Model,
			Serial:   i.Serial,
			Modality: biometric.Fingerprint,
			Capacity: i.Capacity,
			First:    f.first,
			Family:   fmt.Sprintf("%s %s %d", i.Family, i.Model, i.TemplateSize),
		}
		if i.Model == "" {
			about.Model = f.model
		}
		if i.TemplateSize == 0 {
			about.Family = fmt.Sprintf("%s %s of %d", i.Family, i.Model, i.Capacity)
		}
		return nil
	})
	return about, err
}

// Slots are the slots in use.
func (s *Scanner) Slots(ctx context.Context) ([]uint32, error) {
	var slots []uint32
	err := s.alone(ctx, func(m fingerprint.Module) error {
		ids, err := m.List(ctx)
		for _, id := range ids {
			slots = append(slots, uint32(id))
		}
		return err
	})
	return slots, err
}

// Delete empties a slot, and looks that it is empty.
func (s *Scanner) Delete(ctx context.Context, slot uint32) error {
	return s.alone(ctx, func(m fingerprint.Module) error {
		err := m.Delete(ctx, fingerprint.ID(slot))
		if errors.Is(err, fingerprint.ErrEmpty) {
			return nil
		}
		return err
	})
}

// ReadSlot gives the templates of a slot.
func (s *Scanner) ReadSlot(ctx context.Context, slot uint32) ([]biometric.Template, error) {
	var templates []biometric.Template
	err := s.alone(ctx, func(m fingerprint.Module) (err error) {
		templates, err = m.ReadTemplates(ctx, fingerprint.ID(slot))
		return err
	})
	return templates, err
}

// WriteSlot fills a slot that is empty, and reads it back.
func (s *Scanner) WriteSlot(ctx context.Context, slot uint32, templates []biometric.Template) error {
	return s.alone(ctx, func(m fingerprint.Module) error {
		return m.WriteTemplates(ctx, fingerprint.ID(slot), templates)
	})
}
