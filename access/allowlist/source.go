package allowlist

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
)

const (
	lookEvery = time.Second
	// keepEvery is how far the time at which the list was last known to be current
	// goes on before the file is told: each time costs a card several writes.
	keepEvery = 15 * time.Minute
	// skew is how far ahead of the clock an allowlist may have been made before
	// its age counts as unknown.
	skew = 5 * time.Minute
)

// Ladder is the ladder of age. A duration of 0 or below is never reached.
type Ladder struct {
	StaleAfter   time.Duration
	ExpiredAfter time.Duration
	ExpiredKinds []access.Kind // who may still enter under an expired allowlist
}

// Policy places an allowlist of an age. If it was made ahead of the clock, the
// clock is wrong and the age unknown: then the allowlist counts as expired
// where it can expire, else as stale.
func (l Ladder) Policy(version uint64, age time.Duration) access.Policy {
	p := access.Policy{Version: version, Age: max(age, 0), Freshness: access.Fresh, ExpiredKinds: l.ExpiredKinds}
	unknown := age < -skew
	switch {
	case l.ExpiredAfter > 0 && (unknown || p.Age >= l.ExpiredAfter):
		p.Freshness = access.Expired
	case unknown || l.StaleAfter > 0 && p.Age >= l.StaleAfter:
		p.Freshness = access.Stale
	}
	return p
}

// Clock is what a Source measures age by.
type Clock interface {
	// Now is the wall clock, and how far it is to be trusted.
	Now() (time.Time, access.ClockState)
	// Uptime is the time since boot, during which no step of the wall clock
	// shows. It counts on while the machine sleeps.
	Uptime() time.Duration
}

// SourceOptions say what a Source serves.
type SourceOptions struct {
	Path string
	Keys Keys
	// Floor is the highest version that this controller has ever used: nothing
	// below is served.
	Floor uint64
	// Applying is called before an allowlist of a version above the floor is
	// served, so that the caller can make the new floor durable and record it.
	// If it fails, the allowlist is not served and is tried again. May be nil.
	Applying func(context.Context, Manifest) error
	Ladder   Ladder
	Clock    Clock
	Logger   *slog.Logger
}

// Source is a daemon's live allowlist. It notices when the file is replaced
// and swaps while lookups go on; where the CRM governs, Apply does. A file that
// cannot be trusted, or that would go backwards, is not served: the one before it
// goes on, and where there is none, nobody is let in. Its methods may be used from
// several goroutines.
type Source struct {
	o    SourceOptions
	wake chan struct{}

	// mu keeps a list from being closed during a lookup; lookups share it.
	mu        sync.RWMutex
	list      *List
	confirmed time.Time // when the list was last heard to be current
	aged      aged
	checked   bool  // its content was compared with its digest
	fault     error // what is wrong with the file, if anything

	// applying is held while the file is written.
	applying sync.Mutex

	// looking is held while a list is chosen and served.
	looking  sync.Mutex
	floor    uint64
	serving  fileID // what list was opened from
	rejected fileID // what was last found wanting
}

// aged is the age of the list as the wall clock once told it. From then on it
// grows by the time since boot: who sets the clock lets nothing expire, and
// brings back nothing that has. The wall clock is asked again only when it is
// better trusted than it was.
type aged struct {
	trust  int // in the clock; 0: it told of no possible age
	age    time.Duration
	uptime time.Duration // then
}

// trust ranks the states of a clock.
func trust(s access.ClockState) int {
	switch s {
	case access.ClockSynchronised:
		return 3
	case access.ClockDrifting:
		return 2
	}
	return 1
}

// fileID tells one state of a file from another.
type fileID struct {
	dev, ino uint64
	size     int64
	changed  unix.Timespec // of the inode: content, mode or name
}

func (a fileID) sameFile(b fileID) bool { return a.dev == b.dev && a.ino == b.ino }

func identify(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return fileID{uint64(st.Dev), st.Ino, st.Size, st.Ctim}, nil
}

