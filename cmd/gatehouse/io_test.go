package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers"
	"github.com/gatehouse-acs/gatehouse/drivers/gpio"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/google/go-cmp/cmp"
)

const wiredDoor = `controller = "north-1"
data = "door"
timezone = "Europe/Amsterdam"
[lockdown]
device = { driver = "sim", line = "lockdown" }
[[door]]
name = "a"
strike = { driver = "sim", line = "a.strike" }
contact = { driver = "sim", line = "a.contact" }
indicator = { driver = "sim", line = "a.lights" }
[[door.reader]]
name = "a-in"
direction = "in"
formats = ["H10301"]
device = { driver = "sim", line = "a-in" }
`

// wired is a controller of a virtual site, whose commands a test gives.
type wired struct {
	t    *testing.T
	data string
	file string
}

func newWired(t *testing.T) *wired {
	dir, err := os.MkdirTemp("", "wired") // short, for the socket's path
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &wired{t, filepath.Join(dir, "door"), filepath.Join(dir, "gatehouse.toml")}
	must(t, os.WriteFile(w.file, []byte(wiredDoor), 0o600))
	var said bytes.Buffer
	if status := cli.Run(t.Context(), newRoot(), []string{"init", "--data", w.data, "--controller", "north-1"}, &said, &said); status != 0 {
		t.Fatal(said.String())
	}
	return w
}

// site connects the virtual site, once the command listens.
func (w *wired) site(active ...string) *sim.Site {
	w.t.Helper()
	var site *sim.Site
	eventually(w.t, "the command listens", func() bool {
		var err error
		site, err = sim.Dial(filepath.Join(w.data, "site.sock"), active...)
		return err == nil
	})
	w.t.Cleanup(func() { site.Close() })
	return site
}

// run runs a command until the returned function asks it to end; that gives
// its exit status.
func (w *wired) run(in io.Reader, out, errs io.Writer, args ...string) (end func() int) {
	ctx, stop := context.WithCancel(w.t.Context())
	ended := make(chan int, 1)
	go func() {
		root := newRoot()
		root.SetIn(in)
		ended <- cli.Run(ctx, root, append(args, "--demo", "--config", w.file), out, errs)
	}()
	end = sync.OnceValue(func() int {
		stop()
		return <-ended
	})
	w.t.Cleanup(func() { end() })
	return end
}

// records are those of the log.
func (w *wired) records() []visitorlog.Stored {
	w.t.Helper()
	k, err := keys.LoadController(keys.File(pki.KeysDir(w.data)))
	must(w.t, err)
	r, err := visitorlog.OpenReader(w.t.Context(), filepath.Join(w.data, "records.db"), k.Records)
	must(w.t, err)
	defer r.Close()
	all, err := r.Read(w.t.Context(), 0, 1000)
	must(w.t, err)
	return all
}

func (w *wired) count(want visitorlog.Type) int {
	n := 0
	for _, e := range w.records() {
		if e.Record.Type == want {
			n++
		}
	}
	return n
}

// screen is a terminal in front of which a test sits.
type screen struct {
	t      *testing.T
	master *os.File
	tty    *os.File

	mu   sync.Mutex
	text string // since the last until
	all  string
}

func newScreen(t *testing.T) *screen {
	master, tty, err := pty.Open()
	must(t, err)
	must(t, pty.Setsize(tty, &pty.Winsize{Rows: 40, Cols: 200}))
	s := &screen{t: t, master: master, tty: tty}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			n, err := master.Read(b)
			s.mu.Lock()
			s.text += string(b[:n])
			s.all += string(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		s.types("") // for whoever still waits for a line
		tty.Close()
		<-done
		master.Close()
	})
	return s
}

