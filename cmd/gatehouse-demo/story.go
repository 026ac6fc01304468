package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"golang.org/x/sync/errgroup"
)

const (
	cardAway    = 1100 * time.Millisecond // until a reader takes the same card anew
	walkThrough = 300 * time.Millisecond  // from the click of the strike to an open door, and to a closed one
	sceneWithin = time.Minute             // on however busy a machine
	syncWithin  = time.Minute
	calmFor     = time.Second
)

// wanted is what must become of a swipe.
type wanted struct {
	decision, reason, passage string
}

var (
	entered    = wanted{"granted", "granted", "entered"}
	left       = wanted{"granted", "granted", "left"}
	notEntered = wanted{"granted", "granted", "not_entered"}
)

func denied(reason string) wanted { return wanted{"denied", reason, ""} }

// ofVisitor is what becomes of a visitor: whose right is bounded in time is denied
// while nobody knows the time.
func (s *site) ofVisitor(want wanted) wanted {
	if s.clockUnset {
		return denied(s.outOfHours)
	}
	return want
}

// play plays the story once, and then verifies and compares both logs.
func play(ctx context.Context, s *site) error {
	scenes := []struct {
		title string
		play  func(context.Context) error
	}{
		{"Badge and eye", s.eye},
		{"People come in", func(ctx context.Context) error {
			return errors.Join(
				s.swipe(ctx, '1', "a-in", entered),
				together(ctx,
					func(ctx context.Context) error { return s.swipe(ctx, '2', "a-in", notEntered) },
					func(ctx context.Context) error { return s.swipe(ctx, '3', "b-in", s.ofVisitor(entered)) },
				),
				s.swipe(ctx, '1', "a-out", left),
			)
		}},
		{"People are turned away", func(ctx context.Context) error {
			return errors.Join(
				s.swipe(ctx, '9', "a-in", denied("unknown")),
				s.swipe(ctx, '7', "a-in", denied("revoked")),
				s.swipe(ctx, '5', "b-in", denied(s.outOfHours)),
				s.swipe(ctx, '6', "b-in", denied("lost")),
				s.swipe(ctx, '8', "a-in", denied("no_right")),
			)
		}},
		{"Somebody is hired, and leaves", s.turnover},
		{"A lockdown, and its end", s.lockdown},
		{"Badge and finger", s.finger},
		{"A reader without power", s.powerless},
		{"A door is forced", s.force},
		{"A visitor with a code, and an escort", s.escorted},
		{"A door is held open, and no finger comes", func(ctx context.Context) error {
			return together(ctx, s.heldOpen, func(ctx context.Context) error {
				return s.both(ctx, enrolledKey, "c-in", "", denied("factor_missing"))
			})
		}},
		{"The reader has its power again", s.powered},
		{"The network fails", s.outage},
	}
	for _, scene := range scenes {
		s.screen.note("%s", scene.title)
		ctx, cancel := context.WithTimeout(ctx, sceneWithin)
		err := scene.play(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(scene.title), err)
		}
	}
	return s.finish(ctx)
}

// together does several things at once.
func together(ctx context.Context, all ...func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, do := range all {
		g.Go(func() error { return do(ctx) })
	}
	return g.Wait()
}

// swipe presents a card, walks through the door if it opens, and waits for the
// line on the screen.
func (s *site) swipe(ctx context.Context, key byte, reader string, want wanted) error {
	return s.both(ctx, key, reader, "", want)
}

// both is a swipe whose person then gives a finger or an eye, when the door asks
// for it; "" is nothing. Where the record, or the finger, came too late for the door
// on a machine that had other things to do, the door rightly stayed locked, and all
// is done once more.
func (s *site) both(ctx context.Context, key byte, reader string, part biometric.Part, want wanted) error {
	who, _ := byKey(key)
	for {
		if err := s.awayFrom(ctx, reader, who); err != nil {
			return err
		}
		done := s.proving(ctx, key, reader[:1], part)
		late, err := s.tried(ctx, key, reader, want)
		done()
		if err != nil || !late {
			return err
		}
		s.screen.note("that was too slow for the door: once more")
	}
}

// tried is one try of a swipe; late says that the door could not open in time.
func (s *site) tried(ctx context.Context, key byte, reader string, want wanted) (late bool, err error) {
	w, err := s.present(key, reader)
	if err != nil {
		return false, err
	}
	return s.outcome(ctx, w, want)
}