// OpenSource opens the allowlist that is there. That there is none, or none to
// be trusted, is not an error but a state, in which everybody is denied. Its
// content is checked by Run, so that the door is ready soon.
func OpenSource(ctx context.Context, o SourceOptions) *Source {
	s := &Source{o: o, floor: o.Floor, wake: make(chan struct{}, 1)}
	if o.Keys.Verifier == nil {
		if err := sweep(o.Path); err != nil { // what a power cut left half built
			o.Logger.Warn("allowlist", "error", err)
		}
	}
	s.look(ctx, false)
	return s
}

// Run checks the content of what is served, then watches the file, until ctx
// ends.
func (s *Source) Run(ctx context.Context) error {
	s.checkServed(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.keepConfirmed(0)
			return nil
		case <-tick.C:
		case <-s.wake:
		}
		s.askClock()
		s.look(ctx, true)
		s.keepConfirmed(keepEvery)
	}
}

// Reload has Run look at the file at once.
func (s *Source) Reload() {
	select {
	case s.wake <- struct{}{}:
	default: // it is about to look
	}
}

// Close closes the allowlist; from then on nobody is let in. Run must have
// ended.
func (s *Source) Close() error { return s.serve(nil, false) }

// Lookup finds a credential: nil and no error means that it is not on the
// allowlist, or that there is none. After an error, decide as if there were
// none.
func (s *Source) Lookup(c badge.Credential) (*access.Entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.list == nil {
		return nil, nil
	}
	return s.list.Lookup(c)
}

// Person finds who was identified without a card; nil and errors are as of
// Lookup.
func (s *Source) Person(id string) (*access.Entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.list == nil {
		return nil, nil
	}
	return s.list.Person(id)
}

// Rules are what a door asks for on the way in or out; nil where the policy says
// nothing of that, or there is none. They may not be changed.
func (s *Source) Rules(door string, side access.Direction) []access.Rule {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.list == nil {
		return nil
	}
	return s.list.Rules(door, side)
}

// CheckPIN compares digits with the PINs of an entry, as List.CheckPIN does.
func (s *Source) CheckPIN(e *access.Entry, digits []byte) (ok, duress bool) {
	return checkPIN(s.o.Keys.Index, e, digits)
}

// Policy names what is served, and its place on the ladder of age: by now, the
// wall clock, as long as that was never after the list was made.
func (s *Source) Policy(now time.Time) access.Policy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.place(s.o.Ladder, now)
}

// PolicyAt is Policy by the ladder of a door that has one of its own.
func (s *Source) PolicyAt(door string, now time.Time) access.Policy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ladder := s.o.Ladder
	if s.list != nil {
		if site := s.list.Site(door); site != nil && site.Age != nil {
			ladder = Ladder(*site.Age)
		}
	}
	return s.place(ladder, now)
}

// place is the list's place on a ladder, with s.mu held.
func (s *Source) place(ladder Ladder, now time.Time) access.Policy {
	if s.list == nil {
		return access.Policy{Freshness: access.Absent}
	}
	age := now.Sub(s.current())
	if s.aged.trust > 0 {
		age = s.aged.age + s.o.Clock.Uptime() - s.aged.uptime
	}
	return ladder.Policy(s.list.Version(), age)
}

// Site is what is asked at a door beside factors; nil: nothing. It may not be
// changed.
func (s *Source) Site(door string) *access.Door {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.list == nil {
		return nil
	}
	return s.list.Site(door)
}

// Code finds a one-time code; nil and errors are as of Lookup.
func (s *Source) Code(digits []byte) (*access.Entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.list == nil {
		return nil, nil
	}
	return s.list.Code(digits)
}

// askClock learns the list's age if the clock is better trusted than when it
// was last asked.
func (s *Source) askClock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learnAge()
}

