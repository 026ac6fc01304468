//go:build guest

package gpio

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warthog618/go-gpiocdev/uapi"
	"periph.io/x/conn/v3/gpio"
	"periph.io/x/host/v3/gpioioctl"

	"github.com/gatehouse-acs/gatehouse/drivers/drivertest"
)

// These tests run where the kernel has a simulated chip (gpio-sim) with the
// label pinctrl-sim and lines GPIO0 to GPIO31. GATEHOUSE_GPIO_SIM is the chip's
// folder in sysfs.

// TestMain is also the program that tests kill.
func TestMain(m *testing.M) {
	if os.Getenv("GATEHOUSE_GPIO_SIM") == "" {
		fmt.Fprintln(os.Stderr, "GATEHOUSE_GPIO_SIM must name the simulated chip's folder in sysfs")
		os.Exit(2)
	}
	if work := os.Getenv("GATEHOUSE_GPIO_CHILD"); work != "" {
		if err := child(work); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child does what a test wants done by a process of its own.
func child(work string) error {
	var d Device
	if err := json.Unmarshal([]byte(os.Getenv("GATEHOUSE_GPIO_DEVICE")), &d); err != nil {
		return err
	}
	b, err := Open(&Settings{Chip: d.Chip}, silent)
	if err != nil {
		return err
	}
	if work == "watch" {
		in, err := b.Input(&d)
		if err != nil {
			return err
		}
		return in.Watch(context.Background(), func(active bool) { fmt.Println("active", active) })
	}
	s, err := b.Strike(&d)
	if err != nil {
		return err
	}
	if err := s.Unlock(); err != nil {
		return err
	}
	fmt.Println("unlocked")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil { // until it is killed, or
		return err
	}
	go func() { panic("as a programming error would") }()
	select {}
}

// start runs a child and gives the lines that it prints.
func start(t *testing.T, work string, d *Device) (*exec.Cmd, *bufio.Scanner, func()) {
	t.Helper()
	device := must[[]byte](t)(json.Marshal(d))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "GATEHOUSE_GPIO_CHILD="+work, "GATEHOUSE_GPIO_DEVICE="+string(device))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewScanner(out), func() { _, _ = in.Write([]byte("\n")) }
}

// attribute is a file of a line of the simulated chip: value or pull.
func attribute(line, name string) string {
	return filepath.Join(os.Getenv("GATEHOUSE_GPIO_SIM"), "sim_gpio"+strings.TrimPrefix(line, "GPIO"), name)
}

// isHigh reads a line back, from outside.
func isHigh(t testing.TB, line string) bool {
	t.Helper()
	text := must[[]byte](t)(os.ReadFile(attribute(line, "value")))
	return strings.TrimSpace(string(text)) == "1"
}

// pull is what is at the other end of a line.
func pull(t testing.TB, line string, up bool) {
	t.Helper()
	to := "pull-down"
	if up {
		to = "pull-up"
	}
	if err := os.WriteFile(attribute(line, "pull"), []byte(to), 0); err != nil {
		t.Fatal(err)
	}
}

func openBus(t *testing.T) *Bus {
	t.Helper()
	b := must[*Bus](t)(Open(DefaultSettings(), silent))
	t.Cleanup(func() { b.Close() })
	return b
}

// reset pulls every line down: a line keeps what the test before it left.
func reset(t *testing.T) {
	for i := range 32 {
		pull(t, fmt.Sprintf("GPIO%d", i), false)
	}
}

func TestGuestConformance(t *testing.T) {
	drivertest.Test(t, func(t *testing.T) *drivertest.Rig {
		reset(t)
		b := openBus(t)
		strike := must[*Strike](t)(b.Strike(&Device{Line: "GPIO17", Wiring: failSecure}))
		contact := must[*Input](t)(b.Input(&Device{Line: "GPIO22", Normally: normallyClosed}))
		lights := must[*Indicator](t)(b.Indicator(&Device{Green: "GPIO5", Red: "GPIO6", Beeper: "GPIO13"}))
		pull(t, "GPIO22", false)
		return &drivertest.Rig{
			Unlock: strike.Unlock, Lock: strike.Lock, Watch: contact.Watch, Show: lights.Show, Close: b.Close,
			Set:      func(active bool) { pull(t, "GPIO22", active) },
			Unlocked: func() bool { return isHigh(t, "GPIO17") },
			Shown: func() string {
				return shown(t, func() lamps {
					on := dark
					for line, lamp := range map[string]lamps{"GPIO5": green, "GPIO6": red, "GPIO13": beep} {
						if isHigh(t, line) {
							on |= lamp
						}
					}
					return on
				})
			},
		}
	})
}

// wirings are all ways to wire a lock, and the level at which it is locked.
var wirings = []struct {
	wiring, active string
	lockedHigh     bool
}{
	{failSecure, high, false},
	{failSecure, low, true},
	{failSafe, high, true},
	{failSafe, low, false},
}

// glitches counts how often somebody who looks at a line without a break saw
// it at a level, while f ran.
func glitches(t *testing.T, line string, level byte, f func()) (seen, looks int) {
	t.Helper()
	runtime.GOMAXPROCS(4) // looking must go on while f is in the kernel
	file := must[*os.File](t)(os.Open(attribute(line, "value")))
	defer file.Close()
	var stop atomic.Bool
	var watching sync.WaitGroup
	watching.Go(func() {
		var buf [2]byte
		for ; !stop.Load(); looks++ {
			if _, err := file.ReadAt(buf[:1], 0); err != nil {
				t.Error(err)
				return
			}
			if buf[0] == level {
				seen++
			}
		}
	})
	f()
	stop.Store(true)
	watching.Wait()
	return seen, looks
}

// blipTime is how long each way of opening a line is repeated under watch.
const blipTime = 300 * time.Millisecond

func TestGuestALineIsNeverUnlockedWhileItIsOpenedAndClosed(t *testing.T) {
	repeat := func(f func()) func() {
		return func() {
			for end := time.Now().Add(blipTime); time.Now().Before(end); {
				f()
			}
		}
	}
	// First, that such a watch would see it: periph's way to begin high.
	pull(t, "GPIO25", true)
	chips := must[[]Chip](t)(Chips())
	sim := must[Chip](t)(findChip(chips, ""))
	seen, looks := glitches(t, "GPIO25", '0', repeat(func() {
		l, err := openLineSet(sim, gpioioctl.LineOutput, gpio.NoEdge, gpio.PullUp, 25)
		if err != nil {
			t.Error(err)
			return
		}
		if err := errors.Join(l.Set(true), l.Close()); err != nil {
			t.Error(err)
		}
	}))
	t.Logf("periph's own way to begin high: seen low %d times in %d looks", seen, looks)
	if seen == 0 {
		t.Fatal("the watch does not see a line that is low for a moment, so it shows nothing")
	}
	for _, w := range wirings {
		pull(t, "GPIO25", w.lockedHigh)
		unlocked := byte('1')
		if w.lockedHigh {
			unlocked = '0'
		}
		seen, looks := glitches(t, "GPIO25", unlocked, repeat(func() {
			b, err := Open(DefaultSettings(), silent)
			if err != nil {
				t.Error(err)
				return
			}
			s, err := b.Strike(&Device{Line: "GPIO25", Wiring: w.wiring, Active: w.active})
			if err != nil {
				t.Error(err)
				return
			}
			if err := errors.Join(s.Lock(), b.Close()); err != nil {
				t.Error(err)
			}
		}))
		if seen > 0 {
			t.Errorf("%s, active %s: seen unlocked %d times in %d looks", w.wiring, w.active, seen, looks)
		}
	}
}

func TestGuestALineLocksWhenTheProgramDies(t *testing.T) {
	for _, w := range wirings {
		for _, how := range []string{"killed", "panics"} {
			t.Run(w.wiring+" "+w.active+" "+how, func(t *testing.T) {
				pull(t, "GPIO18", !w.lockedHigh) // nobody but the driver sees to the resistor
				cmd, out, goOn := start(t, "unlock", &Device{Line: "GPIO18", Wiring: w.wiring, Active: w.active})
				if !out.Scan() || out.Text() != "unlocked" {
					t.Fatalf("the program said %q", out.Text())
				}
				if isHigh(t, "GPIO18") == w.lockedHigh {
					t.Fatal("it is not unlocked")
				}
				began := time.Now()
				if how == "panics" {
					goOn()
				} else if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the line locks", func() bool { return isHigh(t, "GPIO18") == w.lockedHigh })
				t.Logf("locked %v after", time.Since(began))
			})
		}
	}
}

func TestGuestOpeningAndClosingMakesALineSafe(t *testing.T) {
	for _, w := range wirings {
		pull(t, "GPIO18", !w.lockedHigh)
		b := must[*Bus](t)(Open(DefaultSettings(), silent))
		if _, err := b.Strike(&Device{Line: "GPIO18", Wiring: w.wiring, Active: w.active}); err != nil {
			t.Fatal(err)
		}
		if isHigh(t, "GPIO18") != w.lockedHigh {
			t.Errorf("%s, active %s: open: it is not locked", w.wiring, w.active)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if isHigh(t, "GPIO18") != w.lockedHigh {
			t.Errorf("%s, active %s: closed: it is not locked", w.wiring, w.active)
		}
	}
}

func TestGuestABouncingContactChangesOnce(t *testing.T) {
	reset(t)
	b := openBus(t)
	const hold = 500 * time.Millisecond // long against whatever else the machine does meanwhile
	in := must[*Input](t)(b.Input(&Device{Line: "GPIO22", Normally: normallyClosed, Debounce: hold}))
	pull(t, "GPIO22", false)
	told := make(chan bool, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- in.Watch(ctx, func(active bool) { told <- active }) }()
	if <-told {
		t.Fatal("a closed contact is active")
	}
	for _, to := range []bool{true, false, true} {
		for range 5 { // bounces
			pull(t, "GPIO22", to)
			time.Sleep(2 * time.Millisecond)
			pull(t, "GPIO22", !to)
			time.Sleep(3 * time.Millisecond)
		}
		began := time.Now()
		pull(t, "GPIO22", to)
		if got := <-told; got != to {
			t.Errorf("told %v, not %v", got, to)
		}
		if took := time.Since(began); took < hold-time.Millisecond {
			t.Errorf("told after %v", took)
		}
	}
	for range 5 { // pulses too short to count
		pull(t, "GPIO22", false)
		time.Sleep(10 * time.Millisecond)
		pull(t, "GPIO22", true)
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(2 * hold)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(told) > 0 {
		t.Errorf("%d changes were told of pulses that are too short", len(told))
	}
}

func TestGuestBiasIsAsConfigured(t *testing.T) {
	b := openBus(t)
	for _, c := range []struct {
		line, bias string
		high       bool
	}{{"GPIO8", "up", true}, {"GPIO9", "", true}, {"GPIO10", "down", false}} {
		pull(t, c.line, !c.high)
		in := must[*Input](t)(b.Input(&Device{Line: c.line, Normally: normallyOpen, Bias: c.bias}))
		text := must[string](t)(in.Look())
		if want := fmt.Sprintf("line %q: normal (%s)", c.line, level(c.high)); text != want {
			t.Errorf("bias %q: %s, want %s", c.bias, text, want)
		}
	}
}

func TestGuestASupervisedLoopIsReadFromFiles(t *testing.T) {
	dir := t.TempDir()
	set := func(file, text string) {
		if err := os.WriteFile(filepath.Join(dir, "new"), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	set("in_voltage0_scale", "2.0")
	set("in_voltage0_raw", "825")
	b := openBus(t)
	in := must[*Input](t)(b.Input(&Device{ADC: filepath.Join(dir, "in_voltage0"), Normally: normallyClosed}))
	told := make(chan bool, 100)
	ended := make(chan error, 1)
	go func() { ended <- in.Watch(t.Context(), func(active bool) { told <- active }) }()
	if <-told {
		t.Error("1650 mV is active")
	}
	set("in_voltage0_raw", "1100")
	if !<-told {
		t.Error("2200 mV is normal")
	}
	set("in_voltage0_raw", "1650")
	if err := <-ended; !errors.Is(err, ErrOpen) {
		t.Errorf("3300 mV: %v", err)
	}
}

// hold takes a line by the name of another program.
func hold(t *testing.T, line int, by string) {
	sim := must[Chip](t)(findChip(must[[]Chip](t)(Chips()), ""))
	f := must[*os.File](t)(os.Open(sim.path))
	defer f.Close()
	request := uapi.LineRequest{Lines: 1}
	request.Offsets[0] = uint32(line)
	request.Config.Flags = uapi.LineFlagV2Input
	copy(request.Consumer[:], by)
	if err := uapi.GetLine(f.Fd(), &request); err != nil {
		t.Fatal(err)
	}
	taken := os.NewFile(uintptr(request.Fd), "line")
	t.Cleanup(func() { taken.Close() })
}

func TestGuestWhatCannotBeOpenedSaysWhatThereIs(t *testing.T) {
	hold(t, 11, "door-bell")
	b := openBus(t)
	if _, err := b.Strike(&Device{Line: "GPIO12", Wiring: failSecure}); err != nil {
		t.Fatal(err)
	}
	input := func(line string) error {
		_, err := b.Input(&Device{Line: line, Normally: normallyOpen})
		return err
	}
	pair := func(chip, d0, d1 string) error {
		_, err := OpenPair(chip, d0, d1, PairOptions{})
		return err
	}
	bus := func(chip string) error {
		_, err := Open(&Settings{Chip: chip}, silent)
		return err
	}
	for _, c := range []struct {
		what string
		err  error
		want []string
	}{
		{"a taken line", input("GPIO11"), []string{`"GPIO11"`, `"pinctrl-sim"`, `taken by "door-bell"`}},
		{"a line that is there twice", input("GPIO12"), []string{`"GPIO12"`, "already in use by this program"}},
		{"a line that is not there", input("GPIO32"), []string{`no line "GPIO32"`, "did you mean", "GPIO0 to GPIO31"}},
		{"a number", input("17"), []string{`no line "17"`, "name, never by its number", "GPIO0 to GPIO31"}},
		{"a chip that is not there", bus("pinctrl-rp1"), []string{`"pinctrl-rp1"`, `"pinctrl-sim" (GPIO0 to GPIO31)`}},
		{"a pair on a line in use", pair("", "GPIO10", "GPIO12"), []string{`d1: line "GPIO12"`, "already in use by this program"}},
		{"a pair on a taken line", pair("", "GPIO10", "GPIO11"), []string{`d1: line "GPIO11"`, `"door-bell"`}},
		{"a pair of one line", pair("", "GPIO10", "GPIO10"), []string{`"GPIO10"`, "same line"}},
		{"a pair on no chip", pair("pinctrl-rp1", "GPIO1", "GPIO2"), []string{`"pinctrl-rp1"`, `"pinctrl-sim" (GPIO0 to GPIO31)`}},
	} {
		if c.err == nil {
			t.Errorf("%s: no error", c.what)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(c.err.Error(), w) {
				t.Errorf("%s: %q does not say %q", c.what, c.err, w)
			}
		}
	}
}

func TestGuestChipsTellWhoHoldsALine(t *testing.T) {
	hold(t, 14, "door-bell")
	b := openBus(t)
	if _, err := b.Strike(&Device{Line: "GPIO15", Wiring: failSafe}); err != nil {
		t.Fatal(err)
	}
	sim := must[Chip](t)(findChip(must[[]Chip](t)(Chips()), "pinctrl-sim"))
	for i, want := range map[int]Line{
		14: {Name: "GPIO14", Used: true, Consumer: "door-bell"},
		15: {Name: "GPIO15", Output: true, Used: true, Consumer: consumer()},
		16: {Name: "GPIO16"},
	} {
		if sim.Lines[i] != want {
			t.Errorf("line %d is %+v, want %+v", i, sim.Lines[i], want)
		}
	}
}

func TestGuestAPairTellsEveryEdge(t *testing.T) {
	for name, open := range map[string]func() (Pair, error){
		"kernel": func() (Pair, error) { return OpenPair("", "GPIO23", "GPIO24", PairOptions{}) },
		"periph": func() (Pair, error) {
			sim := must[Chip](t)(findChip(must[[]Chip](t)(Chips()), ""))
			return openLineSetPair(sim, [2]uint32{23, 24}, PairOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			lines := [2]string{"GPIO23", "GPIO24"}
			pull(t, lines[0], true)
			pull(t, lines[1], true)
			p := must[Pair](t)(open())
			defer p.Close()
			if low := must[[2]bool](t)(p.Levels()); low != [2]bool{} {
				t.Fatalf("a line is low: %v", low)
			}
			buf := make([]Edge, 64)
			if n, err := p.Read(buf, 20*time.Millisecond); n != 0 || err != nil {
				t.Fatalf("%d edges (%v) on lines that rest", n, err)
			}
			want := []uint8{0, 1, 1, 0, 1, 0, 0, 0, 1, 1}
			began := p.Now()
			var got []Edge
			for _, l := range want { // each is read before the next: a busy kernel may not notice a pulse that is short
				pull(t, lines[l], false)
				n, err := p.Read(buf, 5*time.Second)
				if err != nil || n != 1 {
					t.Fatalf("%d edges came, and then %d, %v", len(got), n, err)
				}
				got = append(got, buf[0])
				pull(t, lines[l], true)
			}
			var order []uint8
			for i, e := range got {
				order = append(order, e.Line)
				if name == "kernel" && e.Seq != uint32(i+1) || name == "periph" && e.Seq != 0 {
					t.Errorf("edge %d has the number %d", i, e.Seq)
				}
				if e.At < began || e.At > p.Now() {
					t.Errorf("edge %d at %v, which is not between %v and now", i, e.At, began)
				}
			}
			if !slices.Equal(order, want) {
				t.Errorf("the edges are of %v, not %v", order, want)
			}
			pull(t, lines[1], false)
			if low := must[[2]bool](t)(p.Levels()); low != [2]bool{false, true} {
				t.Errorf("low: %v, want the second", low)
			}
			if n, err := p.Read(buf, 5*time.Second); n != 1 || err != nil {
				t.Errorf("%d edges, %v", n, err)
			}
			ended := make(chan error, 1)
			go func() {
				_, err := p.Read(buf, time.Minute)
				ended <- err
			}()
			time.Sleep(20 * time.Millisecond) // until it waits
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			select {
			case err := <-ended:
				if err == nil {
					t.Error("a read gave something when the pair was closed")
				}
			case <-time.After(5 * time.Second):
				t.Error("a read does not end when the pair is closed")
			}
			if _, err := p.Read(buf, time.Millisecond); err == nil {
				t.Error("a read gave something after the pair was closed")
			}
		})
	}
}

// TestGuestAStallDoesNotOverflow: the kernel keeps what came while nobody
// read. (It need not notice every pulse so short on a machine that has much to
// do; then the numbers have a gap.)
func TestGuestAStallDoesNotOverflow(t *testing.T) {
	pull(t, "GPIO23", true)
	pull(t, "GPIO24", true)
	p := must[Pair](t)(OpenPair("", "GPIO23", "GPIO24", PairOptions{}))
	defer p.Close()
	const edges = 300 // while nobody reads: ten times what periph's sets keep
	for i := range edges {
		line := []string{"GPIO23", "GPIO24"}[i%2]
		pull(t, line, false)
		time.Sleep(100 * time.Microsecond)
		pull(t, line, true)
		time.Sleep(100 * time.Microsecond)
	}
	came := map[uint32]bool{}
	buf := make([]Edge, 7)
	for {
		n, err := p.Read(buf, 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		for _, e := range buf[:n] {
			if e.Seq == 0 || e.Seq > edges || came[e.Seq] || int(e.Line) != int(e.Seq-1)%2 {
				t.Fatalf("edge %+v came", e)
			}
			came[e.Seq] = true
		}
	}
	if len(came) < edges/2 {
		t.Errorf("only %d edges of %d came", len(came), edges)
	}
	t.Logf("%d edges of %d came", len(came), edges)
}

// TestGuestAChipThatGoesAwayIsAFault takes a chip of its own away from a
// program that watches one of its lines.
func TestGuestAChipThatGoesAwayIsAFault(t *testing.T) {
	dir := "/sys/kernel/config/gpio-sim/gone"
	made := []string{dir, dir + "/bank0", dir + "/bank0/line0"}
	for _, d := range made {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	set := func(file, text string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	set("bank0/label", "pinctrl-gone")
	set("bank0/num_lines", "2")
	set("bank0/line0/name", "CONTACT")
	set("live", "1")
	t.Cleanup(func() {
		slices.Reverse(made)
		for _, d := range made {
			if err := os.Remove(d); err != nil {
				t.Error(err)
			}
		}
	})
	_, out, _ := start(t, "watch", &Device{Chip: "pinctrl-gone", Line: "CONTACT", Normally: normallyOpen})
	if !out.Scan() || out.Text() != "active false" {
		t.Fatalf("the program said %q", out.Text())
	}
	set("live", "0")
	if !out.Scan() || !strings.HasPrefix(out.Text(), `line "CONTACT": `) || strings.HasPrefix(out.Text(), "active") {
		t.Fatalf("the program said %q", out.Text())
	}
	t.Log(out.Text())
}

// TestGuestASecondNameOfAChipIsHarmless: a Raspberry Pi 5 has two names for
// one chip, for which periph closes file 0.
func TestGuestASecondNameOfAChipIsHarmless(t *testing.T) {
	sim := must[Chip](t)(findChip(must[[]Chip](t)(Chips()), ""))
	second := filepath.Join(filepath.Dir(sim.path), "gpiochip99")
	if err := os.Symlink(sim.path, second); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(second) })
	pull(t, "GPIO22", false)
	cmd, out, _ := start(t, "watch", &Device{Line: "GPIO22", Normally: normallyClosed, Bias: biasNone})
	for _, active := range []bool{false, true, false} {
		pull(t, "GPIO22", active)
		if want := fmt.Sprint("active ", active); !out.Scan() || out.Text() != want {
			t.Fatalf("the program said %q, want %q", out.Text(), want)
		}
	}
	if file := must[string](t)(os.Readlink(fmt.Sprintf("/proc/%d/fd/0", cmd.Process.Pid))); file != "/dev/null" {
		t.Errorf("its file 0 is %q", file)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}
