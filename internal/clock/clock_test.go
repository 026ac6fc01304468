package clock

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A stamp is what a record says of the clock.
var _ = visitorlog.Clock(Stamp{})

var (
	build = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	noon  = time.Date(2027, 3, 9, 12, 0, 0, 0, time.UTC)

	synced = Kernel{MaxError: 20 * time.Millisecond}
	free   = Kernel{Unsynchronised: true, MaxError: 16 * time.Second}
)

func TestStateOfTheClock(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    Evidence
		want access.ClockState
	}{
		{"a time source disciplines it", Evidence{Wall: noon, Kernel: synced}, access.ClockSynchronised},
		{"the source went away two hours ago", Evidence{Wall: noon, Kernel: Kernel{MaxError: 5 * time.Second}}, access.ClockDrifting},
		{"at the bound of error", Evidence{Wall: noon, Kernel: Kernel{MaxError: 4 * time.Second}}, access.ClockSynchronised},
		{"the source went away long ago", Evidence{Wall: noon, Kernel: free, Disciplined: true}, access.ClockDrifting},
		{"a PC without a time source", Evidence{Wall: noon, Kernel: free, Kept: true}, access.ClockDrifting},
		{"a real-time clock kept it", Evidence{Wall: noon, Kernel: free, RTC: noon.Add(time.Minute)}, access.ClockDrifting},
		{"a real-time clock without a battery, time from a file", Evidence{Wall: noon, Kernel: free, RTC: time.Unix(40, 0)}, access.ClockUnset},
		{"a real-time clock that stood still for a day, time from a file", Evidence{Wall: noon, Kernel: free, RTC: noon.Add(-24 * time.Hour)}, access.ClockUnset},
		{"plausible, but nothing vouches for it", Evidence{Wall: noon, Kernel: free}, access.ClockUnset},
		{"1970", Evidence{Wall: time.Unix(40, 0), Kernel: free}, access.ClockUnset},
		{"1970 on a PC", Evidence{Wall: time.Unix(40, 0), Kernel: free, Kept: true}, access.ClockUnset},
		{"before the program was built, though disciplined", Evidence{Wall: build.Add(-time.Hour), Kernel: synced}, access.ClockUnset},
		{"before the CRM's last receipt, though disciplined", Evidence{Wall: noon, Floor: noon.Add(2 * time.Minute), Kernel: synced}, access.ClockUnset},
		{"a few seconds before the CRM's last receipt", Evidence{Wall: noon, Floor: noon.Add(5 * time.Second), Kernel: synced}, access.ClockSynchronised},
		{"before the CRM's last receipt, kept by a PC", Evidence{Wall: noon, Floor: noon.Add(time.Hour), Kernel: free, Kept: true}, access.ClockUnset},
		{"after the CRM's last receipt", Evidence{Wall: noon, Floor: noon.Add(-time.Hour), Kernel: free, Disciplined: true}, access.ClockDrifting},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.e.Build = build
			if got := State(tt.e); got != tt.want {
				t.Errorf("State(%+v) = %s, want %s", tt.e, got, tt.want)
			}
		})
	}
}

func TestTimeThatHasPassedIsAlwaysUnset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := func(name string) time.Time {
			return build.Add(time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, name)) * time.Second)
		}
		e := Evidence{
			Wall: at("wall"), Floor: at("floor"), Build: build, RTC: at("rtc"),
			Disciplined: rapid.Bool().Draw(t, "disciplined"), Kept: rapid.Bool().Draw(t, "kept"),
			Kernel: Kernel{Unsynchronised: rapid.Bool().Draw(t, "unsynchronised")},
		}
		past := e.Wall.Before(e.Floor.Add(-slack)) || e.Wall.Before(e.Build.Add(-slack))
		if got := State(e); past && got != access.ClockUnset {
			t.Fatalf("State = %s for a time that has passed", got)
		}
	})
}

// machine is a machine whose clocks a test sets.
type machine struct {
	mu     sync.Mutex
	step   time.Duration // by which somebody set the wall clock
	start  time.Time
	k      Kernel
	kErr   error
	p      platform
	bootID string
	slow   time.Duration // how long each reading of the uptime takes
}

func newMachine() *machine {
	return &machine{start: time.Now(), k: synced, bootID: "boot-1"}
}

func (m *machine) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.step)
}
func (m *machine) set(by time.Duration) { m.mu.Lock(); m.step += by; m.mu.Unlock() }
func (m *machine) uptime() time.Duration {
	time.Sleep(m.slow)
	return time.Since(m.start)
}
func (m *machine) kernel() (Kernel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.k, m.kErr
}
func (m *machine) boot() (string, error) { return m.bootID, nil }
func (m *machine) platform() platform    { return m.p }