// until waits for a text on the screen, and forgets what came before it.
func (s *screen) until(want string) {
	s.t.Helper()
	deadline := time.Now().Add(mostWait)
	for {
		s.mu.Lock()
		i := strings.Index(s.text, want)
		if i >= 0 {
			s.text = s.text[i+len(want):]
		}
		text := s.text
		s.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("no %q on the screen:\n%s", want, text)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *screen) types(line string) {
	_, err := io.WriteString(s.master, line+"\n")
	must(s.t, err)
}

func (s *screen) everything() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

func adasFrame(t *testing.T) badge.Frame {
	f, _ := badge.Builtin().Format("H10301")
	frame, err := f.Encode(badge.Credential{Format: "H10301", Facility: 123, Number: 4567})
	must(t, err)
	return frame
}

func TestIOWatchDrawsInPlaceAndMasksNumbers(t *testing.T) {
	t.Parallel()
	w := newWired(t)
	s := newScreen(t)
	end := w.run(s.tty, s.tty, s.tty, "io", "watch")
	s.until(otherScreen)
	s.until("no site is connected")
	site := w.site()
	must(t, site.Set("a.contact", true))
	s.until("active")
	must(t, site.Swipe("a-in", adasFrame(t)))
	s.until("26 bits; H10301 ••67")
	if status := end(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	s.until(ownScreen)
	s.until("a-in") // what was last seen stays on the screen
	text := s.everything()
	if strings.Contains(text, "4567") || strings.Contains(text, adasFrame(t).Bits()) {
		t.Error("a card number is on the screen")
	}
	for _, want := range []string{"strike", "left as it is", "sim/a.contact", "lockdown"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on the screen", want)
		}
	}
	if _, err := os.Stat(filepath.Join(w.data, "records.db")); err == nil {
		t.Error("watching began a log")
	}
}

func TestIOWatchPrintsALineForEachEventElsewhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		flags   []string
		want    []string
		numbers bool
	}{
		{"text", nil, []string{"a, contact: active", "a, reader a-in: card 26 bits; H10301 ••67", "a, reader a-in: card 25 bits; which do not fit H10301"}, false},
		{"JSON", []string{"--json"}, []string{`"part":"contact","event":"active"`, `"event":"card","detail":"26 bits; H10301 ••67"}`, `"detail":"25 bits; which`}, false},
		{"with numbers", []string{"--json", "--show-numbers"}, []string{`"part":"contact","event":"active"`, `"Facility":123,"Number":4567`, `"detail":"25 bits; which`}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWired(t)
			var out, errs syncBuffer
			end := w.run(strings.NewReader(""), &out, &errs, append([]string{"io", "watch"}, tt.flags...)...)
			site := w.site()
			must(t, site.Set("a.contact", true))
			// A card that comes while the command still starts is read by nobody.
			eventually(t, tt.want[0], func() bool { return strings.Contains(out.String(), tt.want[0]) })
			must(t, site.Swipe("a-in", adasFrame(t)))
			short, err := badge.ParseFrame(adasFrame(t).Bits()[:25])
			must(t, err)
			must(t, site.Swipe("a-in", short))
			for _, want := range tt.want[1:] {
				eventually(t, want, func() bool { return strings.Contains(out.String(), want) })
			}
			if status := end(); status != 0 {
				t.Errorf("exit status %d: %s", status, errs.String())
			}
			if strings.Contains(out.String(), "4567") != tt.numbers {
				t.Errorf("numbers shown, wanted %v:\n%s", tt.numbers, out.String())
			}
			if tt.numbers != strings.Contains(errs.String(), "in clear") {
				t.Errorf("stderr: %s", errs.String())
			}
			if tt.flags != nil {
				for line := range strings.Lines(out.String()) {
					var e ioEvent
					if err := json.Unmarshal([]byte(line), &e); err != nil || e.Door == "" || e.Time.IsZero() {
						t.Errorf("%q: %v", line, err)
					}
				}
			}
		})
	}
}

func TestIOCommandsRefuseWhileTheDaemonHoldsTheLines(t *testing.T) {
	w := newWired(t)
	held, err := visitorlog.Hold(w.data)
	must(t, err)
	defer held.Close()
	for _, args := range [][]string{{"io", "watch"}, {"io", "safe"}, {"io", "test", "--by", "J. Smith"}} {
		var errs bytes.Buffer
		status := cli.Run(t.Context(), newRoot(), append(args, "--demo", "--config", w.file), io.Discard, &errs)
		if status == 0 || !strings.Contains(errs.String(), "systemctl stop gatehouse") {
			t.Errorf("%v: %d, %s", args, status, &errs)
		}
	}
}

