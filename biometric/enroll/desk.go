// Package enroll enrols people's fingers and eyes: the guided session at a
// door, the revocation, the copying between scanners, and the nightly search
// for what nobody enrolled. It knows no terminal and no socket: who sits in
// front is a Talk, the side of a door is a Station, the signed log a Journal.
//
// A scanner stores nothing without a pending row that says so. The record of
// an enrolment is what makes it one: in its transaction stands which session
// it was, so that after a crash a pending row is either approved, since its
// record stands, or undone.
package enroll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Station is one side of a door, lent for a session: what is presented there
// is not decided.
type Station interface {
	// Badge waits for the next badge that is presented; nil: one that is not on
	// the allowlist. It fails when the side is not lent any more.
	Badge(context.Context) (*access.Entry, error)
	// Scanners are the names of the scanners on this side.
	Scanners() []string
	// Show shows at the door what is asked for; 0: nothing.
	Show(access.Factor)
}

// Talk is whoever sits at the terminal. Its methods may be called after that
// one has gone; Ask then fails.
type Talk interface {
	Say(text string)
	// Ask gives one of the choices; where there are none, any line, trimmed.
	Ask(ctx context.Context, question string, choices ...string) (string, error)
	// Progress tells how far long work has come.
	Progress(what string, done, total int)
}

// Journal is the controller's signed log.
type Journal interface {
	// Append writes a record, and in its own transaction sets a state, unless key
	// is "". An error means that nothing was promised.
	Append(ctx context.Context, draft visitorlog.Draft, key string, value []byte) error
	// State is what Append set last; nil: nothing.
	State(ctx context.Context, key string) ([]byte, error)
}

// The states that are kept beside the records.
const (
	stateCommitted = "enrolled/committed" // the session whose record was written last
	stateFound     = "enrolled/found/"    // and a scanner's name: what was last recorded of it
)

const (
	reachWithin = 15 * time.Second // what a scanner is given to answer, in undoing
	maxWords    = 900              // bytes of a record's detail
)

// Options are what a Desk works with.
type Options struct {
	Store   *enrolled.Store
	Journal Journal
	// Known gives those of the persons that are on the allowlist. An error means
	// that it cannot be told.
	Known func(ctx context.Context, persons []string) (map[string]bool, error)
	// Now is the wall clock, and how far it is to be trusted.
	Now    func() (time.Time, access.ClockState)
	Zone   *time.Location // the site's, for the hour of the nightly check
	Logger *slog.Logger
}

// Desk is where a controller's people are enrolled. Its methods may be used
// from several goroutines; Use only before the others.
type Desk struct {
	o           Options
	scanners    map[string]*scanner
	sessionTime time.Duration

	committing sync.Mutex // held from a record of an enrolment until its approval

	people    sync.Mutex
	enrolling map[string]int // sessions and copies that go on, by person

	mu     sync.Mutex
	report Report // of the last check
	fault  error  // of the last check or settlement
}

// scanner is one that enrols.
type scanner struct {
	biometric.Enroller
	name string
	turn chan struct{} // held by whoever changes what it keeps

	mu      sync.Mutex
	wanted  int           // by how many, who do not wait for a person
	changed chan struct{} // closed when that becomes none, or one; nil: nobody waits for it
}

// New makes a Desk without scanners.
func New(o Options) *Desk {
	return &Desk{o: o, scanners: map[string]*scanner{}, sessionTime: SessionTime, enrolling: map[string]int{}}
}

// begin says that a person is being enrolled, until done is called: nothing of
// theirs is revoked meanwhile, which the end of it would undo.
func (d *Desk) begin(person string) (done func()) {
	d.people.Lock()
	defer d.people.Unlock()
	d.enrolling[person]++
	return func() {
		d.people.Lock()
		defer d.people.Unlock()
		if d.enrolling[person]--; d.enrolling[person] == 0 {
			delete(d.enrolling, person)
		}
	}
}

// isEnrolling reports whether a person is being enrolled.
func (d *Desk) isEnrolling(person string) bool {
	d.people.Lock()
	defer d.people.Unlock()
	return d.enrolling[person] > 0
}