func open(t *testing.T, m *machine, o Options) *Clock {
	t.Helper()
	c, err := newClock(o, m, time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)) // a bubble begins in 2000
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClockRemembersThatItWasDisciplinedInThisBootOnly(t *testing.T) {
	m := newMachine()
	var kept []Memory
	remember := func(m Memory) { kept = append(kept, m) }
	c := open(t, m, Options{Remember: remember})
	for range 3 {
		if _, state := c.Now(); state != access.ClockSynchronised {
			t.Fatalf("state = %s, want synchronised", state)
		}
	}
	if want := []Memory{{Boot: "boot-1"}}; !cmp.Equal(kept, want) {
		t.Fatalf("remembered %+v, want %+v", kept, want)
	}

	m.k = free
	if _, state := open(t, m, Options{Memory: kept[0]}).Now(); state != access.ClockDrifting {
		t.Errorf("restarted in the same boot: %s, want drifting", state)
	}
	m.bootID = "boot-2"
	if _, state := open(t, m, Options{Memory: kept[0]}).Now(); state != access.ClockUnset {
		t.Errorf("after a reboot: %s, want unset", state)
	}
}

func TestAMomentTellsTheClockAndTheBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		c := open(t, m, Options{})
		time.Sleep(time.Hour)
		m.set(-30 * time.Minute)
		got := c.Moment()
		want := access.Moment{Wall: time.Now().Add(-30 * time.Minute), Clock: access.ClockSynchronised, Boot: "boot-1", Uptime: time.Hour}
		if !got.Wall.Equal(want.Wall) || got.Clock != want.Clock || got.Boot != want.Boot || got.Uptime != want.Uptime {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestFloorOnlyRises(t *testing.T) {
	m := newMachine()
	var kept []Memory
	c := open(t, m, Options{Memory: Memory{Floor: noon, Boot: "boot-1"}, Remember: func(m Memory) { kept = append(kept, m) }})
	c.SetFloor(noon.Add(-time.Hour))
	c.SetFloor(noon)
	if len(kept) != 0 || !c.Floor().Equal(noon) {
		t.Fatalf("floor %v after lower ones, remembered %v", c.Floor(), kept)
	}
	c.SetFloor(noon.Add(time.Hour))
	if want := []Memory{{Floor: noon.Add(time.Hour), Boot: "boot-1"}}; !cmp.Equal(kept, want) {
		t.Errorf("remembered %+v, want %+v", kept, want)
	}
}

func TestAFloorThatEachReceiptRaisesIsNotWrittenEachTime(t *testing.T) {
	var kept []Memory
	c := open(t, newMachine(), Options{Memory: Memory{Floor: noon, Boot: "boot-1"}, Remember: func(m Memory) { kept = append(kept, m) }})
	for i := range 25 * 60 {
		c.SetFloor(noon.Add(time.Duration(i+1) * time.Second))
	}
	if want := noon.Add(25 * time.Minute); !c.Floor().Equal(want) {
		t.Errorf("floor %v, want %v", c.Floor(), want)
	}
	want := []Memory{{noon.Add(10 * time.Minute), "boot-1"}, {noon.Add(20 * time.Minute), "boot-1"}}
	if !cmp.Equal(kept, want) {
		t.Errorf("remembered %+v, want %+v", kept, want)
	}
}

func TestTLSTimeIsTheLatestOfClockFloorAndBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		c, err := newClock(Options{}, m, time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.TLSTime(); !got.Equal(time.Now()) {
			t.Errorf("clock ahead: %v, want %v", got, time.Now())
		}
		m.set(-24 * time.Hour)
		if got, want := c.TLSTime(), time.Now().Add(-time.Hour); !got.Equal(want) {
			t.Errorf("clock behind the build: %v, want the build's %v", got, want)
		}
		c.SetFloor(time.Now())
		if got := c.TLSTime(); !got.Equal(time.Now()) {
			t.Errorf("clock behind the floor: %v, want the floor %v", got, time.Now())
		}
	})
}

