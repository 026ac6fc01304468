package enroll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var errUnplugged = errors.New("it does not answer")

// sensor is a scanner with people in front of it: whatever part is asked for is
// given at once, by whoever stands there.
type sensor struct {
	mu       sync.Mutex
	about    biometric.About
	slots    map[uint32]string // finger kept in each
	who      string            // stands there; "": nobody
	poor     int               // captures that are of poor quality
	refuse   int               // captures that it refuses
	unlike   int               // scans of the right finger that it does not recognise
	astray   bool              // it says another slot than it found
	forgets  bool              // what is written into it
	given    []biometric.Template
	off      bool
	watchers []func(error)
	before   func(what string) // is called before whatever is done, with mu held
}

func newSensor(serial string, m biometric.Modality, capacity int) *sensor {
	return &sensor{
		about: biometric.About{Model: "bench", Serial: serial, Modality: m, Capacity: capacity, First: 1, Family: "bench"},
		slots: map[uint32]string{}, who: "ada",
	}
}

// begin is what every call begins with. It gives back with s.mu held.
func (s *sensor) begin(ctx context.Context, what string) error {
	s.mu.Lock()
	if s.before != nil {
		s.before(what)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.off {
		return errUnplugged
	}
	return nil
}

func (s *sensor) finger(p biometric.Part) string { return s.who + "/" + string(p) }

func (s *sensor) Scan(ctx context.Context, with []biometric.Reference) (biometric.Match, error) {
	defer s.mu.Unlock()
	if err := s.begin(ctx, "scan"); err != nil {
		return biometric.Match{}, err
	}
	if s.who == "" {
		return biometric.Match{Outcome: biometric.Nobody}, nil
	}
	for _, r := range with {
		kept := s.slots[r.Slot]
		if s.about.Capacity == 0 {
			kept = string(r.Template.Bytes())
		}
		if kept != s.finger(r.Part) {
			continue
		}
		if s.unlike > 0 {
			s.unlike--
			break
		}
		if s.astray {
			r.Slot++
		}
		return biometric.Match{Outcome: biometric.Matched, Slot: r.Slot, Part: r.Part, Duress: r.Duress}, nil
	}
	return biometric.Match{Outcome: biometric.NoMatch}, nil
}

func (s *sensor) Watch(ctx context.Context, changed func(error)) error {
	s.mu.Lock()
	s.watchers = append(s.watchers, changed)
	s.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

func (s *sensor) Enroll(ctx context.Context, c biometric.Capture) (biometric.Captured, error) {
	defer s.mu.Unlock()
	if err := s.begin(ctx, "enroll "+string(c.Part)); err != nil {
		return biometric.Captured{}, err
	}
	s.mu.Unlock()
	c.Tell(biometric.Step{Action: biometric.Place, Capture: 1, Captures: 2})
	s.mu.Lock()
	if s.off { // it stored it, and could not say so
		s.slots[c.Slot] = s.finger(c.Part)
		return biometric.Captured{}, errUnplugged
	}
	if s.refuse > 0 {
		s.refuse--
		return biometric.Captured{}, errors.New("too little was seen of it")
	}
	captured := biometric.Captured{Quality: 80}
	if s.poor > 0 {
		s.poor--
		captured.Quality = 20
	}
	if s.about.Capacity == 0 {
		captured.Template = biometric.NewTemplate([]byte(s.finger(c.Part)))
		s.given = append(s.given, captured.Template)
		return captured, nil
	}
	if s.slots[c.Slot] != "" {
		return biometric.Captured{}, fmt.Errorf("slot %d is in use", c.Slot)
	}
	s.slots[c.Slot] = s.finger(c.Part)
	return captured, nil
}

func (s *sensor) About(ctx context.Context) (biometric.About, error) {
	defer s.mu.Unlock()
	err := s.begin(ctx, "about")
	return s.about, err
}

func (s *sensor) Slots(ctx context.Context) ([]uint32, error) {
	defer s.mu.Unlock()
	err := s.begin(ctx, "slots")
	return slices.Sorted(maps.Keys(s.slots)), err
}

func (s *sensor) Delete(ctx context.Context, slot uint32) error {
	defer s.mu.Unlock()
	if err := s.begin(ctx, "delete"); err != nil {
		return err
	}
	delete(s.slots, slot)
	return nil
}

func (s *sensor) ReadSlot(ctx context.Context, slot uint32) ([]biometric.Template, error) {
	defer s.mu.Unlock()
	err := s.begin(ctx, "read")
	t := biometric.NewTemplate([]byte(s.slots[slot]))
	s.given = append(s.given, t)
	return []biometric.Template{t}, err
}

func (s *sensor) WriteSlot(ctx context.Context, slot uint32, templates []biometric.Template) error {
	defer s.mu.Unlock()
	if err := s.begin(ctx, "write"); err != nil {
		return err
	}
	if !s.forgets {
		s.slots[slot] = string(templates[0].Bytes())
	}
	return nil
}

// wantCleared looks whether what the sensor gave away was cleared.
func (s *sensor) wantCleared(t *testing.T) {
	t.Helper()
	if len(s.given) == 0 {
		t.Error("it gave no template away")
	}
	for _, g := range s.given {
		if !g.Empty() {
			t.Errorf("a %v is still in memory", g)
		}
	}
}

// power switches the sensor, and says so to whoever watches.
func (s *sensor) power(on bool) {
	s.mu.Lock()
	s.off = !on
	watchers := slices.Clone(s.watchers)
	s.mu.Unlock()
	for _, w := range watchers {
		if on {
			w(nil)
		} else {
			w(errUnplugged)
		}
	}
}

func (s *sensor) kept() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Values(s.slots))
}

