package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/guest"
	"golang.org/x/sys/unix"
)

// chipEnv names the folder of the simulated chip in sysfs to every program in
// the guest.
const chipEnv = "GATEHOUSE_GPIO_SIM"

// chip is the simulated chip as the outside world sees it.
type chip [guest.Lines]struct{ pull, value int } // descriptors

func openChip() (*chip, error) {
	var c chip
	for i := range c {
		line := fmt.Sprintf("%s/sim_gpio%d", os.Getenv(chipEnv), i)
		var err error
		if c[i].pull, err = unix.Open(line+"/pull", unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("%s/pull: %w", line, err)
		}
		if c[i].value, err = unix.Open(line+"/value", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("%s/value: %w", line, err)
		}
	}
	return &c, nil
}

func (c *chip) pull(line int, up bool) error {
	to := "pull-down"
	if up {
		to = "pull-up"
	}
	if _, err := unix.Pwrite(c[line].pull, []byte(to), 0); err != nil {
		return fmt.Errorf("pulling GPIO%d: %w", line, err)
	}
	return nil
}

func (c *chip) high(line int) (bool, error) {
	var b [2]byte
	if _, err := unix.Pread(c[line].value, b[:], 0); err != nil {
		return false, fmt.Errorf("looking at GPIO%d: %w", line, err)
	}
	return b[0] == '1', nil
}

// monotonic is the kernel's monotonic clock, which GPIO events carry.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// sleepUntil sleeps on the kernel's high-resolution timer: Go's own wakes up
// too late for a pulse.
func sleepUntil(t time.Duration) {
	ts := unix.NsecToTimespec(int64(t))
	for errors.Is(unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil), unix.EINTR) {
	}
}

// outside is the argument of the program that plays: a process of its own, in
// which nothing goes on besides, and which goes before all other programs, as
// the outside world does, but not before the kernel's interrupt threads.
const outside = "outside"

func playOutside(steps []guest.Step) (done []guest.Done, err error) {
	in, err := json.Marshal(steps)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", outside)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w; the console says why", err)
	}
	return done, json.Unmarshal(out, &done)
}

func play(in io.Reader, out io.Writer) error {
	var steps []guest.Step
	if err := json.NewDecoder(in).Decode(&steps); err != nil {
		return err
	}
	c, err := openChip()
	if err != nil {
		return err
	}
	done := make([]guest.Done, 0, len(steps))
	debug.SetGCPercent(-1) // collecting would stop the outside world
	realtime := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10}
	if err := unix.SchedSetAttr(0, &realtime, 0); err != nil {
		return fmt.Errorf("real-time priority: %w", err)
	}
	for i := range steps {
		d, err := c.step(&steps[i])
		if err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		done = append(done, d)
	}
	return json.NewEncoder(out).Encode(done)
}

func (c *chip) step(s *guest.Step) (guest.Done, error) {
	switch {
	case s.Frame != nil:
		return c.frame(s.Frame)
	case s.Pull != nil:
		err := c.pull(s.Pull.Line, s.Pull.Up)
		return guest.Done{At: monotonic()}, err
	case s.Await != nil:
		return c.await(s.Await)
	case s.Clock != nil:
		return guest.Done{At: monotonic()}, setClock(s.Clock)
	default:
		end := monotonic() + s.Sleep
		sleepUntil(end)
		return guest.Done{At: end}, nil
	}
}

func (c *chip) frame(f *guest.Frame) (d guest.Done, err error) {
	for _, bit := range f.Bits {
		line := f.D0
		if bit == '1' {
			line = f.D1
		}
		now := monotonic()
		if d.At != 0 {
			// After a stall a reader goes on as before; it does not hurry.
			sleepUntil(d.At + f.Spacing)
			now = monotonic()
			d.Worst = max(d.Worst, (now - d.At - f.Spacing).Abs())
		}
		d.At = now
		if err := c.pull(line, false); err != nil {
			return d, err
		}
		// So short a time is not worth a sleep.
		for monotonic() < now+f.Pulse {
		}
		if err := c.pull(line, true); err != nil {
			return d, err
		}
	}
	return d, nil
}

// await looks at a line, for gpio-sim tells nobody that an output has moved:
// often at first, and then so often that it is late by a sixteenth at most.
func (c *chip) await(a *guest.Await) (guest.Done, error) {
	const glance = 100 * time.Microsecond
	for began := monotonic(); ; {
		high, err := c.high(a.Line)
		now := monotonic()
		if err != nil || high == a.High {
			return guest.Done{At: now, OK: err == nil}, err
		}
		if now >= began+a.Within {
			return guest.Done{At: now}, nil
		}
		sleepUntil(now + max(glance, (now-began)/16))
	}
}

// watch tells of each change of the lines, for ever.
func watch(lines []int, tell func(guest.Moved)) error {
	const glance = 500 * time.Microsecond
	c, err := openChip()
	if err != nil {
		return err
	}
	was := make([]bool, len(lines))
	for i, line := range lines {
		if was[i], err = c.high(line); err != nil {
			return err
		}
	}
	go func() {
		for ; ; sleepUntil(monotonic() + glance) {
			for i, line := range lines {
				high, err := c.high(line)
				if err != nil {
					panic(err) // the guest ends
				}
				if high != was[i] {
					was[i] = high
					tell(guest.Moved{Line: line, High: high, At: monotonic()})
				}
			}
		}
	}()
	return nil
}