// outcome walks through the door if it opens, and waits for the line on the
// screen; late says that the door could not open in time.
func (s *site) outcome(ctx context.Context, w *swipe, want wanted) (late bool, err error) {
	if want.passage == "entered" || want.passage == "left" {
		if err := s.screen.until(ctx, func() bool {
			return w.unlocked != nil || w.late || w.decided != nil && w.decided.Decision != "granted"
		}); err != nil {
			return false, fmt.Errorf("%s at %s: the strike did not move: %w", w.who, w.reader, err)
		}
		if w.unlocked != nil {
			if err := s.walk(ctx, w.reader[:1]); err != nil {
				return false, err
			}
		}
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		return false, fmt.Errorf("%s at %s: no receipt came: %w", w.who, w.reader, ctx.Err())
	}
	got := wanted{w.decided.Decision, w.decided.Reason, ""}
	if w.passage != nil {
		got.passage = w.passage.Passage
	}
	switch {
	case got == want:
		return false, nil
	case w.late && got == notEntered, want.passage == "entered" && got == denied("factor_missing"):
		return true, nil
	}
	return false, fmt.Errorf("%s at %s: it is %+v, and should be %+v", w.who, w.reader, got, want)
}

// present presents a card.
func (s *site) present(key byte, reader string) (*swipe, error) {
	who, ok := byKey(key)
	if !ok {
		return nil, fmt.Errorf("nobody has the key %q", key)
	}
	w := s.screen.expect("server-room-"+reader[:1], reader, who)
	return w, s.hold(who, reader)
}

// hold holds a card to a reader.
func (s *site) hold(who person, reader string) error {
	frame, err := who.frame()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.held[reader+who.id] = time.Now()
	s.mu.Unlock()
	if reader == eyeReader {
		s.sensors.eye.Present(frame.Bits())
		return nil
	}
	return s.wires.Swipe(reader, frame)
}

// awayFrom waits until a card was away from a reader for so long that it is read
// anew.
func (s *site) awayFrom(ctx context.Context, reader string, who person) error {
	return pause(ctx, cardAway-s.away(reader, who))
}

// away is how long ago a card was last held to a reader.
func (s *site) away(reader string, who person) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.held[reader+who.id])
}

// walk opens and closes a door.
func (s *site) walk(ctx context.Context, room string) error {
	return errors.Join(
		pause(ctx, walkThrough),
		s.wires.Set(room+".contact", true),
		pause(ctx, walkThrough),
		s.wires.Set(room+".contact", false),
	)
}

// proving gives a finger or an eye as soon as the door asks for it. The function
// that it returns ends that, and takes it away again.
func (s *site) proving(ctx context.Context, key byte, room string, part biometric.Part) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	var giving sync.WaitGroup
	giving.Go(func() {
		who, ok := byKey(key)
		if ok && part != "" && s.lights.until(ctx, room+".indicator", asks[room]) == nil {
			_ = s.sensors.give(ctx, who, part) // an error is the end of it
		}
	})
	return func() {
		cancel()
		giving.Wait()
		if part != "" {
			s.sensors.away(part.Modality())
		}
	}
}

// asks is what the indicator of a room shows while it waits for the second
// factor.
var asks = map[string]string{"c": "ask_fingerprint", "d": "ask_iris"}

// finger is the room with a fingerprint module.
func (s *site) finger(ctx context.Context) error {
	for _, p := range []struct {
		key  byte
		part biometric.Part
		want wanted
	}{
		{enrolledKey, usualFinger, entered},
		{operatorKey, usualFinger, denied("factor_unavailable")}, // of whom nothing is enrolled
		{enrolledKey, wrongFinger, denied("factor_mismatch")},
		{enrolledKey, forcedBy, wanted{"granted", "granted_duress", "entered"}},
	} {
		if err := s.both(ctx, p.key, "c-in", p.part, p.want); err != nil {
			return err
		}
	}
	return nil
}

// eye is the room with a reader that speaks OSDP. At the end its power fails.
func (s *site) eye(ctx context.Context) error {
	if err := s.both(ctx, enrolledKey, eyeReader, usualEye, entered); err != nil {
		return err
	}
	s.sensors.eye.Power(false)
	s.screen.note("the reader of %s has lost its power", roomD)
	return nil
}

// powerless is what has become of it meanwhile: that is reported, and it lets
// nobody in.
func (s *site) powerless(ctx context.Context) error {
	if err := s.screen.until(ctx, func() bool { return s.screen.faulty[eyeReader] }); err != nil {
		return fmt.Errorf("nobody said that the reader is dead: %w", err)
	}
	granted := s.screen.counted("granted")
	who, _ := byKey(enrolledKey)
	if err := s.hold(who, eyeReader); err != nil {
		return err
	}
	err := errors.Join(s.sensors.give(ctx, who, usualEye), pause(ctx, walkThrough))
	s.sensors.away(biometric.Iris)
	if err != nil {
		return err
	}
	if s.screen.counted("granted") != granted {
		return errors.New("a reader without power has let somebody in")
	}
	s.sensors.eye.Power(true)
	s.screen.note("the reader of %s has its power again", roomD)
	return nil
}

