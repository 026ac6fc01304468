package door_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// The parts here are the real ones: the driver behind its socket, and the log
// in its database.

// durable is the real log; it notes when each append returned.
type durable struct {
	*visitorlog.Log
	mu sync.Mutex
	at map[uint64]time.Time
}

func (d *durable) Append(ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error) {
	e, err := d.Log.Append(ctx, write)
	return d.note(e), err
}

func (d *durable) AppendReserved(ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error) {
	e, err := d.Log.AppendReserved(ctx, write)
	return d.note(e), err
}

func (d *durable) note(e visitorlog.Entry) visitorlog.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at[e.Seq] = time.Now()
	return e
}

func (d *durable) returned(seq uint64) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at[seq]
}

func realLog(t testing.TB, dir string) *durable {
	private, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.ParseSigner(private, keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := signer.Verifier(keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := keys.ParseSeal(keys.GenerateSeal(), "records")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	l, err := visitorlog.Open(dir, visitorlog.Options{
		Controller: "north-1", Signer: signer, Verifier: verifier, Note: signer.NoteSigner, NoteVerifier: verifier.NoteVerifier, Sealer: sealer,
		Clock: func() (time.Time, visitorlog.Clock) {
			return time.Now(), visitorlog.Clock{State: access.ClockSynchronised, Boot: "boot", UptimeMS: time.Since(start).Milliseconds()}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &durable{Log: l, at: make(map[uint64]time.Time)}
}

// known is an allowlist.
type known map[badge.Credential]*access.Entry

func (k known) Lookup(c badge.Credential) (*access.Entry, error) { return k[c], nil }
func (k known) Person(string) (*access.Entry, error)             { return nil, nil }
func (k known) CheckPIN(e *access.Entry, digits []byte) (bool, bool) {
	return len(e.PIN) > 0 && bytes.Equal(e.PIN, digits), false
}
func (k known) Rules(string, access.Direction) []access.Rule { return nil }
func (k known) Site(string) *access.Door                     { return nil }
func (k known) Code([]byte) (*access.Entry, error)           { return nil, nil }
func (k known) PolicyAt(string, time.Time) access.Policy {
	return access.Policy{Version: 1, Freshness: access.Fresh}
}

type clock struct{}

func (clock) Now() (time.Time, access.ClockState) { return time.Now(), access.ClockSynchronised }
func (clock) Moment() access.Moment {
	return access.Moment{Wall: time.Now(), Clock: access.ClockSynchronised, Boot: "boot"}
}

// place is a door at a virtual site.
type place struct {
	t     testing.TB
	site  *sim.Site
	door  *door.Door
	log   *durable
	stop  func() error
	cards [3]badge.Frame // of Ada, of Bob, and of nobody
	times door.Times
}

func newPlace(t testing.TB, change ...func(*door.Config)) *place {
	dir, err := os.MkdirTemp("", "door") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	silent := slog.New(slog.DiscardHandler)
	p := &place{t: t, log: realLog(t, filepath.Join(dir, "data")), times: door.DefaultTimes()}
	p.times.Unlock = 400 * time.Millisecond
	path := filepath.Join(dir, "data", "site.sock")
	bus, err := sim.Open(&sim.Settings{Socket: path}, silent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bus.Close() })
	if p.site, err = sim.Dial(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.site.Close() })
	format, ok := badge.Builtin().Format("H10301")
	if !ok {
		t.Fatal("no format H10301")
	}
	people := known{}
	for i, person := range []string{"ada", "bob", ""} {
		c := badge.Credential{Format: "H10301", Facility: 123, Number: 4567 + uint64(i)}
		if p.cards[i], err = format.Encode(c); err != nil {
			t.Fatal(err)
		}
		if person != "" {
			people[c] = &access.Entry{Person: person, Kind: access.Staff, State: access.Active,
				Rights: []access.Right{{Door: "vault", Schedule: access.Always()}}, PIN: []byte("90210")}
		}
	}
	cfg := door.Config{
		Name: "vault", Times: p.times, Zone: time.UTC, Log: p.log, Clock: clock{}, Logger: silent,
		Allowlist: people,
	}
	device := func(line string) *sim.Device { return &sim.Device{Line: line} }
	reader, err := bus.Reader(device("in"), nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Readers = []door.ReaderConfig{{Name: "in", Direction: access.In, Formats: []*badge.Format{format}, Reader: reader}}
	if cfg.Strike, err = bus.Strike(device("strike")); err != nil {
		t.Fatal(err)
	}
	if cfg.Indicator, err = bus.Indicator(device("lamp")); err != nil {
		t.Fatal(err)
	}
	for line, in := range map[string]*door.Input{"contact": &cfg.Contact, "rex": &cfg.RequestToExit, "tamper": &cfg.Tamper, "lockdown": &cfg.Lockdown} {
		if *in, err = bus.Input(device(line)); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range change {
		f(&cfg)
	}
	if p.door, err = door.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.door.Run(ctx) }()
	p.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { p.stop() })
	p.until("idle") // the lamp's first word: the door runs
	return p
}

// until waits for a state of an output.
func (p *place) until(state string) sim.Output {
	p.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case o := <-p.site.Outputs():
			if o.State == state {
				return o
			}
		case <-deadline:
			p.t.Fatalf("%s: not within a minute", state)
		}
	}
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// records waits for n records.
func (p *place) records(n int) []visitorlog.Entry {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		appended := p.log.Appended()
		all, err := p.log.Entries(p.t.Context(), 0, 1000)
		p.must(err)
		if len(all) >= n {
			return all
		}
		select {
		case <-appended:
		case <-time.After(time.Until(end)):
			p.t.Fatalf("%d records, not %d, after a minute", len(all), n)
		}
	}
}

func TestAtASiteTheStrikeMovesOnlyAfterTheRecordIsDurable(t *testing.T) {
	p := newPlace(t)
	before := len(p.records(1)) // the epoch's first
	p.must(p.site.Swipe("in", p.cards[0]))
	unlocked := p.until(sim.Unlocked)
	decision := p.records(before + 1)[before]
	if decision.Record.Type != visitorlog.DecisionGranted || decision.Record.Subject != "ada" {
		t.Fatalf("record %+v", decision.Record)
	}
	if durable := p.log.returned(decision.Seq); durable.IsZero() || unlocked.At.Before(durable.UTC().Round(0)) {
		t.Errorf("the strike moved at %v, its record was durable at %v", unlocked.At, durable)
	}
	p.must(p.site.Set("contact", true))
	passage := p.records(before + 2)[before+1]
	if d := passage.Record.Data; passage.Record.Type != visitorlog.PassageEntered || d.Cause == nil || *d.Cause != decision.Seq {
		t.Errorf("record %+v", passage.Record)
	}
	p.must(p.site.Set("contact", false))
	p.until(sim.Locked)
}

func TestAtASiteABadgeAndItsPINOpen(t *testing.T) {
	p := newPlace(t, func(cfg *door.Config) {
		cfg.Readers[0].Keypad = badge.Keypad4Bit
		cfg.Rules = map[access.Direction][]access.Rule{access.In: {{Schedule: access.Always(), AnyOf: []access.Factor{access.Badge | access.PIN}}}}
	})
	before := len(p.records(1))
	p.must(p.site.Swipe("in", p.cards[0]))
	p.until("ask_pin")
	p.must(p.site.Type("in", "90211#"))
	p.until("try_again")
	p.must(p.site.Type("in", "90210#"))
	p.until(sim.Unlocked)
	d := p.records(before + 1)[before].Record.Data
	if !slices.Equal(d.Factors, []string{"badge", "pin"}) || len(d.Outcomes) != 3 || d.Outcomes[1].Outcome != visitorlog.OutcomeNoMatch {
		t.Errorf("record %+v", d)
	}
	p.until(sim.Locked)
}

func TestAtASiteEveryRecordIsAcceptedByTheLog(t *testing.T) {
	p := newPlace(t)
	before := len(p.records(1))
	n := before
	expect := func(types ...visitorlog.Type) {
		t.Helper()
		n += len(types)
		var got []visitorlog.Type
		for _, e := range p.records(n)[n-len(types):] {
			got = append(got, e.Record.Type)
		}
		if !slices.Equal(got, types) {
			t.Fatalf("got %v, not %v", got, types)
		}
	}
	p.must(p.site.Set("rex", true))
	expect(visitorlog.RequestToExit)
	p.must(p.site.Set("tamper", true))
	expect(visitorlog.Tamper)
	p.must(p.site.Swipe("in", p.cards[0]))
	expect(visitorlog.DecisionGranted)
	p.until(sim.Locked)
	expect(visitorlog.PassageNotEntered)
	p.must(p.site.Set("lockdown", true))
	expect(visitorlog.Lockdown)
	p.must(p.site.Swipe("in", p.cards[2]))
	expect(visitorlog.DecisionDenied)
	p.must(p.site.Break("in", "cable \xff cut\nby somebody"))
	expect(visitorlog.ReaderFault)
	p.must(p.site.Mend("in"))
	expect(visitorlog.ReaderFault)
	p.must(p.site.Break("strike", "stuck"))
	p.must(p.site.Set("lockdown", false))
	expect(visitorlog.Lockdown)
	p.must(p.site.Swipe("in", p.cards[0]))
	expect(visitorlog.DecisionGranted, visitorlog.DoorFault)
	p.must(p.site.Mend("strike"))
	n += 2 // the fault's end and the passage's, in whatever order
	p.records(n)
	p.must(p.site.Swipe("in", p.cards[1]))
	expect(visitorlog.DecisionGranted)
	for p.door.Status().Counts.Granted < 3 { // the machine has heard of it, too
		time.Sleep(time.Millisecond)
	}
	p.must(p.stop())
	all := p.records(n + 1)
	if last := all[len(all)-1].Record; last.Type != visitorlog.PassageNotEntered || !strings.Contains(last.Data.Detail, "stopped") {
		t.Errorf("at the end: %+v", last)
	}
	var said []visitorlog.Data
	for _, e := range all {
		d := e.Record.Data
		d.Epoch, d.Salt, d.Previous, d.Clock, d.Occurred = "", "", "", visitorlog.Clock{}, nil // in which any digits may stand
		said = append(said, d)
	}
	text, err := json.Marshal(said)
	p.must(err)
	for _, secret := range []string{p.cards[0].Bits(), p.cards[2].Bits(), "4567", "4569"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%s stands in the log", secret)
		}
	}
	p.until(sim.Locked)
}
