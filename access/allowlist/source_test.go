package allowlist

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
)

func (s *site) source(floor uint64, applying func(context.Context, Manifest) error) *Source {
	s.t.Helper()
	return s.sourceBy(&steppedClock{state: access.ClockSynchronised}, floor, applying)
}

func (s *site) sourceBy(c Clock, floor uint64, applying func(context.Context, Manifest) error) *Source {
	s.t.Helper()
	src := OpenSource(context.Background(), SourceOptions{Path: s.path, Keys: s.keys, Floor: floor, Applying: applying, Clock: c, Logger: slog.New(slog.DiscardHandler)})
	s.t.Cleanup(func() {
		if err := src.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return src
}

// steppedClock is the machine's clock after time that did not pass here, and
// after somebody set it.
type steppedClock struct {
	mu    sync.Mutex
	state access.ClockState
	spent time.Duration
	set   time.Duration
}

var began = time.Now()

func (c *steppedClock) Now() (time.Time, access.ClockState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.spent + c.set), c.state
}

func (c *steppedClock) Uptime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(began) + c.spent
}

// turn lets time pass, sets the clock, and says how it is to be trusted.
func (c *steppedClock) turn(passes, set time.Duration, state access.ClockState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spent, c.set, c.state = c.spent+passes, c.set+set, state
}

// decide is what a door does with the source.
func decide(src *Source, number uint64) access.Reason {
	now := time.Now()
	q := access.Query{Door: "lab", At: now, Zone: time.UTC, Clock: access.ClockSynchronised, Policy: src.Policy(now), Given: access.Badge}
	var err error
	if q.Entry, err = src.Lookup(h10301(9, number)); err != nil {
		q.Policy.Freshness = access.Absent
	}
	return access.Decide(&q).Reason
}

const head = "person,kind,format,facility,number,state,doors,schedule\n"

// people is a list on which only the given card is active.
func people(row ...string) string { return head + strings.Join(row, "\n") + "\n" }

const (
	active1  = "p-1,staff,H10301,9,1,active,lab,always"
	revoked1 = "p-1,staff,H10301,9,1,revoked,lab,always"
)

func (s *site) restore(raw []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path+".copy", raw, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.path+".copy", s.path); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) raw() []byte {
	s.t.Helper()
	b, err := os.ReadFile(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func wantReason(t *testing.T, src *Source, want access.Reason) {
	t.Helper()
	if got := decide(src, 1); got != want {
		t.Errorf("decided %q, want %q (fault %q)", got, want, src.Status(time.Now()).Fault)
	}
}

// Rule 4: deny by default.
func TestWithoutATrustedAllowlistEverybodyIsDenied(t *testing.T) {
	_, other := newPolicyKey(t)
	for name, spoil := range map[string]func(s *site){
		"no file":            func(s *site) { os.Remove(s.path) },
		"empty file":         func(s *site) { s.restore(nil) },
		"not a database":     func(s *site) { s.restore([]byte("rubbish")) },
		"cut short":          func(s *site) { s.restore(s.raw()[:5000]) },
		"another key":        func(s *site) { s.keys.Verifier = other },
		"readable by others": func(s *site) { os.Chmod(s.path, 0o644) },
		"changed manifest":   func(s *site) { s.change(`UPDATE meta SET value = zeroblob(9) WHERE name = 'manifest'`) },
		"a symbolic link": func(s *site) {
			os.Rename(s.path, s.path+".real")
			os.Symlink(s.path+".real", s.path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.apply("x.csv", people(active1))
			spoil(s)
			src := s.source(0, nil)
			wantReason(t, src, access.ReasonAllowlistAbsent)
			if st := src.Status(time.Now()); st.Fault == "" || st.Freshness != access.Absent || st.Version != 0 {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func TestContentIsCheckedSoonAfterTheStart(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1, "p-2,staff,H10301,9,2,active,lab,always"))
	key := s.keys.Index.Index(h10301(9, 2).Canonical())
	s.change(`DELETE FROM credential WHERE key = ?`, key[:])
	src := s.source(0, nil)
	wantReason(t, src, access.ReasonGranted) // the door is ready before the check
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- src.Run(ctx) }()
	for deadline := time.Now().Add(time.Minute); decide(src, 1) != access.ReasonAllowlistAbsent; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the missing row was not noticed")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonAllowlistAbsent) // it does not come back by itself
	s.apply("x.toml", `[[people]]
person = "p-1"
kind = "staff"
rights = [{ doors = ["lab"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 9, number = 1 }]`)
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonGranted)
}

func TestAGoodAllowlistIsCheckedAfterTheStart(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	src := s.source(0, nil)
	if src.Status(time.Now()).Checked {
		t.Error("checked before the door was ready")
	}
	src.checkServed(t.Context())
	if st := src.Status(time.Now()); !st.Checked || st.Fault != "" || st.Version != 1 || st.Credentials != 1 || st.Freshness != access.Fresh {
		t.Errorf("status %+v", st)
	}
}

// Rule 10: the allowlist never goes backwards.
func TestAllowlistNeverGoesBackwards(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	older := s.raw()
	s.apply("x.csv", people(revoked1))

	t.Run("at the start", func(t *testing.T) {
		s.t = t
		newer := s.raw()
		defer s.restore(newer)
		s.restore(older)
		src := s.source(2, nil)
		wantReason(t, src, access.ReasonAllowlistAbsent)
		if st := src.Status(time.Now()); !strings.Contains(st.Fault, "--above 2") {
			t.Errorf("fault %q", st.Fault)
		}
	})
	t.Run("while it runs", func(t *testing.T) {
		s.t = t
		src := s.source(0, nil)
		wantReason(t, src, access.ReasonRevoked)
		s.restore(older)
		src.look(t.Context(), true)
		wantReason(t, src, access.ReasonRevoked) // the newer one goes on
		if st := src.Status(time.Now()); st.Version != 2 || !strings.Contains(st.Fault, "older than version 2") {
			t.Errorf("status %+v", st)
		}
		// An import that does not know of version 2 makes another one of that name.
		s.apply("x.csv", people(active1))
		src.look(t.Context(), true)
		wantReason(t, src, access.ReasonRevoked)
		if st := src.Status(time.Now()); !strings.Contains(st.Fault, "another than") {
			t.Errorf("status %+v", st)
		}
		if _, err := s.try("x.csv", people(active1), 2); err != nil {
			t.Fatal(err)
		}
		src.look(t.Context(), true)
		wantReason(t, src, access.ReasonGranted)
		if st := src.Status(time.Now()); st.Version != 3 || st.Fault != "" || !st.Checked {
			t.Errorf("status %+v", st)
		}
	})
}

func TestTheFloorIsKeptBeforeANewAllowlistIsServed(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	var src *Source
	var told []uint64
	var fail error
	applying := func(_ context.Context, m Manifest) error {
		if fail == nil {
			told = append(told, m.Version)
			if src != nil && src.version() >= m.Version {
				t.Errorf("version %d is served before it was said", m.Version)
			}
		}
		return fail
	}
	src = s.source(0, applying)
	s.apply("x.csv", people(revoked1))
	fail = errors.New("disk full")
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonGranted) // not served yet
	if st := src.Status(time.Now()); !strings.Contains(st.Fault, "disk full") {
		t.Errorf("status %+v", st)
	}
	fail = nil
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonRevoked)
	src.look(t.Context(), true)
	if len(told) != 2 || told[0] != 1 || told[1] != 2 {
		t.Errorf("told of versions %v", told)
	}
	// A start with the floor already there says nothing.
	s.source(2, func(context.Context, Manifest) error { t.Error("told of a version that was in use"); return nil })
}

func TestBadReplacementLeavesTheGoodOneInService(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	src := s.source(0, nil)
	s.restore([]byte("rubbish"))
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonGranted)
	if st := src.Status(time.Now()); !strings.Contains(st.Fault, "cannot be trusted") {
		t.Errorf("status %+v", st)
	}
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonGranted)
	if st := src.Status(time.Now()); st.Fault == "" {
		t.Errorf("status %+v", st)
	}
}

