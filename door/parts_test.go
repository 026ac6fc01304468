package door

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// journal is what happened to the parts of a door, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// take gives the lines since the last take.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	j.lines = nil
	return lines
}

// wires is a reader whose frames and faults a test sends.
type wires chan any // badge.Frame, error, or a func that panics

func (w wires) Read(ctx context.Context) (badge.Read, error) {
	select {
	case <-ctx.Done():
		return badge.Read{}, ctx.Err()
	case v := <-w:
		switch v := v.(type) {
		case badge.Frame:
			return badge.Read{Frame: v, At: time.Now()}, nil
		case badge.Read:
			return v, nil
		case error:
			return badge.Read{}, v
		default:
			panic(v)
		}
	}
}

// relay is a strike; err makes it fail.
type relay struct {
	*journal
	mu       sync.Mutex
	err      error
	unlocked bool
}

func (r *relay) set(unlocked bool, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		r.add("%s fails", name)
		return r.err
	}
	if r.unlocked != unlocked || name == "lock" {
		r.add("%s", name)
	}
	r.unlocked = unlocked
	return nil
}

func (r *relay) Unlock() error { return r.set(true, "unlock") }
func (r *relay) Lock() error   { return r.set(false, "lock") }

func (r *relay) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *relay) locked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.unlocked
}

// lamp is an indicator.
type lamp struct{ *journal }

func (l lamp) Show(pattern string) error {
	l.add("show %s", pattern)
	return nil
}

// line is an input.
type line struct {
	mu      sync.Mutex
	active  bool
	changes chan any // bool or error
}

func newLine(active bool) *line { return &line{active: active, changes: make(chan any)} }

func (l *line) Watch(ctx context.Context, changed func(bool)) error {
	l.mu.Lock()
	active := l.active
	l.mu.Unlock()
	changed(active)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-l.changes:
			if err, ok := c.(error); ok {
				return err
			}
			l.mu.Lock()
			l.active = c.(bool)
			l.mu.Unlock()
			changed(c.(bool))
		}
	}
}

func (l *line) set(active bool) { l.changes <- active }

// paper is a log in memory. It fails with err, and takes as long as delay.
type paper struct {
	*journal
	serial  chan struct{} // appends are serial
	mu      sync.Mutex
	err     error
	delay   time.Duration
	entries []visitorlog.Entry
}

func newPaper(j *journal) *paper { return &paper{journal: j, serial: make(chan struct{}, 1)} }

func (p *paper) Append(ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error) {
	p.serial <- struct{}{}
	defer func() { <-p.serial }()
	p.mu.Lock()
	err, delay := p.err, p.delay
	p.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return visitorlog.Entry{}, ctx.Err()
		}
	}
	if err != nil {
		return visitorlog.Entry{}, err
	}
	draft, err := write(nil)
	if err != nil {
		return visitorlog.Entry{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := visitorlog.Entry{Seq: uint64(len(p.entries)), Record: visitorlog.Record{Type: draft.Type, Subject: draft.Subject, Data: draft.Data}}
	p.entries = append(p.entries, e)
	p.add("%s", recordLine(e))
	return e, nil
}

func (p *paper) AppendReserved(ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error) {
	return p.Append(ctx, write)
}

func (p *paper) State(context.Context, string) ([]byte, error) { return nil, nil }

func (p *paper) set(err error, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.delay = err, delay
}

func (p *paper) all() []visitorlog.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.entries)
}

// recordLine writes a record as a person would.
func recordLine(e visitorlog.Entry) string {
	d := e.Record.Data
	s := fmt.Sprintf("%d %s", e.Seq, strings.TrimPrefix(string(e.Record.Type), "gatehouse."))
	if e.Record.Subject != "" {
		s += " " + e.Record.Subject
	}
	if d.Reason != "" {
		s += " " + string(d.Reason)
	}
	if d.Cause != nil {
		s += fmt.Sprintf(" because of %d", *d.Cause)
	}
	if d.Active != nil {
		s += fmt.Sprintf(" %v", *d.Active)
	}
	if d.Late {
		s += " late"
	}
	if d.Detail != "" {
		s += " (" + d.Detail + ")"
	}
	return s
}

// outcomes writes how factors came out.
func outcomes(e visitorlog.Entry) string {
	var all []string
	for _, o := range e.Record.Data.Outcomes {
		all = append(all, o.Factor+" "+o.Outcome+" at "+o.Reader)
	}
	return strings.Join(all, ", ")
}

// list is an allowlist.
type list struct {
	mu      sync.Mutex
	entries map[badge.Credential]*access.Entry
	persons map[string]*access.Entry // who may be identified without a card
	rules   map[access.Direction][]access.Rule
	site    *access.Door
	codes   map[string]*access.Entry
	newer   uint64 // versions than the first
	err     error
}

