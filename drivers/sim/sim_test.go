package sim_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers"
	"github.com/gatehouse-acs/gatehouse/drivers/drivertest"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
)

var silent = slog.New(slog.DiscardHandler)

func frame(t testing.TB, bits string) badge.Frame {
	f, err := badge.ParseFrame(bits)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// socket is a path whose folder does not exist yet. It is short: a socket's
// path must be.
func socket(t testing.TB) string {
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "data", "site.sock")
}

func open(t testing.TB, path string) *sim.Bus {
	b, err := sim.Open(&sim.Settings{Socket: path}, silent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// started gives out a reader and begins to use it, as a controller does once
// it has all its devices.
func started(t *testing.T, b *sim.Bus, line string) {
	r := must[*sim.Reader](t)(b.Reader(&sim.Device{Line: line}, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func dial(t testing.TB, path string, active ...string) *world {
	s, err := sim.Dial(path, active...)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Site: s, states: make(map[string]string)}
	w.watching.Go(func() {
		for o := range s.Outputs() {
			w.mu.Lock()
			w.states[o.Line] = o.State
			w.mu.Unlock()
		}
	})
	t.Cleanup(w.stop)
	return w
}

// world is a site that remembers what it was told.
type world struct {
	*sim.Site
	watching sync.WaitGroup
	mu       sync.Mutex
	states   map[string]string
}

func (w *world) state(line string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.states[line]
}

func (w *world) stop() {
	w.Close()
	w.watching.Wait()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestConformance holds the driver, as a configuration would open it, to what
// doors expect; broken by a cable that is cut, and by a site that is gone.
func TestConformance(t *testing.T) {
	driver, ok := drivers.Lookup("sim")
	if !ok || !driver.Simulated {
		t.Fatal("the driver is not in the table as a simulated one")
	}
	device := func(line string) any {
		d := driver.Device().(*sim.Device)
		d.Line = line
		return d
	}
	rig := func(t *testing.T) (*drivertest.Rig, *world, string) {
		path := socket(t)
		settings := driver.Settings().(*sim.Settings)
		settings.Socket = path
		bus := must[drivers.Bus](t)(driver.Open(settings, silent))
		reader := must[drivers.Reader](t)(bus.Reader(device("in"), nil))
		strike := must[drivers.Strike](t)(bus.Strike(device("strike")))
		input := must[drivers.Input](t)(bus.Input(device("contact")))
		lamp := must[drivers.Indicator](t)(bus.Indicator(device("lamp")))
		w := dial(t, path)
		return &drivertest.Rig{
			Read: reader.Read, Unlock: strike.Unlock, Lock: strike.Lock, Watch: input.Watch, Show: lamp.Show, Close: bus.Close,
			Swipe: func(f badge.Frame) {
				eventually(t, "swiping", func() bool { return w.Swipe("in", f) == nil })
			},
			Set: func(active bool) {
				if err := w.Set("contact", active); err != nil {
					t.Error(err)
				}
			},
			Unlocked: func() bool { return w.state("strike") == sim.Unlocked },
			Shown:    func() string { return w.state("lamp") },
			TearDown: w.stop,
			Frames:   []badge.Frame{frame(t, "1"), frame(t, "10111101100010001110101110"), frame(t, strings.Repeat("01", badge.MaxBits/2))},
		}, w, path
	}
	t.Run("cable cut", func(t *testing.T) {
		drivertest.Test(t, func(t *testing.T) *drivertest.Rig {
			r, w, _ := rig(t)
			each := func(f func(line string) error) {
				for _, line := range []string{"in", "contact"} {
					if err := f(line); err != nil {
						t.Error(err)
					}
				}
			}
			r.Break = func() { each(func(line string) error { return w.Break(line, "cable cut") }) }
			r.Mend = func() { each(w.Mend) }
			return r
		})
	})
	t.Run("site gone", func(t *testing.T) {
		drivertest.Test(t, func(t *testing.T) *drivertest.Rig {
			r, w, path := rig(t)
			r.Break = w.stop
			r.Mend = func() {
				next, err := sim.Dial(path)
				if err != nil {
					t.Fatal(err)
				}
				w.Site = next
				w.watching.Go(func() {
					for range next.Outputs() {
					}
				})
			}
			return r
		})
	})
}

func TestNobodyConnectedIsAFaultOfReadersAndInputsOnly(t *testing.T) {
	path := socket(t)
	b := open(t, path)
	r := must[*sim.Reader](t)(b.Reader(&sim.Device{Line: "in"}, nil))
	in := must[*sim.Input](t)(b.Input(&sim.Device{Line: "contact"}))
	strike := must[*sim.Strike](t)(b.Strike(&sim.Device{Line: "strike"}))
	lamp := must[*sim.Indicator](t)(b.Indicator(&sim.Device{Line: "lamp"}))
	if _, err := r.Read(t.Context()); !errors.Is(err, sim.ErrNobody) {
		t.Errorf("Read: %v", err)
	}
	if err := in.Watch(t.Context(), func(bool) { t.Error("an input told something") }); !errors.Is(err, sim.ErrNobody) {
		t.Errorf("Watch: %v", err)
	}
	if err := errors.Join(strike.Unlock(), lamp.Show("granted")); err != nil {
		t.Error(err)
	}
	w := dial(t, path) // and whoever comes is told
	eventually(t, "the state of the outputs", func() bool { return w.state("strike") == sim.Unlocked && w.state("lamp") == "granted" })
}

func TestASiteTellsItsStateAgainToTheNextController(t *testing.T) {
	path := socket(t)
	first := open(t, path)
	strike := must[*sim.Strike](t)(first.Strike(&sim.Device{Line: "strike"}))
	w := dial(t, path, "a")
	if err := strike.Unlock(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "unlocking", func() bool { return w.state("strike") == sim.Unlocked })
	first.Close()
	eventually(t, "a strike that nobody drives falls back", func() bool { return w.state("strike") == sim.Locked })
	if err := w.Swipe("in", frame(t, "1")); err == nil {
		t.Error("a card was read by nobody")
	}
	if err := errors.Join(w.Set("b", true), w.Break("c", "cable cut")); err != nil {
		t.Fatal(err)
	}

	second := open(t, path)
	for line, want := range map[string]bool{"a": true, "b": true, "d": false} {
		in := must[*sim.Input](t)(second.Input(&sim.Device{Line: line}))
		eventually(t, "the state of "+line, func() bool {
			told := !want
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			in.Watch(ctx, func(active bool) { told = active })
			return told == want
		})
	}
	in := must[*sim.Input](t)(second.Input(&sim.Device{Line: "c"}))
	if err := in.Watch(t.Context(), func(bool) { t.Error("a broken input told something") }); err == nil || !strings.Contains(err.Error(), "cable cut") {
		t.Errorf("Watch: %v", err)
	}
	if err := w.Err(); err != nil {
		t.Error(err)
	}
}

func TestNoChangeOfAnInputIsLost(t *testing.T) {
	path := socket(t)
	b := open(t, path)
	in := must[*sim.Input](t)(b.Input(&sim.Device{Line: "contact"}))
	w := dial(t, path)
	const n = 200
	told := make(chan bool, n+1)
	go in.Watch(t.Context(), func(active bool) {
		time.Sleep(10 * time.Microsecond) // slower than the site
		told <- active
	})
	if <-told {
		t.Fatal("active at first")
	}
	for i := range n {
		if err := w.Set("contact", i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if got := <-told; got != (i%2 == 0) {
			t.Fatalf("change %d was told as %v", i, got)
		}
	}
}

func TestFramesThatNobodyReadsAreAFaultNotSilence(t *testing.T) {
	path := socket(t)
	b := open(t, path)
	r := must[*sim.Reader](t)(b.Reader(&sim.Device{Line: "in"}, nil))
	in := must[*sim.Input](t)(b.Input(&sim.Device{Line: "done"}))
	w := dial(t, path)
	for range 68 {
		if err := w.Swipe("in", frame(t, "101")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Set("done", true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	in.Watch(ctx, func(active bool) { // all frames have arrived
		if active {
			cancel()
		}
	})
	got := 0
	for {
		_, err := r.Read(t.Context())
		if err != nil {
			if !strings.Contains(err.Error(), "4 frames were lost") {
				t.Errorf("Read: %v", err)
			}
			break
		}
		got++
	}
	if got != 64 {
		t.Errorf("%d frames were read", got)
	}
}

// A keypad sends frames of four bits, which are no cards.
func TestKeysComeOneByOneAsAKeypadSendsThem(t *testing.T) {
	path := socket(t)
	b := open(t, path)
	r := must[*sim.Reader](t)(b.Reader(&sim.Device{Line: "in"}, nil))
	w := dial(t, path)
	if err := w.Type("in", "4711*90#"); err != nil {
		t.Fatal(err)
	}
	pad := must[*badge.Keypad](t)(badge.NewKeypad(badge.Keypad4Bit, 0, time.Minute))
	for {
		read := must[badge.Read](t)(r.Read(t.Context()))
		if !read.Keypad || read.Frame.Len() != 4 || read.At.IsZero() {
			t.Fatalf("a key was read as %+v", read)
		}
		pin := must[*badge.PIN](t)(pad.Press(read))
		if pin == nil {
			continue
		}
		if got := string(pin.Digits()); got != "90" {
			t.Errorf("the PIN is %d digits, and another", len(got))
		}
		break
	}
	for _, keys := range []string{"", "12A", "１", strings.Repeat("1", 33)} {
		if err := w.Type("in", keys); err == nil || keys != "" && strings.Contains(err.Error(), keys) {
			t.Errorf("keys that no keypad has: %v", err)
		}
	}
}

func TestAWireIsGivenOutOnce(t *testing.T) {
	b := open(t, socket(t))
	must[*sim.Strike](t)(b.Strike(&sim.Device{Line: "x"}))
	if _, err := b.Reader(&sim.Device{Line: "x"}, nil); err == nil {
		t.Error("a strike's wire was given out as a reader too")
	}
	if _, err := b.Input(&sim.Device{Line: "no such name"}); err == nil {
		t.Error("a wire without a name was given out")
	}
}

func TestOnlyTheOwnerCanReachTheSocket(t *testing.T) {
	path := socket(t)
	open(t, path)
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, not %04o", p, got, want)
		}
	}
	shared := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := sim.Open(&sim.Settings{Socket: filepath.Join(shared, "s")}, silent); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a folder that others can look into: %v", err)
	}
}

func TestAStaleSocketIsReplacedAndALiveOneIsNot(t *testing.T) {
	path := socket(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.Open(&sim.Settings{Socket: path}, silent); err == nil || !strings.Contains(err.Error(), "answers") {
		t.Errorf("a socket on which somebody answers: %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	b := open(t, path)
	b.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sim.Open(&sim.Settings{Socket: path}, silent); err == nil {
		t.Error("a file was replaced")
	}
}

func TestASiteThatBreaksTheRulesIsToldWhyAndCutOff(t *testing.T) {
	hello := `{"site":1}` + "\n"
	for name, c := range map[string]struct{ send, want string }{
		"not JSON":                {"hello\n", "first line"},
		"another version":         {`{"site":2}` + "\n", "version 2"},
		"no first line":           {`{"line":"in","frame":"1"}` + "\n", "first line"},
		"unknown field":           {hello + `{"line":"in","frames":"1"}` + "\n", "frames"},
		"not bits":                {hello + `{"line":"in","frame":"12"}` + "\n", "0 and 1"},
		"keys of no keypad":       {hello + `{"line":"in","keys":"47A1"}` + "\n", "0 to 9"},
		"two things at once":      {hello + `{"line":"in","frame":"1","active":true}` + "\n", "exactly one"},
		"no reader there":         {hello + `{"line":"b-in","frame":"1"}` + "\n", "no reader"},
		"two objects on one line": {hello + `{"line":"in","frame":"1"}{}` + "\n", "follows"},
		"first line twice":        {hello + hello, "twice"},
		"too long":                {hello + strings.Repeat("x", 5000) + "\n", "4096"},
		"a wire without a name":   {hello + `{"line":"","active":true}` + "\n", "name"},
		"active is no boolean":    {hello + `{"line":"in","active":1}` + "\n", "neither true nor false"},
	} {
		t.Run(name, func(t *testing.T) {
			path := socket(t)
			b := open(t, path)
			started(t, b, "in")
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, c.send); err != nil {
				t.Fatal(err)
			}
			var last string
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				last = lines.Text()
			}
			if !strings.HasPrefix(last, `{"error":`) || !strings.Contains(last, c.want) {
				t.Errorf("told %q, which does not say %q", last, c.want)
			}
		})
	}
}

func TestASecondSiteIsRefused(t *testing.T) {
	path := socket(t)
	open(t, path)
	dial(t, path)
	if _, err := sim.Dial(path); err == nil || !strings.Contains(err.Error(), "another site") {
		t.Errorf("Dial: %v", err)
	}
}

// A controller that was killed starts again under a site that goes on: it
// listens before all its devices are given out.
func TestASiteIsNotRefusedForAReaderThatIsNotGivenOutYet(t *testing.T) {
	path := socket(t)
	b := open(t, path)
	w := dial(t, path)
	if err := w.Swipe("in", frame(t, "1")); err != nil {
		t.Fatal(err)
	}
	r := must[*sim.Reader](t)(b.Reader(&sim.Device{Line: "in"}, nil))
	read := make(chan error, 1)
	go func() { _, err := r.Read(t.Context()); read <- err }()
	for { // until it was read; the first may have come too early
		if err := w.Swipe("in", frame(t, "1")); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-read:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// A controller that is killed may leave half a line. The site waits for the
// next one all the same.
func TestALineCutShortIsNoRefusal(t *testing.T) {
	path := socket(t)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	killed := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = bufio.NewReader(conn).ReadString('\n')
		}
		if err == nil {
			_, err = io.WriteString(conn, "{\"welcome\":1}\n{\"line\":\"a.str")
			conn.Close()
		}
		killed <- errors.Join(err, l.Close())
	}()
	w := dial(t, path)
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	b := open(t, path)
	r := must[*sim.Reader](t)(b.Reader(&sim.Device{Line: "in"}, nil))
	for w.Swipe("in", frame(t, "1")) != nil {
		if err := w.Err(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, err := r.Read(ctx); err != nil; _, err = r.Read(ctx) { // until the bus has heard of the site, too
		if ctx.Err() != nil || w.Err() != nil {
			t.Fatal(err, w.Err())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestARefusedSiteSaysWhy(t *testing.T) {
	path := socket(t)
	started(t, open(t, path), "in")
	w := dial(t, path)
	if err := w.Swipe("nowhere", frame(t, "1")); err != nil {
		t.Fatal(err)
	}
	w.watching.Wait() // the outputs end
	if err := w.Err(); err == nil || !strings.Contains(err.Error(), "no reader") {
		t.Errorf("Err: %v", err)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for _, path := range []string{"", strings.Repeat("x", 200)} {
		if err := (&sim.Settings{Socket: path}).Validate(); err == nil {
			t.Errorf("a socket at %q is accepted", path)
		}
	}
	s := sim.DefaultSettings()
	if s.Resolve("/var/lib/gatehouse"); s.Socket != "/var/lib/gatehouse/site.sock" {
		t.Errorf("resolved to %q", s.Socket)
	}
	if s.Resolve("/elsewhere"); s.Socket != "/var/lib/gatehouse/site.sock" {
		t.Errorf("an absolute path became %q", s.Socket)
	}
}