func TestAllowlistChangedInPlaceIsDropped(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	src := s.source(0, nil)
	raw := s.raw()
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 200), int64(len(raw)-200)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonAllowlistAbsent)
	s.restore(raw)
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonGranted)
}

func TestMendedPermissionsAreNoticed(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	if err := os.Chmod(s.path, 0o644); err != nil {
		t.Fatal(err)
	}
	src := s.source(0, nil)
	wantReason(t, src, access.ReasonAllowlistAbsent)
	if err := os.Chmod(s.path, 0o600); err != nil {
		t.Fatal(err)
	}
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonGranted)
}

func TestImportsSwapWhileLookupsGoOn(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	src := s.source(0, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := src.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	var lookups atomic.Int64
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if r := decide(src, 1); r != access.ReasonGranted && r != access.ReasonRevoked {
					t.Errorf("decided %q during a swap, status %+v", r, src.Status(time.Now()))
					return
				}
				lookups.Add(1)
			}
		})
	}
	rows := []string{revoked1, active1}
	for i := range 10 {
		m := s.apply("x.csv", people(rows[i%2]))
		src.Reload()
		for deadline := time.Now().Add(time.Minute); src.version() != m.Version; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("version %d is not served", m.Version)
			}
		}
	}
	cancel()
	wg.Wait()
	if lookups.Load() == 0 {
		t.Error("no lookup went on")
	}
}