func (l *list) Lookup(c badge.Credential) (*access.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.entries[c], l.err
}

func (l *list) Person(id string) (*access.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.persons[id], l.err
}

func (l *list) Rules(_ string, side access.Direction) []access.Rule {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rules[side]
}

// CheckPIN compares with PINs that are kept in clear here.
func (l *list) CheckPIN(e *access.Entry, digits []byte) (ok, duress bool) {
	duress = len(e.DuressPIN) > 0 && bytes.Equal(e.DuressPIN, digits)
	return duress || len(e.PIN) > 0 && bytes.Equal(e.PIN, digits), duress
}

func (l *list) Site(string) *access.Door {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.site
}

func (l *list) Code(digits []byte) (*access.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.codes[string(digits)], l.err
}

func (l *list) PolicyAt(string, time.Time) access.Policy {
	l.mu.Lock()
	defer l.mu.Unlock()
	return access.Policy{Version: 3 + l.newer, Age: time.Minute, Freshness: access.Fresh}
}

// strikeOff makes a newer version, in which a card is not.
func (l *list) strikeOff(c badge.Credential) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, c)
	l.newer++
}

func (l *list) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// finger is what somebody puts on a sensor: the slot in which it is kept, if it
// is.
type finger uint32

// sensor is a scanner that keeps what it enrols.
type sensor struct {
	shown  chan any   // a finger, a biometric.Match, an error, or what Scan panics with
	states chan error // what Watch tells; nil: it is well

	mu      sync.Mutex
	kept    []finger
	fault   error
	scans   int  // that have begun
	waiting bool // one goes on
	alone   bool // it is authenticated
}

func newSensor(kept ...finger) *sensor {
	return &sensor{shown: make(chan any), states: make(chan error), kept: kept}
}

func (s *sensor) Authenticated() bool { return s.alone }

func (s *sensor) Scan(ctx context.Context, with []biometric.Reference) (biometric.Match, error) {
	s.begin(true)
	defer s.begin(false)
	select {
	case <-ctx.Done():
		return biometric.Match{}, ctx.Err()
	case v := <-s.shown:
		switch v := v.(type) {
		case finger:
			return s.compare(v, with), nil
		case biometric.Match:
			return v, nil
		case error:
			return biometric.Match{}, v
		default:
			panic(v)
		}
	}
}

func (s *sensor) begin(waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting = waiting; waiting {
		s.scans++
	}
}

func (s *sensor) compare(f finger, with []biometric.Reference) biometric.Match {
	for _, r := range with {
		if r.Slot == uint32(f) {
			return biometric.Match{Outcome: biometric.Matched, Slot: r.Slot, Part: r.Part}
		}
	}
	if len(with) == 0 && slices.Contains(s.kept, f) {
		return biometric.Match{Outcome: biometric.Matched, Slot: uint32(f)}
	}
	return biometric.Match{Outcome: biometric.NoMatch}
}

func (s *sensor) Watch(ctx context.Context, changed func(error)) error {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	changed(fault)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.states:
			s.mu.Lock()
			s.fault = err
			s.mu.Unlock()
			changed(err)
		}
	}
}

