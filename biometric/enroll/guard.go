package enroll

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/gatehouse-acs/gatehouse/biometric"
)

// Use makes a scanner known under its name, and gives the one that the door is
// to use: it notices when the scanner was exchanged, before anybody is matched
// with what was enrolled at the one before. A scanner that cannot enrol stays
// as it is.
func (d *Desk) Use(name string, s biometric.Scanner) biometric.Scanner {
	own, ok := s.(biometric.Enroller)
	if !ok {
		return s
	}
	known := &scanner{Enroller: own, name: name, turn: make(chan struct{}, 1)}
	d.scanners[name] = known
	return &guard{Enroller: own, desk: d, scanner: known}
}

// want keeps the door's scans from a scanner until done is called. One that goes
// on ends, as if nobody had come: it could take longer than a slot may wait to
// be emptied.
func (s *scanner) want() (done func()) {
	s.count(1)
	return func() { s.count(-1) }
}

func (s *scanner) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.wanted > 0
	if s.wanted += n; before != (s.wanted > 0) && s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// isWanted reports whether somebody wants a scanner, and gives what is closed
// when that changes.
func (s *scanner) isWanted() (wanted bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.wanted > 0, s.changed
}

// guard asks a scanner what it is, once after each time that it was away.
type guard struct {
	biometric.Enroller
	desk    *Desk
	scanner *scanner
	met     atomic.Bool
}

// Scan fails if the scanner is another than the references are of.
func (g *guard) Scan(ctx context.Context, with []biometric.Reference) (biometric.Match, error) {
	if !g.met.Load() {
		about, exchanged, err := g.desk.meet(ctx, g.scanner)
		if err != nil {
			return biometric.Match{}, err
		}
		g.met.Store(true)
		if exchanged {
			return biometric.Match{}, fmt.Errorf("scanner %q was exchanged, and now has the serial number %q: people have to enrol at it again", g.scanner.name, about.Serial)
		}
	}
	return g.scan(ctx, with)
}

// scan scans while the desk does not want the scanner.
func (g *guard) scan(ctx context.Context, with []biometric.Reference) (biometric.Match, error) {
	wanted, changed := g.scanner.isWanted()
	for ; wanted; wanted, changed = g.scanner.isWanted() {
		select {
		case <-changed:
		case <-ctx.Done():
			return biometric.Match{}, ctx.Err()
		}
	}
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-own.Done():
		}
	}()
	m, err := g.Enroller.Scan(own, with)
	if err != nil && own.Err() != nil && ctx.Err() == nil {
		return biometric.Match{Outcome: biometric.Nobody}, nil
	}
	return m, err
}

// Watch notices when the scanner is away.
func (g *guard) Watch(ctx context.Context, changed func(fault error)) error {
	return g.Enroller.Watch(ctx, func(fault error) {
		if fault != nil {
			g.met.Store(false)
		}
		changed(fault)
	})
}

// Authenticated reports whether nobody can pretend to be the scanner.
func (g *guard) Authenticated() bool {
	own, ok := g.Enroller.(interface{ Authenticated() bool })
	return ok && own.Authenticated()
}