func TestStepsOfTheClockAreReportedAndSlewingIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		c := open(t, m, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var got []time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Run(ctx, func(s Step) { got = append(got, s.By()) })
		}()
		wait := func() { time.Sleep(10 * time.Second); synctest.Wait() }

		wait()
		m.set(2 * time.Second) // as large as is not reported yet
		wait()
		m.set(time.Millisecond) // and this makes it larger
		wait()
		m.set(-48 * time.Hour)
		wait()
		m.set(48 * time.Hour)
		wait()
		cancel()
		<-done
		want := []time.Duration{2*time.Second + time.Millisecond, -48 * time.Hour, 48 * time.Hour}
		if !cmp.Equal(got, want) {
			t.Errorf("steps %v, want %v", got, want)
		}
	})
}

func TestAStalledMachineIsNotAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.slow = 3 * time.Second
		c := open(t, m, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c.Run(ctx, func(s Step) { t.Errorf("reported a step of %v", s.By()) })
	})
}

func TestAStepHasBothTimes(t *testing.T) {
	var w watcher
	w.look(noon, time.Hour)
	s, ok := w.look(noon.Add(time.Minute+30*time.Second), time.Hour+time.Minute)
	want := Step{From: noon.Add(time.Minute), To: noon.Add(time.Minute + 30*time.Second)}
	if !ok || s != want || s.By() != 30*time.Second {
		t.Errorf("step %+v (%v), want %+v", s, ok, want)
	}
}

func TestAForbiddenAdjtimexCountsAsNotSynchronisedAndIsSaidOnce(t *testing.T) {
	m := newMachine()
	m.kErr = errors.New("operation not permitted")
	var out strings.Builder
	c := open(t, m, Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	for range 3 {
		if _, state := c.Now(); state != access.ClockUnset {
			t.Errorf("state = %s, want unset", state)
		}
	}
	if n := strings.Count(out.String(), "operation not permitted"); n != 1 {
		t.Errorf("said %d times, want once:\n%s", n, out.String())
	}
}

// tree writes files below a root and returns the root.
func tree(t *testing.T, files map[string]string) linux {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return linux{root}
}

func TestOnlyTheRealTimeClockThatSetTheSystemsCounts(t *testing.T) {
	p := tree(t, map[string]string{
		"sys/class/rtc/rtc0/hctosys":     "0\n",
		"sys/class/rtc/rtc0/since_epoch": "1111111111\n",
		"sys/class/rtc/rtc1/hctosys":     "1\n",
		"sys/class/rtc/rtc1/since_epoch": "1700000000\n",
	}).platform()
	if got := p.rtc(p.rtcAt + time.Hour); !got.Equal(time.Unix(1700003600, 0)) {
		t.Errorf("an hour later it reads %v, want %v", got, time.Unix(1700003600, 0))
	}
	if p.synchronised {
		t.Error("synchronised without a word of a time service")
	}
	if p := tree(t, nil).platform(); !p.rtc(time.Hour).IsZero() {
		t.Error("a machine without a real-time clock has one")
	}
}

func TestTimesyncdsWordCounts(t *testing.T) {
	if !tree(t, map[string]string{"run/systemd/timesync/synchronized": ""}).platform().synchronised {
		t.Error("systemd-timesyncd's mark was not seen")
	}
}

func TestABootIDThatIsNoUUIDIsRefused(t *testing.T) {
	for _, text := range []string{"", "none\n"} {
		l := tree(t, map[string]string{"proc/sys/kernel/random/boot_id": text})
		if _, err := newClock(Options{}, l, build); err == nil {
			t.Errorf("boot id %q was taken", text)
		}
	}
}

func TestThisMachinesClockCanBeRead(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	now, s := c.Stamp()
	if s.Boot != strings.TrimSpace(string(file)) {
		t.Errorf("boot id %q, want %q", s.Boot, file)
	}
	if now.Before(before) || now.Location() != time.UTC || s.UptimeMS <= 0 {
		t.Errorf("stamp %v %+v", now, s)
	}
	if c.TLSTime().Before(buildTime()) {
		t.Error("TLS time is before the build")
	}
	if _, err := (linux{}).kernel(); err != nil {
		t.Error(err)
	}
}

func TestBuildTimeIsTheLatestThatIsKnown(t *testing.T) {
	for _, tt := range []struct {
		in   []string
		want string
	}{
		{[]string{earliest, "", ""}, earliest},
		{[]string{earliest, "2026-12-24T10:00:00Z", ""}, "2026-12-24T10:00:00Z"},
		{[]string{earliest, "2026-12-24T10:00:00Z", "2027-01-01T00:00:00Z"}, "2027-01-01T00:00:00Z"},
		{[]string{earliest, "yesterday", "2001-01-01T00:00:00Z"}, earliest},
	} {
		if got := latest(tt.in...).Format(time.RFC3339); got != tt.want {
			t.Errorf("latest(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}
