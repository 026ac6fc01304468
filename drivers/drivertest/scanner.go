package drivertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
)

// Scanner is a Rig's scanner and the people before it. When nobody comes it
// must give up within three seconds, and not before half a second.
type Scanner struct {
	biometric.Scanner

	// Known are enrolled, two or more, of people who differ: Known[0] is person
	// 0's, and so on. The first is no duress reference.
	Known []biometric.Reference
	// Keeps says that the scanner keeps what is enrolled: it identifies (1:N), and
	// enrols into slots.
	Keeps bool
	// Touch holds a person's finger to the scanner or has the person look into it,
	// and Lift ends that.
	Touch func(person int)
	Lift  func()
	// Blank, if there is one, is a reference to something that is not enrolled.
	Blank *biometric.Reference
	// Troubles are what may befall it, beside Break.
	Troubles []Trouble
}

// Stranger is a person of whom nothing is enrolled.
const Stranger = -1

// Trouble is something that befalls a scanner, and passes.
type Trouble struct {
	Name     string
	Begin    func()
	End      func()
	Harmless bool // scans go on; otherwise they fail, and Watch says so
}

const (
	// settled is how long a scan gets until it waits for somebody.
	settled = 120 * time.Millisecond
	// leastWait is how long it waits at least.
	leastWait = 500 * time.Millisecond
)