func TestIOSafeLocksWhatItCanReach(t *testing.T) {
	w := newWired(t)
	var out bytes.Buffer
	if status := cli.Run(t.Context(), newRoot(), []string{"io", "safe", "--demo", "--config", w.file}, &out, &out); status != 0 {
		t.Fatal(out.String())
	}
	if want := "a, indicator: dark\na, strike: locked\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	// A driver that cannot be opened does not keep the others from it.
	cfg, err := config.ParseController(w.file, wiredDoor+`
[[door]]
name = "b"
strike = { driver = "gpio", chip = "no such chip", line = "GPIO17", wiring = "fail-secure" }
[[door.reader]]
name = "b-in"
direction = "in"
formats = ["H10301"]
device = { driver = "sim", line = "b-in" }
[drivers.gpio]
chip = "no such chip"
`, config.Options{Demo: true})
	must(t, err)
	slices.Reverse(cfg.Doors)
	out.Reset()
	err = makeSafe(&out, cfg)
	if err == nil || !strings.Contains(err.Error(), `door "b": strike`) || !strings.Contains(out.String(), "a, strike: locked") {
		t.Errorf("%v\n%s", err, &out)
	}
}

func TestIOTestRecordsWhoTriedWhatAndHowItWent(t *testing.T) {
	t.Parallel()
	w := newWired(t)
	s := newScreen(t)
	end := w.run(s.tty, s.tty, s.tty, "io", "test", "--by", "J. Smith")
	s.until("== a, contact")
	site := w.site("a.contact")
	outputs := &outputs{site: site}
	s.until("Close the door.")
	must(t, site.Set("a.contact", false))
	s.until("Open the door.")
	must(t, site.Set("a.contact", true))
	s.until("Close the door.")
	must(t, site.Set("a.contact", false))
	s.until("passed")

	s.until("Present a card.")
	short, err := badge.ParseFrame(adasFrame(t).Bits()[:25])
	must(t, err)
	must(t, site.Swipe("a-in", short))
	s.until("which do not fit H10301")
	s.until("Present a card.")
	must(t, site.Swipe("a-in", adasFrame(t)))
	s.until("end in 67?")
	s.types("y")
	s.until("passed")

	s.until("asks somebody to wait")
	s.types("y")
	s.until("somebody is let in")
	eventually(t, "granted is shown", func() bool { return outputs.state("a.lights") == "granted" })
	s.types("y")
	s.until("somebody is denied")
	s.types("n")
	s.until("failed")

	s.until("unlocked for 3s")
	if n := w.count(visitorlog.OperatorAction); n != 0 || outputs.state("a.strike") == sim.Unlocked {
		t.Fatalf("unlocked, or %d records of it, before the person said so", n)
	}
	s.types("y")
	eventually(t, "the strike is unlocked", func() bool { return outputs.state("a.strike") == sim.Unlocked })
	if n := w.count(visitorlog.OperatorAction); n != 1 {
		t.Errorf("%d records of the strike that is unlocked", n)
	}
	s.until("Could the door be opened")
	eventually(t, "the strike is locked", func() bool { return outputs.state("a.strike") == sim.Locked })
	s.types("y")
	s.until("passed")

	s.until("== all doors, lockdown")
	s.types("s")
	s.until("3 passed, 1 failed, 1 not tried")
	if status := end(); status != 1 {
		t.Errorf("exit status %d", status)
	}
	all := w.records()
	last := all[len(all)-1].Record
	want := []visitorlog.Trial{
		{Door: "a", Part: "contact", Result: "passed"},
		{Door: "a", Part: "reader a-in", Result: "passed"},
		{Door: "a", Part: "indicator", Result: "failed"},
		{Door: "a", Part: "strike", Result: "passed"},
		{Door: "all doors", Part: "lockdown", Result: "skipped"},
	}
	if last.Type != visitorlog.Commissioned || last.Data.Detail != "by J. Smith: 3 passed, 1 failed, 1 not tried" {
		t.Errorf("record %+v", last)
	}
	if d := cmp.Diff(want, last.Data.Trials); d != "" {
		t.Errorf("trials, - wanted + recorded:\n%s", d)
	}
	if strings.Contains(s.everything(), "4567") {
		t.Error("a card number is on the screen")
	}
}