// powered is the same reader some seconds later: it works as before.
func (s *site) powered(ctx context.Context) error {
	if err := s.screen.until(ctx, func() bool { return !s.screen.faulty[eyeReader] && !s.screen.faulty["d-eye"] }); err != nil {
		return fmt.Errorf("the reader does not come back: %w", err)
	}
	return s.both(ctx, enrolledKey, eyeReader, usualEye, entered)
}

// force opens a door that nobody was granted.
func (s *site) force(ctx context.Context) error {
	forced, closed := s.screen.counted("forced"), s.screen.counted("closed")
	if err := s.walk(ctx, "b"); err != nil {
		return err
	}
	return s.screen.until(ctx, func() bool {
		return s.screen.count["forced"] == forced+1 && s.screen.count["closed"] == closed+1 && len(s.screen.events) == 0
	})
}

// heldOpen holds a door open until that is an alarm.
func (s *site) heldOpen(ctx context.Context) error {
	w, err := s.present('4', "a-in")
	if err != nil {
		return err
	}
	if err := s.screen.until(ctx, func() bool { return w.unlocked != nil }); err != nil {
		return err
	}
	before := s.screen.counted("held")
	if err := s.wires.Set("a.contact", true); err != nil {
		return err
	}
	if err := s.screen.until(ctx, func() bool { return s.screen.count["held"] == before+1 }); err != nil {
		return err
	}
	if err := s.wires.Set("a.contact", false); err != nil {
		return err
	}
	return s.screen.until(ctx, func() bool { return len(s.screen.events) == 0 && len(s.screen.swipes) == 0 })
}

// outage cuts the network, lets people come in, and mends it.
func (s *site) outage(ctx context.Context) error {
	s.network.Cut(true)
	s.screen.setCut(true)
	err := errors.Join(
		s.swipe(ctx, '4', "b-in", entered),
		s.swipe(ctx, '9', "b-in", denied("unknown")),
		s.swipe(ctx, '1', "a-in", entered),
	)
	s.network.Cut(false)
	s.screen.setCut(false)
	if err != nil {
		return err
	}
	return s.synced(ctx)
}

// synced waits until the CRM has countersigned everything.
func (s *site) synced(ctx context.Context) error {
	if err := s.screen.until(ctx, s.screen.synced); err != nil {
		return fmt.Errorf("not everything was countersigned: %w", err)
	}
	return nil
}

// calm waits until nothing more follows from what people did last: a door that
// falls shut, an unlock that nobody used.
func (s *site) calm(ctx context.Context) error {
	for {
		if err := s.synced(ctx); err != nil {
			return err
		}
		before := s.screen.newest()
		if err := pause(ctx, calmFor); err != nil {
			return err
		}
		if s.screen.newest() == before {
			return nil
		}
	}
}

// finish waits until everything is countersigned, ends both programs, and
// verifies and compares their logs.
func (s *site) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncWithin)
	defer cancel()
	s.network.Cut(false)
	if err := s.calm(ctx); err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	fmt.Fprintln(s.screen.w)
	for _, log := range []struct{ program, dir string }{{"gatehouse", s.doorDir()}, {"gatehouse-crm", s.crmDir()}} {
		said, err := tool(ctx, log.program, "log", "verify", "--data", log.dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.screen.w, "%-13s log verify  %s\n", log.program, strings.TrimSpace(said))
	}
	return s.compare(ctx)
}

// compare exports both logs and says what differs.
func (s *site) compare(ctx context.Context) error {
	door, err := s.export(ctx, "gatehouse", s.doorDir())
	if err != nil {
		return err
	}
	if _, err := s.export(ctx, "gatehouse-crm", s.crmDir()); err != nil {
		return err
	}
	said, err := tool(ctx, "gatehouse-crm", "compare", door, "--data", s.crmDir())
	if err != nil {
		return fmt.Errorf("the logs differ: %w\n%s", err, said)
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	fmt.Fprintf(s.screen.w, "compared      %s\n", lines[len(lines)-1])
	c := func(what string) int { return s.screen.counted(what) }
	fmt.Fprintf(s.screen.w, "story         granted %d, denied %d; entered %d, left %d, not entered %d; forced %d, held %d\n",
		c("granted"), c("denied"), c("entered"), c("left"), c("not_entered"), c("forced"), c("held"))
	if c("unlocked") > c("granted") {
		return fmt.Errorf("the strike moved %d times, but only %d were granted", c("unlocked"), c("granted"))
	}
	return nil
}

// export writes a program's whole log to a file.
func (s *site) export(ctx context.Context, program, dir string) (path string, err error) {
	path = filepath.Join(s.dir, program+".ndjson")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	_, err = tool(ctx, program, "log", "export", "--data", dir, "--out", path)
	return path, err
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