// learnAge is askClock with s.mu held.
func (s *Source) learnAge() {
	if s.list == nil {
		return
	}
	now, state := s.o.Clock.Now()
	a := aged{trust(state), now.Sub(s.current()), s.o.Clock.Uptime()}
	if a.trust > s.aged.trust && a.age >= -skew {
		s.aged = a
	}
}

// current is when the list was last known to be so.
func (s *Source) current() time.Time {
	if made := s.list.Applied(); made.After(s.confirmed) {
		return made
	}
	return s.confirmed
}

// Confirm says that at a moment the given version was heard to be the newest there
// is. Its age counts from then. Floor is a time that had passed by the CRM's word
// when that was heard: a clock that was never set cannot tell the age, but the
// moment before the floor can.
func (s *Source) Confirm(version uint64, at, floor time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list == nil || s.list.Version() != version || !at.After(s.confirmed) {
		return
	}
	s.confirmed, s.aged = at, aged{}
	s.learnAge()
	if age := floor.Sub(at); s.aged.trust <= trust(access.ClockUnset) && age >= -skew {
		s.aged = aged{trust(access.ClockUnset), max(age, 0), s.o.Clock.Uptime()}
	}
}

// Raise says that a version was used here before: nothing below is served any more,
// whatever the file says. So an old copy of it, put back with the log that knew its
// floor, ends when the CRM is heard.
func (s *Source) Raise(floor uint64) {
	s.looking.Lock()
	defer s.looking.Unlock()
	s.floor = max(s.floor, floor)
	s.mu.RLock()
	l := s.list
	s.mu.RUnlock()
	if l == nil || l.Version() >= s.floor {
		return
	}
	s.rejected = s.serving
	s.setFault(s.tooOld(l))
	s.drop()
}

// Newest is the version that is served and the generation of the pepper by which
// its rows are found, which only a list from a CRM has; 0: none is served.
func (s *Source) Newest() (version uint64, generation string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.list == nil {
		return 0, ""
	}
	return s.list.Version(), s.list.Generation()
}

// Status is the state of a Source, for people and for metrics.
type Status struct {
	Version     uint64           `json:"version"`
	Credentials uint64           `json:"credentials"`
	Created     *time.Time       `json:"created,omitempty"`
	AgeSeconds  int64            `json:"age_seconds"`
	Freshness   access.Freshness `json:"freshness"`
	Checked     bool             `json:"checked"`         // its content was compared with its digest
	Fault       string           `json:"fault,omitempty"` // what is wrong with the file
}

// Status is the state at now.
func (s *Source) Status(now time.Time) Status {
	p := s.Policy(now)
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Status{Version: p.Version, AgeSeconds: int64(p.Age / time.Second), Freshness: p.Freshness, Checked: s.checked}
	if s.list != nil {
		created := s.list.Applied()
		st.Credentials, st.Created = s.list.Size(), &created
	}
	if s.fault != nil {
		st.Fault = s.fault.Error()
	}
	return st
}

// look opens the file if it is not the one that is served. With thorough, its
// content is checked before it is served.
func (s *Source) look(ctx context.Context, thorough bool) {
	s.looking.Lock()
	defer s.looking.Unlock()
	id, err := identify(s.o.Path)
	if err != nil {
		// What was served was trusted, and goes on until there is better.
		s.setFault(err)
		return
	}
	if id == s.serving {
		s.setFault(nil)
		return
	}
	if id == s.rejected {
		return
	}
	next, err := s.accept(ctx, thorough)
	var again *retry
	switch {
	case ctx.Err() != nil:
		return
	case errors.As(err, &again):
		s.setFault(err)
		return
	case err != nil:
		s.rejected = id
		s.setFault(err)
		if id.sameFile(s.serving) { // what is served was changed under our hands
			s.drop()
		}
		return
	}
	s.take(id, next, thorough)
}

