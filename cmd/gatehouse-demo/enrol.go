package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/biometric/enroll"
	"github.com/gatehouse-acs/gatehouse/internal/control"
)

// The keys of those who enrol others, one of whom approves it, and of the one
// person whose fingers and eyes are on file.
const (
	operatorKey = '4'
	approverKey = '5'
	enrolledKey = '1'
)

// What is taken of that person, and a finger that is not.
const (
	usualFinger = biometric.RightIndex
	forcedBy    = biometric.LeftLittle // given only under a threat
	wrongFinger = biometric.RightThumb
	usualEye    = biometric.RightIris

	notice   = "demo-1"              // that the person has read
	takesOut = 50 * time.Millisecond // a card, who is asked for it

	enrolWithin = 30 * time.Second
	enrolTries  = 3
	enrolAgain  = 200 * time.Millisecond
	busyFor     = 5 * time.Second
)

// enrolPeople enrols a person's fingers at server-room-c and an eye at
// server-room-d, as gatehouse enroll does: it asks the running controller, and
// people do at the door what that says. What an earlier run of the demo has
// enrolled is revoked first: the simulated module has forgotten it.
func (s *site) enrolPeople(ctx context.Context) error {
	who, _ := byKey(enrolledKey)
	if err := s.revoke(ctx, who); err != nil {
		return err
	}
	at := func(door string, part biometric.Part) func(context.Context) error {
		return func(ctx context.Context) error {
			began := time.Now()
			if err := s.enrolAt(ctx, door, who, part); err != nil {
				return fmt.Errorf("enrolling %s at %s: %w", who, door, err)
			}
			s.screen.note("%s is enrolled at %s, and a second operator approved it: %.1f s", who, door, time.Since(began).Seconds())
			return nil
		}
	}
	return together(ctx, at(roomC, usualFinger), at(roomD, usualEye)) // both at once, so that nobody has to wait
}

// enrolAt enrols somebody at a door, in more than one session if need be: one
// that fails leaves nothing behind. A controller that has just started is still
// busy with looking what its scanners keep.
func (s *site) enrolAt(ctx context.Context, door string, who person, part biometric.Part) error {
	for began, failed := time.Now(), 0; ; {
		err := s.enrol(ctx, door, who, part)
		if err == nil {
			return nil
		}
		if !strings.Contains(err.Error(), enroll.ErrBusy.Error()) || time.Since(began) > busyFor {
			failed++
		}
		if failed == enrolTries || pause(ctx, enrolAgain) != nil {
			return err
		}
	}
}

// revoke takes back what is enrolled of somebody, if anything is.
func (s *site) revoke(ctx context.Context, who person) error {
	operator, _ := byKey(operatorKey)
	err := s.ask(ctx, mute{}, nil, "enroll revoke", map[string]string{"person": who.id, "by": operator.id})
	if err != nil && !strings.Contains(err.Error(), enroll.ErrNothing.Error()) {
		return fmt.Errorf("revoking %s: %w", who, err)
	}
	return nil
}

// ask has the controller do something, with somebody at the terminal.
func (s *site) ask(ctx context.Context, t control.Terminal, answers <-chan string, do string, args map[string]string) error {
	_, err := control.Do(ctx, filepath.Join(s.doorDir(), control.SocketName), control.Request{Do: do, Args: args}, answers, t)
	return err
}

// mute is a terminal that nobody looks at.
type mute struct{}

func (mute) Say(string)                {}
func (mute) Ask(string, []string)      {}
func (mute) Progress(string, int, int) {}

// enrol enrols somebody at a door.
func (s *site) enrol(ctx context.Context, door string, who person, part biometric.Part) error {
	ctx, over := context.WithTimeoutCause(ctx, enrolWithin, fmt.Errorf("it takes longer than %v", enrolWithin))
	defer over()
	ctx, cancel := context.WithCancelCause(ctx)
	p := &desk{site: s, ctx: ctx, fail: cancel, room: door[len(door)-1:], who: who, part: part, answers: make(chan string, 1), answered: func() {}}
	defer p.hands.Wait()
	defer cancel(nil)
	defer s.sensors.away(part.Modality())
	err := s.ask(ctx, p, p.answers, "enroll", map[string]string{
		"door": door, "side": string(access.In), "person": who.id, "notice": notice,
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		return fmt.Errorf("%w\n  %s", err, strings.Join(p.said, "\n  "))
	}
	return nil
}

// desk is an operator at a terminal, and those at the door beside it.
type desk struct {
	*site
	ctx     context.Context
	fail    context.CancelCauseFunc
	room    string // c or d
	who     person
	part    biometric.Part // to be taken
	answers chan string
	said    []string // to them

	hands    sync.WaitGroup // that hold a card
	answered func()         // ends that
}

// Say has somebody do what is said.
func (p *desk) Say(text string) {
	p.said = append(p.said, text)
	p.answered()
	if strings.HasPrefix(text, "No: ") {
		p.fail(errors.New(text))
		return
	}
	for _, cue := range []struct {
		text string
		do   func()
	}{
		{"Operator: present", func() { p.card(operatorKey) }},
		{"A second operator: present", func() { p.card(approverKey) }},
		{p.who.id + ": ", func() { p.card(enrolledKey) }}, // the badge, and once more
		{"put it on the sensor", func() { p.give(text) }},
		{"look into the scanner", func() { p.give(text) }},
		{"Now to try it", func() { p.anew(text) }},
		{"lift it", p.away},
		{"is recognised", p.away},
	} {
		if strings.Contains(text, cue.text) {
			cue.do()
			return
		}
	}
}

// Ask answers a question.
func (p *desk) Ask(text string, choices []string) {
	p.said = append(p.said, text)
	p.answered()
	switch {
	case slices.Contains(choices, "agreed"):
		p.answers <- "agreed"
	case strings.Contains(text, "which are to be taken?"):
		p.answers <- string(p.part)
	case strings.Contains(text, "only under a threat?"):
		p.answers <- string(forcedBy)
	default:
		p.fail(fmt.Errorf("nobody knows what to answer to %q", text))
	}
}

// Progress is of no interest.
func (*desk) Progress(string, int, int) {}

// card presents a card, and once more if nothing is said to it: a card that comes
// before the controller waits for one is passed over.
func (p *desk) card(key byte) {
	ctx, stop := context.WithCancel(p.ctx)
	p.answered = stop
	p.hands.Go(func() {
		defer stop()
		who, _ := byKey(key)
		reader := p.room + "-in"
		for pause(ctx, takesOut) == nil && p.awayFrom(ctx, reader, who) == nil {
			if err := p.hold(who, reader); err != nil {
				p.fail(err)
				return
			}
		}
	})
}

// away takes the finger or the eye away.
func (p *desk) away() { p.sensors.away(p.part.Modality()) }

// anew takes the finger or the eye away, and gives it again.
func (p *desk) anew(text string) {
	p.away()
	p.give(text)
}

// give gives the finger or the eye that is named.
func (p *desk) give(text string) {
	for _, part := range slices.Concat(biometric.Parts(biometric.Fingerprint), biometric.Parts(biometric.Iris)) {
		if strings.Contains(text, part.Words()) {
			if err := p.sensors.give(p.ctx, p.who, part); err != nil {
				p.fail(err)
			}
			return
		}
	}
	p.fail(fmt.Errorf("no finger or eye is named in %q", text))
}