// site is a controller with its log and its enrolments in a folder.
type site struct {
	t       *testing.T
	dir     string
	now     time.Time
	clock   access.ClockState
	listed  map[string]bool
	sensors map[string]*sensor
	breaks  error // what the journal fails with
	lies    bool  // the journal fails, and has written all the same
	blinds  bool  // from then on it tells no state either
	blind   error // what it fails with when it is asked for a state

	log    *visitorlog.Log
	sealer *keys.Sealer
	store  *enrolled.Store
	desk   *Desk
}

func newSite(t *testing.T, sensors map[string]*sensor) *site {
	s := &site{
		t: t, dir: t.TempDir(), now: time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC), clock: access.ClockSynchronised,
		listed: map[string]bool{"ada": true, "bob": true}, sensors: sensors,
	}
	_, err := keys.InitController(filepath.Join(s.dir, "keys"), keys.ES256)
	must(t, err)
	s.start()
	t.Cleanup(s.stop)
	return s
}

// start starts the controller.
func (s *site) start() {
	s.t.Helper()
	k, err := keys.LoadController(keys.File(filepath.Join(s.dir, "keys")))
	must(s.t, err)
	s.sealer = k.Records
	own, err := keys.NewVerifier(k.Log.JWK(), keys.TypeRecord)
	must(s.t, err)
	s.log, err = visitorlog.Open(s.dir, visitorlog.Options{
		Controller: "north-1", Signer: k.Log, Verifier: own, Note: k.Log.NoteSigner, NoteVerifier: own.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			return s.now, visitorlog.Clock{State: s.clock, Boot: "8f4f4c2e-0000-4000-8000-000000000000", UptimeMS: 1}
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	must(s.t, err)
	s.store, err = enrolled.Open(s.t.Context(), filepath.Join(s.dir, enrolled.FileName), enrolled.Keys{Index: k.Pepper, Sealer: k.Templates})
	must(s.t, err)
	s.desk = New(Options{
		Store: s.store, Journal: s,
		Known: func(_ context.Context, persons []string) (map[string]bool, error) { return s.listed, nil },
		Now:   func() (time.Time, access.ClockState) { return s.now, s.clock },
		Zone:  time.UTC, Logger: slog.New(slog.DiscardHandler),
	})
	for name, own := range s.sensors {
		s.desk.Use(name, own)
	}
}

func (s *site) stop() {
	must(s.t, errors.Join(s.log.Close(), s.store.Close()))
}

// restart is a crash at this moment, and the next start.
func (s *site) restart() {
	s.stop()
	s.start()
}

// Append is the site's journal.
func (s *site) Append(ctx context.Context, draft visitorlog.Draft, key string, value []byte) error {
	if s.breaks != nil {
		return s.breaks
	}
	_, err := s.log.Append(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
		if key == "" {
			return draft, nil
		}
		return draft, tx.Set(key, value)
	})
	if s.lies {
		err = errors.New("whether it was written is not known")
		if s.blinds {
			s.blind = err
		}
	}
	return err
}

// State is that of the site's journal.
func (s *site) State(ctx context.Context, key string) ([]byte, error) {
	if s.blind != nil {
		return nil, s.blind
	}
	return s.log.State(ctx, key)
}

// records are those of a type.
func (s *site) records(want visitorlog.Type) (found []visitorlog.Record) {
	s.t.Helper()
	r, err := visitorlog.OpenReader(s.t.Context(), filepath.Join(s.dir, "records.db"), s.sealer)
	must(s.t, err)
	defer r.Close()
	all, err := r.Read(s.t.Context(), 0, 1000)
	must(s.t, err)
	for _, e := range all {
		if e.Record.Type == want {
			found = append(found, e.Record)
		}
	}
	return found
}

// rows are what is enrolled, such as "active ada right-index at a-finger 1".
func (s *site) rows() []string {
	s.t.Helper()
	rows, err := s.store.List(s.t.Context())
	must(s.t, err)
	all := []string{}
	for _, r := range rows {
		must(s.t, r.Fault)
		all = append(all, fmt.Sprintf("%s %s %s at %s %d", r.State, r.Person, r.Part, r.Scanner, r.Slot))
	}
	return all
}

// wantNothing is what every session that ended early has to leave.
func (s *site) wantNothing() {
	s.t.Helper()
	if rows := s.rows(); len(rows) > 0 {
		s.t.Errorf("rows are left: %q", rows)
	}
	for name, own := range s.sensors {
		if kept := own.kept(); len(kept) > 0 {
			s.t.Errorf("%s keeps %q", name, kept)
		}
	}
	if n := len(s.records(visitorlog.EnrollmentMade)); n > 0 {
		s.t.Errorf("%d enrolments are recorded", n)
	}
}

// The people of every test.
var (
	olga = &access.Entry{Person: "olga", Kind: access.Staff, State: access.Active, Operator: true}
	omar = &access.Entry{Person: "omar", Kind: access.Staff, State: access.Active, Operator: true}
	ada  = &access.Entry{Person: "ada", Kind: access.Staff, State: access.Active}
	bob  = &access.Entry{Person: "bob", Kind: access.Staff, State: access.Active}
)

// sitting is one session: the badges that are presented, one after the other,
// and the answers to the questions.
type sitting struct {
	t        *testing.T
	scanners []string
	badges   []*access.Entry
	answers  []string          // each "part of the question: answer"
	when     map[string]func() // what happens when something is said or asked

	mu   sync.Mutex
	said []string
	asks []string
}

func (s *sitting) Scanners() []string { return s.scanners }
func (s *sitting) Show(access.Factor) {}

func (s *sitting) Badge(ctx context.Context) (*access.Entry, error) {
	if len(s.badges) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	e := s.badges[0]
	s.badges = s.badges[1:]
	return e, nil
}

func (s *sitting) happens(text string) {
	for part, act := range s.when {
		if strings.Contains(text, part) {
			act()
		}
	}
}

func (s *sitting) Say(text string) {
	s.mu.Lock()
	s.said = append(s.said, text)
	s.mu.Unlock()
	s.happens(text)
}

func (s *sitting) Ask(ctx context.Context, question string, choices ...string) (string, error) {
	s.happens(question)
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.asks = append(s.asks, question)
	if len(s.answers) == 0 {
		s.t.Errorf("asked %q, and there is no answer", question)
		return "", ErrEnded
	}
	part, answer, _ := strings.Cut(s.answers[0], ": ")
	s.answers = s.answers[1:]
	if !strings.Contains(question, part) {
		s.t.Errorf("asked %q, want something with %q", question, part)
	}
	if len(choices) > 0 && !slices.Contains(choices, answer) {
		s.t.Errorf("%q is not one of %q", answer, choices)
	}
	return answer, nil
}

func (s *sitting) Progress(string, int, int) {}

func (s *sitting) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.said, "\n")
}

func (s *sitting) wantSaid(parts ...string) {
	s.t.Helper()
	for _, p := range parts {
		if !strings.Contains(s.text(), p) {
			s.t.Errorf("%q was not said:\n%s", p, s.text())
		}
	}
}

// usualSitting enrols Ada by Olga and Omar.
func usualSitting(t *testing.T, scanners ...string) *sitting {
	return &sitting{
		t: t, scanners: scanners, when: map[string]func(){},
		badges:  []*access.Entry{olga, ada, ada, omar},
		answers: []string{"Who: ada", "notice: 2026-01", "fingerprints: agreed", "which: ", "threat: "},
	}
}