// take serves a list that was opened from a file, with s.looking held.
func (s *Source) take(id fileID, next *List, checked bool) {
	s.serving, s.rejected, s.floor = id, fileID{}, max(s.floor, next.Version())
	if err := s.serve(next, checked); err != nil {
		s.o.Logger.Warn("allowlist", "error", err)
	}
	s.setFault(nil)
	s.o.Logger.Info("allowlist", "version", next.Version(), "credentials", next.Size(), "created", next.Applied())
}

// retry is an error that has nothing to do with the file.
type retry struct{ error }

func (r *retry) Unwrap() error { return r.error }

// accept opens the file and finds out whether it may be served.
func (s *Source) accept(ctx context.Context, thorough bool) (_ *List, err error) {
	l, err := Open(s.o.Path, s.o.Keys)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	m := l.Manifest()
	if m.Version < s.floor {
		return nil, s.tooOld(l)
	}
	s.mu.RLock()
	other := s.list != nil && !l.live && s.list.Version() == m.Version && s.list.Manifest().Digest != m.Digest
	s.mu.RUnlock()
	if other {
		return nil, fmt.Errorf("allowlist of version %d is another than the one of that version that is in use: import again", m.Version)
	}
	if thorough {
		if err := l.Check(ctx, nil); err != nil {
			return nil, err
		}
	}
	if m.Version > s.floor && s.o.Applying != nil {
		if err := s.o.Applying(ctx, m); err != nil {
			return nil, &retry{fmt.Errorf("allowlist of version %d is not in use yet: %w", m.Version, err)}
		}
	}
	return l, nil
}

// tooOld is why a list is not served that is older than one before it.
func (s *Source) tooOld(l *List) error {
	err := fmt.Errorf("allowlist of version %d is older than version %d, which was used here already", l.Version(), s.floor)
	if l.live {
		return fmt.Errorf("%w: connect the controller, which fetches the CRM's", err)
	}
	return fmt.Errorf("%w: import again with --above %d", err, s.floor)
}

// checkServed checks the content of what OpenSource began to serve. It opens the
// file once more for that, as what is served may be exchanged meanwhile.
func (s *Source) checkServed(ctx context.Context) {
	s.mu.RLock()
	served := s.list != nil
	s.mu.RUnlock()
	if !served {
		return
	}
	l, err := Open(s.o.Path, s.o.Keys)
	if err == nil {
		err = errors.Join(l.Check(ctx, nil), l.Close())
	}
	if ctx.Err() != nil {
		return
	}
	s.looking.Lock()
	defer s.looking.Unlock()
	s.mu.Lock()
	// What was applied to it meanwhile goes on from it.
	if same := s.list != nil && (l == nil || s.list.Manifest().Snapshot == l.Manifest().Snapshot); !same {
		s.mu.Unlock()
		return
	}
	s.checked = err == nil
	s.mu.Unlock()
	if err != nil {
		s.rejected = s.serving
		s.setFault(err)
		s.drop()
	}
}

// drop ends the service of a list that cannot be trusted any more.
func (s *Source) drop() {
	s.serving = fileID{}
	if err := s.serve(nil, false); err != nil {
		s.o.Logger.Warn("allowlist", "error", err)
	}
}

// serve swaps the list, and closes the old one when the last lookup in it has
// ended.
func (s *Source) serve(next *List, checked bool) error {
	s.mu.Lock()
	old := s.list
	s.list, s.checked, s.confirmed, s.aged = next, checked, time.Time{}, aged{}
	if next != nil {
		s.confirmed = next.confirmed
	}
	s.learnAge()
	s.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.Close()
}

// setFault keeps and logs what is wrong, once.
func (s *Source) setFault(err error) {
	s.mu.Lock()
	old := s.fault
	s.fault = err
	s.mu.Unlock()
	if err != nil && (old == nil || old.Error() != err.Error()) {
		s.o.Logger.Error("allowlist", "error", err, "served", s.version())
	}
}

func (s *Source) version() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.list == nil {
		return 0
	}
	return s.list.Version()
}