// asks reports whether the sensor waits for somebody.
func (s *sensor) asks() bool {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// drawer knows what was enrolled, by person.
type drawer struct {
	mu     sync.Mutex
	slots  map[string][]biometric.Reference
	err    error
	hangs  chan struct{}         // until it is closed; nil: not
	loaned []biometric.Reference // references that somebody was given
}

func (d *drawer) References(person, scanner string) ([]biometric.Reference, error) {
	if d.hangs != nil {
		<-d.hangs
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	var given []biometric.Reference
	for _, r := range d.slots[person] {
		if !r.Template.Empty() {
			r.Template = biometric.NewTemplate(slices.Clone(r.Template.Bytes()))
		}
		given = append(given, r)
	}
	d.loaned = append(d.loaned, given...)
	return given, nil
}

func (d *drawer) Person(scanner string, slot uint32) (string, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for person, references := range d.slots {
		for _, r := range references {
			if r.Slot == slot {
				return person, r.Duress, d.err
			}
		}
	}
	return "", false, d.err
}

func (d *drawer) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// wall is a clock that may panic.
type wall struct {
	broken atomic.Bool
	boot   string
	unset  atomic.Bool
	booted time.Time
}

func (w *wall) Now() (time.Time, access.ClockState) {
	if w.broken.Load() {
		panic("the clock broke")
	}
	if w.unset.Load() {
		return time.Now(), access.ClockUnset
	}
	return time.Now(), access.ClockSynchronised
}

func (w *wall) Moment() access.Moment {
	now, state := w.Now()
	return access.Moment{Wall: now, Clock: state, Boot: w.boot, Uptime: time.Since(w.booted)}
}

// bench is a door on a bench: every part of it is in the test's hands.
type bench struct {
	*journal
	t        *testing.T
	door     *Door
	cfg      Config
	in       wires
	out      wires
	strike   *relay
	contact  *line
	exit     *line
	tamper   *line
	lockdown *line
	log      *paper
	list     *list
	clock    *wall
	printed  *bytes.Buffer
	stop     func() error
}

func format(t testing.TB, name string) *badge.Format {
	f, ok := badge.Builtin().Format(name)
	if !ok {
		t.Fatalf("no format %q", name)
	}
	return f
}

func frame(t testing.TB, c badge.Credential) badge.Frame {
	f, err := format(t, c.Format).Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var (
	adasCard = badge.Credential{Format: "H10301", Facility: 123, Number: 4567}
	bobsCard = badge.Credential{Format: "H10301", Facility: 123, Number: 4568}
	evesCard = badge.Credential{Format: "H10301", Facility: 123, Number: 4569} // breaks the glass
	gonesOne = badge.Credential{Format: "H10301", Facility: 123, Number: 4570} // revoked
)

func people() map[badge.Credential]*access.Entry {
	rights := []access.Right{{Door: "vault", Schedule: access.Always()}}
	return map[badge.Credential]*access.Entry{
		adasCard: {Person: "ada", Kind: access.Staff, State: access.Active, Rights: rights},
		bobsCard: {Person: "bob", Kind: access.Contractor, State: access.Active, Rights: rights, Extended: true},
		evesCard: {Person: "eve", Kind: access.Staff, State: access.Active, Rights: rights, BreakGlass: true},
		gonesOne: {Person: "gone", Kind: access.Staff, State: access.Revoked, Rights: rights},
	}
}

// newBench makes a door; change may change it before it runs.
func newBench(t *testing.T, change ...func(*bench)) *bench {
	j := &journal{}
	b := &bench{
		journal: j, t: t, in: make(wires), out: make(wires), strike: &relay{journal: j, unlocked: true},
		contact: newLine(false), exit: newLine(false), tamper: newLine(false), lockdown: newLine(false),
		log: newPaper(j), list: &list{entries: people()}, clock: &wall{boot: "boot", booted: time.Now()}, printed: &bytes.Buffer{},
	}
	formats := []*badge.Format{format(t, "H10301")}
	b.cfg = Config{
		Name: "vault", Times: DefaultTimes(), Zone: time.UTC,
		Readers: []ReaderConfig{
			{Name: "v-in", Direction: access.In, Formats: formats, Reader: b.in},
			{Name: "v-out", Direction: access.Out, Formats: formats, Reader: b.out},
		},
		Strike: b.strike, Contact: b.contact, RequestToExit: b.exit, Tamper: b.tamper, Lockdown: b.lockdown,
		Indicator: lamp{j}, Log: b.log, Allowlist: b.list, Clock: b.clock,
		Logger: slog.New(slog.NewJSONHandler(b.printed, nil)),
	}
	for _, f := range change {
		f(b)
	}
	d, err := New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.door = d
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	b.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { b.stop() })
	synctest.Wait()
	return b
}

// expect compares what happened since the last time, after all is quiet. The
// strike, the records and the indicator each have an order of their own; of
// what was shown the last counts.
func (b *bench) expect(want ...string) {
	b.t.Helper()
	synctest.Wait()
	got := byPart(b.take())
	if want := byPart(want); !slices.Equal(got, want) {
		b.t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func byPart(lines []string) []string {
	var records, strike, shown []string
	for _, l := range lines {
		switch {
		case strings.HasPrefix(l, "show"):
			shown = []string{l}
		case l[0] >= '0' && l[0] <= '9':
			records = append(records, l)
		default:
			strike = append(strike, l)
		}
	}
	return slices.Concat(records, strike, shown)
}

// swipe presents a card at the reader outside.
func (b *bench) swipe(c badge.Credential) { b.in <- frame(b.t, c) }

// onBench runs a test of a door on a bench, in a bubble of its own time.
func onBench(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// printedLines is the door's own log, decoded.
func (b *bench) printedLines() []map[string]any {
	synctest.Wait()
	var all []map[string]any
	for _, s := range strings.Split(strings.TrimSpace(b.printed.String()), "\n") {
		var m map[string]any
		if err := json.Unmarshal([]byte(s), &m); err != nil {
			b.t.Fatalf("%q: %v", s, err)
		}
		all = append(all, m)
	}
	return all
}

var errDisk = errors.New("no space left on device")