// scanner is the part of the suite about scanners.
func scanner(run func(name string, has func(*Rig) bool, f func(t *testing.T, r *Rig))) {
	any := func(r *Rig) bool { return r.Scanner != nil }
	keeps := func(r *Rig) bool { return any(r) && r.Scanner.Keeps }
	breaks := func(r *Rig) bool { return any(r) && r.Break != nil }
	enrols := func(r *Rig) bool {
		if !any(r) {
			return false
		}
		_, ok := r.Scanner.Scanner.(biometric.Enroller)
		return ok
	}
	copies := func(r *Rig) bool {
		if !keeps(r) {
			return false
		}
		_, ok := r.Scanner.Scanner.(biometric.Copier)
		return ok
	}

	run("a scan waits for somebody", any, func(t *testing.T, r *Rig) {
		r.Scanner.proves(t, 0, r.Scanner.Known[:1], r.Scanner.matched(0, r.Scanner.Known[:1]))
	})
	run("a scan to which nobody comes says so, and is no error", any, func(t *testing.T, r *Rig) {
		s := r.Scanner
		began := time.Now()
		s.is(t, s.begin(t.Context(), s.Known[:1]), biometric.Match{Outcome: biometric.Nobody})
		if waited := time.Since(began); waited < leastWait {
			t.Errorf("it gave up after %v", waited)
		}
	})
	run("a scan stops when its context ends", any, func(t *testing.T, r *Rig) {
		s := r.Scanner
		ctx, cancel := context.WithCancel(t.Context())
		got := s.begin(ctx, s.Known[:1])
		time.Sleep(settled)
		cancel()
		for range 2 {
			if g := s.await(t, got); !errors.Is(g.err, context.Canceled) || g.Match != (biometric.Match{}) {
				t.Errorf("Scan returned %v, %v, not the context's error alone", g.Match, g.err)
			}
			got = s.begin(ctx, s.Known[:1])
		}
		s.proves(t, 0, s.Known[:1], s.matched(0, s.Known[:1])) // and can be used again
	})
	run("a scan with references matches these alone; somebody else is no error", any, func(t *testing.T, r *Rig) {
		s := r.Scanner
		nobody := biometric.Match{Outcome: biometric.NoMatch}
		for i := range s.Known {
			one := s.Known[i : i+1]
			s.proves(t, i, one, s.matched(i, one))
			s.proves(t, (i+1)%len(s.Known), one, nobody)
			s.proves(t, i, s.Known, s.matched(i, s.Known))
		}
		s.proves(t, Stranger, s.Known[:1], nobody)
		s.proves(t, Stranger, s.Known, nobody)
		s.proves(t, 0, s.Known[1:], nobody)
	})
	run("a reference for a threat is told", any, func(t *testing.T, r *Rig) {
		s := r.Scanner
		with := slices.Clone(s.Known)
		with[0].Duress = true
		s.proves(t, 0, with[:1], s.matched(0, with))
		s.proves(t, 0, with, s.matched(0, with))
		s.proves(t, 1, with, s.matched(1, with))
	})
	run("what is not enrolled matches nobody", any, func(t *testing.T, r *Rig) {
		s := r.Scanner
		if s.Blank == nil {
			return
		}
		nobody := biometric.Match{Outcome: biometric.NoMatch}
		s.proves(t, 0, []biometric.Reference{*s.Blank}, nobody)
		s.proves(t, 0, []biometric.Reference{s.Known[1], *s.Blank}, nobody)
		s.proves(t, 0, []biometric.Reference{s.Known[0], *s.Blank}, s.matched(0, s.Known))
	})
	run("a scan without references finds out who it is, or cannot", any, func(t *testing.T, r *Rig) {
		s := r.Scanner
		if !s.Keeps {
			if g := s.await(t, s.begin(t.Context(), nil)); !errors.Is(g.err, biometric.ErrUnsupported) {
				t.Errorf("it gave %v, %v, and keeps nobody", g.Match, g.err)
			}
			return
		}
		for i := range s.Known {
			want := s.matched(i, s.Known)
			want.Part = "" // it knows slots only
			s.proves(t, i, nil, want)
		}
		s.proves(t, Stranger, nil, biometric.Match{Outcome: biometric.NoMatch})
	})
	run("scans take turns", any, func(t *testing.T, r *Rig) {
		s := r.Scanner
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range 4 {
			all.Go(func() {
				for {
					m, err := s.Scan(ctx, s.Known[:1])
					if ctx.Err() != nil {
						return
					}
					if err != nil || m.Outcome != biometric.Nobody {
						t.Errorf("with nobody there: %v, %v", m, err)
						return
					}
				}
			})
		}
		time.Sleep(2 * settled)
		cancel()
		all.Wait()
		for end := time.Now().Add(2 * soon); ; {
			first, second := s.begin(t.Context(), s.Known[:1]), s.begin(t.Context(), s.Known[:1])
			time.Sleep(settled)
			s.Touch(0)
			var one, other scan
			select { // one touch is for one of them
			case one = <-first:
				s.Lift()
				other = s.await(t, second)
			case one = <-second:
				s.Lift()
				other = s.await(t, first)
			case <-time.After(soon):
				t.Fatalf("neither of two scans saw anybody within %v", soon)
			}
			if one.Outcome == biometric.Nobody { // it was over when somebody came
				one, other = other, one
			}
			if one.Outcome == biometric.Nobody && time.Now().Before(end) {
				continue // both were
			}
			s.check(t, one, s.matched(0, s.Known))
			if other.err != nil || other.Outcome == biometric.Matched {
				t.Errorf("another scan has %v, %v of the same touch", other.Match, other.err)
			}
			return
		}
	})
	run("a watch tells at once that a scanner can be used, and says it once", any, func(t *testing.T, r *Rig) {
		w := r.Scanner.watch(t.Context())
		w.is(t, true)
		r.Scanner.proves(t, 0, r.Scanner.Known[:1], r.Scanner.matched(0, r.Scanner.Known))
		if n := w.told(); n != 1 {
			t.Errorf("%d states were told, not 1", n)
		}
		if err := w.end(); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v, not the context's error", err)
		}
	})
	run("closing ends scans and watches with an error", any, func(t *testing.T, r *Rig) {
		s := r.Scanner
		w := s.watch(t.Context())
		w.is(t, true)
		got := s.begin(t.Context(), s.Known[:1])
		time.Sleep(settled)
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if g := s.await(t, got); g.err == nil {
			t.Errorf("Scan gave %v when it was closed", g.Match)
		}
		if g := s.await(t, s.begin(t.Context(), s.Known[:1])); g.err == nil {
			t.Errorf("Scan gave %v after it was closed", g.Match)
		}
		if err := await(t, "Watch", w.ended); err == nil {
			t.Error("Watch returned nil when it was closed")
		}
	})
	run("a broken scanner is an error, told, and works when it is mended", breaks, func(t *testing.T, r *Rig) {
		r.Scanner.suffers(t, Trouble{Name: "break", Begin: r.Break, End: r.Mend})
	})
	run("a scanner survives its troubles", any, func(t *testing.T, r *Rig) {
		for _, trouble := range r.Scanner.Troubles {
			r.Scanner.suffers(t, trouble)
		}
	})

	run("what is enrolled is found, until it is deleted", enrols, func(t *testing.T, r *Rig) {
		s := r.Scanner
		e := s.Scanner.(biometric.Enroller)
		about, err := e.About(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if part := s.Known[0].Part; about.Modality != part.Modality() || about.Serial == "" || (about.Capacity > 0) != s.Keeps {
			t.Errorf("it says of itself %+v", about)
		}
		before := slots(t, e)
		var slot uint32
		if s.Keeps {
			slot = free(about, before)
		}
		ref, quality := s.enrol(t, e, Stranger, slot)
		if quality < 0 || quality > 100 {
			t.Errorf("the quality is %d", quality)
		}
		defer ref.Template.Clear()
		if ref.Template.Empty() != s.Keeps {
			t.Errorf("it gave a %v", ref.Template)
		}
		with := []biometric.Reference{ref}
		s.proves(t, Stranger, with, biometric.Match{Outcome: biometric.Matched, Slot: slot, Part: ref.Part})
		s.proves(t, 0, with, biometric.Match{Outcome: biometric.NoMatch})
		if !s.Keeps {
			return
		}
		if now := slots(t, e); len(now) != len(before)+1 || !slices.Contains(now, slot) {
			t.Errorf("slots %v are in use; %v were, and %d was enrolled", now, before, slot)
		}
		for range 2 { // an empty slot is no error
			if err := e.Delete(t.Context(), slot); err != nil {
				t.Errorf("Delete: %v", err)
			}
		}
		if now := slots(t, e); !slices.Equal(now, before) {
			t.Errorf("slots %v are in use; before, %v were", now, before)
		}
		s.proves(t, Stranger, nil, biometric.Match{Outcome: biometric.NoMatch})
	})
	run("enrolling stops when its context ends, and nothing is kept", enrols, func(t *testing.T, r *Rig) {
		s := r.Scanner
		e := s.Scanner.(biometric.Enroller)
		about, err := e.About(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := slots(t, e)
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() {
			c, err := e.Enroll(ctx, biometric.Capture{Part: s.Known[0].Part, Slot: free(about, before)})
			c.Template.Clear()
			got <- err
		}()
		time.Sleep(settled)
		cancel()
		if err := await(t, "Enroll", got); !errors.Is(err, context.Canceled) {
			t.Errorf("Enroll returned %v, not the context's error", err)
		}
		if now := slots(t, e); !slices.Equal(now, before) {
			t.Errorf("slots %v are in use; before, %v were", now, before)
		}
	})
	run("a slot that is read can be written elsewhere, and not over another", copies, func(t *testing.T, r *Rig) {
		s := r.Scanner
		c := s.Scanner.(biometric.Copier)
		about, err := c.About(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		templates, err := c.ReadSlot(t.Context(), s.Known[0].Slot)
		if errors.Is(err, biometric.ErrUnsupported) {
			return
		}
		if err != nil || len(templates) == 0 {
			t.Fatalf("ReadSlot gave %v, %v", templates, err)
		}
		defer func() {
			for _, template := range templates {
				template.Clear()
			}
		}()
		before := slots(t, c)
		if err := c.WriteSlot(t.Context(), s.Known[1].Slot, templates); err == nil {
			t.Error("a slot in use was written over")
		}
		s.proves(t, 1, s.Known[1:2], s.matched(1, s.Known))
		if err := c.Delete(t.Context(), s.Known[0].Slot); err != nil {
			t.Fatal(err)
		}
		to := free(about, before)
		if err := c.WriteSlot(t.Context(), to, templates); err != nil {
			t.Fatal(err)
		}
		with := []biometric.Reference{{Part: s.Known[0].Part, Slot: to}}
		s.proves(t, 0, with, biometric.Match{Outcome: biometric.Matched, Slot: to, Part: with[0].Part})
	})
}

// scan is how a Scan ended.
type scan struct {
	biometric.Match
	err error
}

// begin scans in the background.
func (s *Scanner) begin(ctx context.Context, with []biometric.Reference) <-chan scan {
	got := make(chan scan, 1)
	go func() {
		m, err := s.Scan(ctx, with)
		got <- scan{m, err}
	}()
	return got
}

func (s *Scanner) await(t *testing.T, got <-chan scan) scan {
	t.Helper()
	select {
	case g := <-got:
		return g
	case <-time.After(soon):
		t.Fatalf("Scan did not return within %v", soon)
		return scan{}
	}
}

func (s *Scanner) is(t *testing.T, got <-chan scan, want biometric.Match) {
	t.Helper()
	s.check(t, s.await(t, got), want)
}

func (s *Scanner) check(t *testing.T, got scan, want biometric.Match) {
	t.Helper()
	if got.err != nil || got.Match != want {
		t.Errorf("Scan gave %+v, %v; want %+v", got.Match, got.err, want)
	}
}

// present has a person come to a scan that waits. One who came too early, when
// the scanner still saw the person before, comes again, and later.
func (s *Scanner) present(t *testing.T, person int, with []biometric.Reference) scan {
	t.Helper()
	late := settled
	for end := time.Now().Add(2 * soon); ; late = min(late*3/2, leastWait*4/5) {
		got := s.begin(t.Context(), with)
		time.Sleep(late)
		s.Touch(person)
		g := s.await(t, got)
		s.Lift()
		if g.Outcome != biometric.Nobody || time.Now().After(end) {
			return g
		}
	}
}

// proves holds what comes of a person's scan to what is wanted.
func (s *Scanner) proves(t *testing.T, person int, with []biometric.Reference, want biometric.Match) {
	t.Helper()
	s.check(t, s.present(t, person, with), want)
}

// matched is what a scan is to say of a known person, with these references.
func (s *Scanner) matched(person int, with []biometric.Reference) biometric.Match {
	i := slices.IndexFunc(with, func(r biometric.Reference) bool {
		return r.Part == s.Known[person].Part && r.Slot == s.Known[person].Slot
	})
	m := biometric.Match{Outcome: biometric.Matched, Part: with[i].Part, Duress: with[i].Duress}
	if s.Keeps {
		m.Slot = with[i].Slot
	}
	return m
}

// suffers has a trouble come and go.
func (s *Scanner) suffers(t *testing.T, trouble Trouble) {
	t.Helper()
	w := s.watch(t.Context())
	defer w.end()
	w.is(t, true)
	if trouble.Harmless {
		trouble.Begin()
		s.proves(t, 0, s.Known[:1], s.matched(0, s.Known))
		trouble.End()
		s.proves(t, 0, s.Known[:1], s.matched(0, s.Known))
		return
	}
	got := s.begin(t.Context(), s.Known[:1])
	time.Sleep(settled)
	trouble.Begin()
	s.Touch(0) // whom it may have begun to look for before
	if g := s.await(t, got); g.Outcome == biometric.Matched && (g.err != nil || g.Match != s.matched(0, s.Known)) {
		t.Errorf("%s: Scan gave %+v, %v", trouble.Name, g.Match, g.err)
	}
	s.Lift()
	w.is(t, false)
	for end := time.Now().Add(soon); ; {
		g := s.await(t, s.begin(t.Context(), s.Known[:1]))
		if g.err != nil {
			break
		}
		// One that falls into a moment of recovery may wait, and see nobody.
		if g.Outcome != biometric.Nobody || time.Now().After(end) {
			t.Errorf("%s: Scan gave %+v", trouble.Name, g.Match)
			break
		}
	}
	trouble.End()
	w.is(t, true)
	s.proves(t, 0, s.Known[:1], s.matched(0, s.Known))
}

// enrol enrols a person, who does what is said.
func (s *Scanner) enrol(t *testing.T, e biometric.Enroller, person int, slot uint32) (biometric.Reference, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*soon)
	defer cancel()
	part := s.Known[0].Part
	steps := 0
	got, err := e.Enroll(ctx, biometric.Capture{Part: part, Slot: slot, Tell: func(step biometric.Step) {
		steps++
		if step.Action == biometric.Lift {
			s.Lift()
			time.Sleep(settled / 3) // no person is faster, and no sensor sees one that is
			return
		}
		s.Touch(person)
	}})
	s.Lift()
	if err != nil {
		t.Fatalf("Enroll: %v", err)
	}
	if steps == 0 {
		t.Error("nobody was told what to do")
	}
	return biometric.Reference{Part: part, Slot: slot, Template: got.Template}, got.Quality
}

func slots(t *testing.T, e biometric.Enroller) []uint32 {
	t.Helper()
	all, err := e.Slots(t.Context())
	if err != nil {
		t.Fatalf("Slots: %v", err)
	}
	return all
}

// free is a slot that is not in use.
func free(about biometric.About, used []uint32) uint32 {
	slot := about.First
	for slices.Contains(used, slot) {
		slot++
	}
	return slot
}

// faults is a Watch of a scanner in the background.
type faults struct {
	cancel context.CancelFunc
	ended  chan error

	mu    sync.Mutex
	wrong []error
}

func (s *Scanner) watch(ctx context.Context) *faults {
	ctx, cancel := context.WithCancel(ctx)
	w := &faults{cancel: cancel, ended: make(chan error, 1)}
	go func() {
		w.ended <- s.Watch(ctx, func(fault error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.wrong = append(w.wrong, fault)
		})
	}()
	return w
}

// is waits until the last that was told is that the scanner can be used, or
// that it cannot.
func (w *faults) is(t *testing.T, usable bool) {
	t.Helper()
	what := "it is told that the scanner cannot be used"
	if usable {
		what = "it is told that the scanner can be used"
	}
	eventually(t, what, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		n := len(w.wrong)
		return n > 0 && (w.wrong[n-1] == nil) == usable
	})
}

func (w *faults) told() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.wrong)
}

func (w *faults) end() error {
	w.cancel()
	return <-w.ended
}
