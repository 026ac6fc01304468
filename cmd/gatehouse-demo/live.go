package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"golang.org/x/sys/unix"
)

// errQuit says that the person at the keyboard has seen enough.
var errQuit = errors.New("quit")

const help = `keys: 1 to 9 a card at server-room-a · f force a door · h hold one open
      x request to exit · l lockdown on and off · n cut and mend the network
      at the CRM: + somebody is hired, and leaves · v a visit is planned: a one-time code at server-room-b, and an escort
      at server-room-c a badge and: b the right finger · w a wrong one · o none · t the one of somebody who is threatened
      at server-room-d: i badge and eye · p the reader's power off and on · ? this help · q end`

// between is the longest time between two people who come by themselves.
const between = 4 * time.Second

// decidedWithin is when a card that was presented is taken for one that the
// door did not read anew: the same card has to leave a reader for a while.
const decidedWithin = 4 * time.Second

// live lets people come and go until ctx ends or a key says so.
func live(ctx context.Context, s *site, in io.Reader) error {
	keys, restore := keyboard(ctx, in)
	defer restore()
	if keys != nil {
		s.screen.note("%s", help)
	}
	k := &hands{site: s}
	ctx, leave := context.WithCancel(ctx)
	defer k.holding.Wait() // the wires are taken away after this
	defer leave()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.door.done:
			return s.door.died()
		case <-s.crm.done:
			return s.crm.died()
		case key, ok := <-keys:
			if !ok {
				keys = nil
				continue
			}
			if err := k.press(ctx, key); err != nil {
				return err
			}
		case <-time.After(rand.N(between) + time.Second):
			if err := k.chance(ctx); err != nil {
				return err
			}
		}
	}
}

// hands does at the site what keys and chance say.
type hands struct {
	*site
	lockdown bool
	cut      bool
	dark     bool           // the reader of server-room-d has no power
	holding  sync.WaitGroup // doors open
}

// press does what a key says.
func (k *hands) press(ctx context.Context, key byte) error {
	switch key {
	case 'q', 'Q':
		return errQuit
	case '?':
		k.screen.note("%s", help)
	case 'f':
		return k.walk(ctx, "b")
	case 'h':
		k.holding.Go(func() { k.holdOpen(ctx) })
	case 'x':
		return errors.Join(k.wires.Set("a.rex", true), pause(ctx, walkThrough), k.wires.Set("a.rex", false), k.walk(ctx, "a"))
	case 'l':
		k.lockdown = !k.lockdown
		return k.wires.Set("lockdown", k.lockdown)
	case 'n':
		k.cut = !k.cut
		k.network.Cut(k.cut)
		k.screen.setCut(k.cut)
	case 'b', 'w', 'o', 't':
		return k.prove(ctx, "c-in", map[byte]biometric.Part{'b': usualFinger, 'w': wrongFinger, 't': forcedBy}[key])
	case 'i':
		return k.prove(ctx, eyeReader, usualEye)
	case newcomer.key:
		return k.scene(ctx, k.turnover)
	case 'v':
		return k.scene(ctx, k.escorted)
	case 'p':
		k.dark = !k.dark
		k.sensors.eye.Power(!k.dark)
		k.screen.note("the reader of %s has %s", roomD, map[bool]string{true: "lost its power", false: "its power again"}[k.dark])
	default:
		if _, ok := byKey(key); ok {
			return k.visit(ctx, key, "a-in")
		}
	}
	return nil
}

// scene plays a scene of the story. What people did just before may make it come
// out otherwise.
func (k *hands) scene(ctx context.Context, play func(context.Context) error) error {
	if k.cut || k.lockdown {
		k.screen.note("not while the network is cut, nor in a lockdown")
		return nil
	}
	k.holding.Wait()
	ctx, cancel := context.WithTimeout(ctx, sceneWithin)
	defer cancel()
	err := play(ctx)
	if err != nil && ctx.Err() == nil {
		k.screen.note("%v", err)
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) { // the demo is to end
		return nil
	}
	return err
}

// chance lets somebody come to some door. Those with a right come more often.
func (k *hands) chance(ctx context.Context) error {
	switch rand.N(6) {
	case 0:
		return k.prove(ctx, "c-in", usualFinger)
	case 1:
		return k.prove(ctx, eyeReader, usualEye)
	}
	keys := "11112222334444456789"
	return k.visit(ctx, keys[rand.N(len(keys))], readers[rand.N(len(readers))])
}

// visit presents a card, and walks through if the door opens.
func (k *hands) visit(ctx context.Context, key byte, reader string) error {
	opens, err := k.opens(ctx, key, reader)
	if err != nil || !opens || rand.N(6) == 0 {
		return err // or turned away, or thought better of it: the line tells
	}
	return k.walk(ctx, reader[:1])
}

// prove presents the card of the person who is enrolled, gives a finger or an eye
// when the door asks for it, and walks through if it opens.
func (k *hands) prove(ctx context.Context, reader string, part biometric.Part) error {
	if reader == eyeReader && k.dark {
		k.screen.note("a card at %s: nothing happens, the reader has no power", roomD)
		return nil
	}
	who, _ := byKey(enrolledKey)
	if err := k.awayFrom(ctx, reader, who); err != nil {
		return err
	}
	done := k.proving(ctx, enrolledKey, reader[:1], part)
	opens, err := k.opens(ctx, enrolledKey, reader)
	done()
	if err != nil || !opens {
		return err
	}
	return k.walk(ctx, reader[:1])
}

// opens presents a card, and reports whether the door opens to it.
func (k *hands) opens(ctx context.Context, key byte, reader string) (bool, error) {
	w, err := k.present(key, reader)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, decidedWithin+factorWindow)
	defer cancel()
	err = k.screen.until(ctx, func() bool {
		return w.unlocked != nil || w.decided != nil && w.decided.Decision != "granted"
	})
	if errors.Is(err, context.DeadlineExceeded) {
		k.screen.unread(w)
	}
	return err == nil && w.unlocked != nil, nil
}

// holdOpen lets somebody in who holds the door open, until it is an alarm or
// the demo ends. A door that nobody was let in by would be forced.
func (k *hands) holdOpen(ctx context.Context) {
	// An error is the end of the demo, which the loop sees too.
	if opens, err := k.opens(ctx, '4', "a-in"); err != nil || !opens {
		return
	}
	_ = errors.Join(k.wires.Set("a.contact", true), pause(ctx, heldAfter+2*time.Second), k.wires.Set("a.contact", false))
}

// keyboard gives single keys if in is a terminal, else nil. Ctrl-C stays a
// signal.
func keyboard(ctx context.Context, in io.Reader) (<-chan byte, func()) {
	f, ok := in.(*os.File)
	if !ok {
		return nil, func() {}
	}
	was, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, func() {} // no terminal
	}
	raw := *was
	raw.Lflag &^= unix.ICANON | unix.ECHO
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &raw); err != nil {
		return nil, func() {}
	}
	keys := make(chan byte)
	go func() {
		defer close(keys)
		b := make([]byte, 1)
		for {
			if n, err := f.Read(b); err != nil || n == 0 {
				return
			}
			select {
			case keys <- b[0]:
			case <-ctx.Done():
				return
			}
		}
	}()
	return keys, func() {
		// The terminal may be gone; then nobody minds its mode.
		_ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, was)
	}
}