var (
	// ErrBusy is that a scanner is in the hands of another session or check.
	ErrBusy = errors.New("somebody is being enrolled there, or it is being checked: try again in a moment")
	// ErrNothing is that there is nothing of what was asked for.
	ErrNothing = errors.New("there is nothing")
	// ErrNoScanner is a name that no scanner has.
	ErrNoScanner = errors.New("no scanner of this controller that can enrol has this name")
)

// scanner finds one by its name.
func (d *Desk) scanner(name string) (*scanner, error) {
	if s, ok := d.scanners[name]; ok {
		return s, nil
	}
	return nil, fmt.Errorf("scanner %q: %w: there are %q", name, ErrNoScanner, d.names())
}

func (d *Desk) names() []string { return slices.Sorted(maps.Keys(d.scanners)) }

// take takes scanners for one session, all or none. Call release when it ends.
func take(scanners ...*scanner) (release func(), err error) {
	var taken []*scanner
	release = func() {
		for _, s := range taken {
			<-s.turn
		}
	}
	for _, s := range scanners {
		select {
		case s.turn <- struct{}{}:
			taken = append(taken, s)
		default:
			release()
			return nil, fmt.Errorf("scanner %q: %w", s.name, ErrBusy)
		}
	}
	return release, nil
}

// meet asks a scanner what it is, and notices when it is another than before.
func (d *Desk) meet(ctx context.Context, s *scanner) (about biometric.About, exchanged bool, err error) {
	if about, err = s.About(ctx); err != nil {
		return about, false, fmt.Errorf("scanner %q cannot be reached: %w", s.name, err)
	}
	before, known := d.o.Store.Serial(s.name)
	if err := d.o.Store.SetSerial(ctx, s.name, about.Serial); err != nil {
		return about, false, err
	}
	if exchanged = known && before != about.Serial; exchanged {
		d.o.Logger.Warn("the scanner was exchanged: what was enrolled at the one before matches no more",
			"scanner", s.name, "serial", about.Serial, "before", before)
	}
	return about, exchanged, nil
}

// committed is what is kept of the session whose record was written last.
type committed struct {
	Session  []byte `json:"session"`
	Approver string `json:"approver,omitempty"`
}

// commit writes the record of an enrolment and approves its rows. What is not
// written stays pending, and is the caller's to undo; after recorded it is
// settled within a minute, or at the next start.
func (d *Desk) commit(ctx context.Context, draft visitorlog.Draft, session enrolled.Session, approver string) (recorded bool, err error) {
	ctx = context.WithoutCancel(ctx) // half of it would be worse than either
	d.committing.Lock()
	defer d.committing.Unlock()
	// Only the last session is kept: the one before must be settled.
	if err := d.approveCommitted(ctx); err != nil {
		return false, err
	}
	value, err := json.Marshal(committed{session[:], approver})
	if err != nil {
		return false, err
	}
	if err := d.o.Journal.Append(ctx, draft, stateCommitted, value); err != nil {
		// It may have been written all the same.
		if last, e := d.o.Journal.State(ctx, stateCommitted); e != nil || string(last) != string(value) {
			return false, fmt.Errorf("it could not be recorded, so nobody was enrolled: %w", err)
		}
	}
	if err := d.o.Store.Approve(ctx, session, approver); err != nil {
		return true, fmt.Errorf("it is recorded, and matches within a minute: %w", err)
	}
	return true, nil
}

// approveLast is approveCommitted of whoever is not committing. After an error
// nothing that is pending may be undone.
func (d *Desk) approveLast(ctx context.Context) error {
	d.committing.Lock()
	defer d.committing.Unlock()
	return d.approveCommitted(ctx)
}

// approveCommitted approves the rows of the session whose record was written
// last. Committing is held.
func (d *Desk) approveCommitted(ctx context.Context) error {
	b, err := d.o.Journal.State(ctx, stateCommitted)
	if err != nil || b == nil {
		return err
	}
	var last committed
	if err := json.Unmarshal(b, &last); err != nil || len(last.Session) != len(enrolled.Session{}) {
		return fmt.Errorf("the session that was enrolled last is not known: %q", b)
	}
	return d.o.Store.Approve(ctx, enrolled.Session(last.Session), last.Approver)
}

// List is everything that is enrolled, without any template.
func (d *Desk) List(ctx context.Context) ([]enrolled.Row, error) { return d.o.Store.List(ctx) }