// outputs is what the site's outputs were last told.
type outputs struct {
	site *sim.Site
	last map[string]string
}

func (o *outputs) state(line string) string {
	for {
		select {
		case out := <-o.site.Outputs():
			if o.last == nil {
				o.last = map[string]string{}
			}
			o.last[out.Line] = out.State
		default:
			return o.last[line]
		}
	}
}

func TestIOTestThatIsEndedWhileAStrikeIsUnlockedLocksIt(t *testing.T) {
	for _, how := range []string{"Ctrl-C", "Ctrl-Z", "the terminal hangs up", "the input ends"} {
		t.Run(how, func(t *testing.T) {
			w := newWired(t)
			in, keyboard := io.Pipe()
			var out, errs syncBuffer
			end := w.run(in, &out, &errs, "io", "test", "--by", "J. Smith")
			outputs := &outputs{site: w.site()}
			for range 2 { // contact, reader
				_, err := io.WriteString(keyboard, "n\n")
				must(t, err)
			}
			_, err := io.WriteString(keyboard, "s\ny\n") // indicator, strike
			must(t, err)
			eventually(t, "the strike is unlocked", func() bool { return outputs.state("a.strike") == sim.Unlocked })
			switch how {
			case "Ctrl-C":
				end()
			case "Ctrl-Z":
				must(t, syscall.Kill(os.Getpid(), syscall.SIGTSTP))
			case "the terminal hangs up":
				must(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
			default:
				keyboard.Close()
			}
			eventually(t, "the strike is locked", func() bool { return outputs.state("a.strike") == sim.Locked })
			eventually(t, "the results are recorded", func() bool { return strings.Contains(out.String(), "2 failed, 3 not tried") })
			if status := end(); status != 1 || w.count(visitorlog.Commissioned) != 1 {
				t.Errorf("exit status %d: %s", status, errs.String())
			}
		})
	}
}

func TestIOTestLocksTheStrikeWhileTheTerminalStandsStill(t *testing.T) {
	t.Parallel()
	w := newWired(t)
	s := newScreen(t)
	w.run(s.tty, s.tty, s.tty, "io", "test", "--by", "J. Smith")
	outputs := &outputs{site: w.site()}
	for _, part := range []string{"contact", "reader a-in", "indicator"} {
		s.until("== a, " + part)
		s.types("s")
	}
	s.until("unlocked for 3s")
	const stop, goOn = "\x13", "\x11" // Ctrl-S, Ctrl-Q
	t.Cleanup(func() { s.types(goOn) })
	s.types(stop + "y")
	eventually(t, "the strike is unlocked", func() bool { return outputs.state("a.strike") == sim.Unlocked })
	eventually(t, "the strike is locked", func() bool { return outputs.state("a.strike") == sim.Locked })
	s.types(goOn)
	s.until("locked again")
}

func TestIOTestUnlocksNothingThatItCannotRecord(t *testing.T) {
	w := newWired(t)
	cfg, err := config.LoadController(w.file, config.Options{Demo: true})
	must(t, err)
	c, err := openForRecords(t.Context(), cfg)
	must(t, err)
	defer c.Close()
	must(t, c.records.Close())
	answers := make(chan string, 1)
	answers <- "y"
	tester := &tester{c: c, by: "J. Smith", out: io.Discard, answers: answers}
	parts := ioParts(cfg)
	i := slices.IndexFunc(parts, func(p ioPart) bool { return p.name == "strike" })
	_, err = c.buses.bus("sim") // so that the site can connect
	must(t, err)
	outputs := &outputs{site: w.site()}
	if _, err := tester.strike(t.Context(), parts[i]); err == nil || !strings.Contains(err.Error(), "it stays locked") {
		t.Errorf("trying it: %v", err)
	}
	if outputs.state("a.strike") == sim.Unlocked {
		t.Error("unlocked without a record")
	}
}

// ill is a reader whose wires are not as they should be.
type ill struct{ learner }

func (*ill) Health() badge.Health { return badge.Health{Likely: "no common ground"} }

func TestIOWatchShowsWhatIsLikelyWrong(t *testing.T) {
	for _, tt := range []struct {
		reader drivers.Reader
		want   bool
	}{{&ill{}, true}, {&learner{}, false}} {
		view := newTable(nil, &config.Controller{Name: "north-1"})
		view.rows = []*ioRow{{
			ioPart: ioPart{door: "a", name: "reader a-in", device: &config.Device{}},
			likely: func() string { return likelyWrong(tt.reader) },
		}}
		if text := strings.Join(view.lines(time.Now()), "\n"); strings.Contains(text, "likely wrong: no common ground") != tt.want {
			t.Errorf("%T:\n%s", tt.reader, text)
		}
	}
}

func TestIOTestOfNothingRecordsNothing(t *testing.T) {
	w := newWired(t)
	var out syncBuffer
	end := w.run(strings.NewReader("q\n"), &out, &out, "io", "test", "--by", "J. Smith")
	eventually(t, "it ends", func() bool { return strings.Contains(out.String(), "nothing is recorded") })
	if status := end(); status != 0 || w.count(visitorlog.Commissioned) != 0 {
		t.Errorf("exit status %d: %s", status, out.String())
	}
}

func TestIOTestWantsToKnowWhoTries(t *testing.T) {
	w := newWired(t)
	for _, by := range []string{"", "a\x1b[2Jb", strings.Repeat("x", maxBy+1)} {
		var errs bytes.Buffer
		status := cli.Run(t.Context(), newRoot(), []string{"io", "test", "--demo", "--config", w.file, "--by", by}, io.Discard, &errs)
		if status == 0 || !strings.Contains(errs.String(), "--by") {
			t.Errorf("%q: %d, %s", by, status, &errs)
		}
	}
}

func TestIOListNamesChipsAndLines(t *testing.T) {
	chips := []gpio.Chip{{Name: "gpiochip0", Label: "pinctrl-rp1", Lines: []gpio.Line{
		{Name: "GPIO17", Output: true, Used: true, Consumer: "gatehouse"}, {Name: "GPIO22"}, {}, {Name: "GPIO23", Used: true},
	}}}
	var out bytes.Buffer
	must(t, printChips(&out, chips, false))
	want := "chip pinctrl-rp1          4 lines, gpiochip0 at the moment\n" +
		"  GPIO17          output  used by gatehouse\n" +
		"  GPIO22          input   free\n" +
		"  GPIO23          input   used\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	out.Reset()
	must(t, printChips(&out, chips, true))
	if !strings.Contains(out.String(), "(no name)") {
		t.Errorf("lines without a name are not shown:\n%s", &out)
	}
	if list := chipsJSON(chips); len(list) != 1 || len(list[0].Lines) != 4 || list[0].Lines[0].Consumer != "gatehouse" {
		t.Errorf("%+v", list)
	}
}

func TestIOListNamesEachSerialPortOnceByTheNameThatStays(t *testing.T) {
	dev := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dev, "serial", "by-id"), 0o755))
	for _, name := range []string{"ttyUSB0", "ttyUSB1", "ttyAMA2", "ttyS4", "tty7", "null"} {
		must(t, os.WriteFile(filepath.Join(dev, name), nil, 0o600))
	}
	must(t, os.Symlink("../../ttyUSB0", filepath.Join(dev, "serial", "by-id", "usb-FTDI-port0")))
	must(t, os.Symlink("ttyAMA2", filepath.Join(dev, "serial0")))
	must(t, os.Symlink("ttyUSB9", filepath.Join(dev, "serial1"))) // unplugged
	got, err := serialPorts(dev)
	must(t, err)
	var want []string
	for _, name := range []string{"serial/by-id/usb-FTDI-port0", "serial0", "ttyS4", "ttyUSB1"} {
		want = append(want, filepath.Join(dev, name))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("- wanted + got:\n%s", d)
	}
}