func TestLadderOfAge(t *testing.T) {
	const hour = time.Hour
	for _, tt := range []struct {
		name   string
		ladder Ladder
		now    time.Duration // since it was made
		want   access.Freshness
		age    time.Duration
	}{
		{"new", Ladder{24 * hour, 72 * hour, nil}, 0, access.Fresh, 0},
		{"just before stale", Ladder{24 * hour, 72 * hour, nil}, 24*hour - 1, access.Fresh, 24*hour - 1},
		{"stale", Ladder{24 * hour, 72 * hour, nil}, 24 * hour, access.Stale, 24 * hour},
		{"expired", Ladder{24 * hour, 72 * hour, nil}, 72 * hour, access.Expired, 72 * hour},
		{"never expires", Ladder{24 * hour, 0, nil}, 10000 * hour, access.Stale, 10000 * hour},
		{"never stale, expires", Ladder{0, 72 * hour, nil}, 71 * hour, access.Fresh, 71 * hour},
		{"neither", Ladder{}, 10000 * hour, access.Fresh, 10000 * hour},
		{"clock a little behind", Ladder{24 * hour, 72 * hour, nil}, -time.Minute, access.Fresh, 0},
		{"clock far behind, can expire", Ladder{24 * hour, 72 * hour, nil}, -hour, access.Expired, 0},
		{"clock far behind, cannot expire", Ladder{24 * hour, 0, nil}, -hour, access.Stale, 0},
	} {
		got := tt.ladder.Policy(7, tt.now)
		if got.Freshness != tt.want || got.Age != tt.age || got.Version != 7 {
			t.Errorf("%s: got %+v", tt.name, got)
		}
	}
}

func TestAgeCountsFromWhenItWasLastKnownToBeCurrent(t *testing.T) {
	s := newSite(t)
	m := s.apply("x.csv", people(active1))
	c := &steppedClock{state: access.ClockSynchronised}
	src := s.sourceBy(c, 0, nil)
	src.o.Ladder = Ladder{StaleAfter: 24 * time.Hour}
	c.turn(30*time.Hour, 0, access.ClockSynchronised)
	age := func() time.Duration { return src.Policy(m.Created).Age.Round(time.Minute) }
	if p := src.Policy(m.Created); p.Freshness != access.Stale || age() != 30*time.Hour || p.Version != 1 {
		t.Errorf("got %+v", p)
	}
	src.Confirm(9, m.Created.Add(29*time.Hour), time.Time{}) // of another version
	if p := src.Policy(m.Created); p.Freshness != access.Stale {
		t.Errorf("another version's confirmation counted: %+v", p)
	}
	src.Confirm(1, m.Created.Add(29*time.Hour), time.Time{})
	src.Confirm(1, m.Created.Add(28*time.Hour), time.Time{}) // late news
	if p := src.Policy(m.Created); p.Freshness != access.Fresh || age() != time.Hour {
		t.Errorf("got %+v", p)
	}
}

func TestAgeFollowsTheTimeThatPassesAndNoStepOfTheClock(t *testing.T) {
	const (
		day    = 24 * time.Hour
		unset  = access.ClockUnset
		drifts = access.ClockDrifting
		synced = access.ClockSynchronised
	)
	type turn struct {
		passes, set time.Duration
		state       access.ClockState
		want        access.Freshness
		age         time.Duration
	}
	for name, tt := range map[string]struct {
		ahead time.Duration // of the clock when the list is opened
		start access.ClockState
		turns []turn
	}{
		"a day forward": {0, synced, []turn{
			{0, day, drifts, access.Fresh, 0},
			{time.Hour, 0, drifts, access.Fresh, time.Hour},
			{23 * time.Hour, 0, drifts, access.Expired, day},
		}},
		"a day forward, of a clock that nothing vouches for": {0, unset, []turn{{0, day, unset, access.Fresh, 0}}},
		"a day forward, by a time source that was there before": {0, synced, []turn{
			{0, 0, drifts, access.Fresh, 0},
			{0, day, synced, access.Fresh, 0},
		}},
		"back, when it has expired": {0, synced, []turn{
			{day, 0, synced, access.Expired, day},
			{0, -day, synced, access.Expired, day},
		}},
		"a time source comes, and the clock was behind": {2 * time.Hour, unset, []turn{{0, 30 * time.Hour, synced, access.Expired, 32 * time.Hour}}},
		"a time source comes, and the clock was ahead":  {30 * time.Hour, drifts, []turn{{0, -28 * time.Hour, synced, access.Fresh, 2 * time.Hour}}},
		"the list is from the future until the clock is set": {-3 * time.Hour, unset, []turn{
			{0, 0, unset, access.Expired, 0},
			{0, 4 * time.Hour, unset, access.Fresh, time.Hour},
			{0, day, unset, access.Fresh, time.Hour},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.apply("x.csv", people(active1))
			c := &steppedClock{state: tt.start, set: tt.ahead}
			src := s.sourceBy(c, 0, nil)
			src.o.Ladder = Ladder{ExpiredAfter: day}
			for i, turn := range tt.turns {
				c.turn(turn.passes, turn.set, turn.state)
				src.askClock() // as Run does each second
				now, _ := c.Now()
				if p := src.Policy(now); p.Freshness != turn.want || p.Age.Round(time.Minute) != turn.age {
					t.Errorf("turn %d: %s, %v old; want %s, %v", i, p.Freshness, p.Age, turn.want, turn.age)
				}
			}
		})
	}
}

func TestRunAsksAClockThatHasBeenSet(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	c := &steppedClock{state: access.ClockUnset}
	src := s.sourceBy(c, 0, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- src.Run(ctx) }()
	c.turn(0, 30*time.Hour, access.ClockSynchronised)
	src.Reload()
	for deadline := time.Now().Add(time.Minute); src.Policy(time.Now()).Age < 30*time.Hour; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the time source is not noticed")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
