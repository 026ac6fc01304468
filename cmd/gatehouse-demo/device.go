package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// lookEvery is how often a device is asked what has become of it.
const lookEvery = 100 * time.Millisecond

// device is a simulated device at the far end of a pseudo-terminal, led by
// commands that a person types, a line each.
type device struct {
	serve func(end io.ReadWriter, rate func() int)
	ready func(port string)          // says how to reach it
	look  func()                     // says what has changed by itself
	do    func(words []string) error // a command, which has at least one word
	help  string
}

// run plugs the device in, under the name link as well unless that is empty,
// and does what is typed until ctx ends, nothing more comes, or "quit".
func (d device) run(ctx context.Context, in io.Reader, say *journal, link string) (err error) {
	c, err := newCable(d.serve)
	if err != nil {
		return err
	}
	defer c.unplug()
	port := c.name
	if link != "" {
		if err := os.Symlink(c.name, link); errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("--link: %s is there already: remove it, or give another name", link)
		} else if err != nil {
			return fmt.Errorf("--link: %w", err)
		}
		defer func() {
			// Somebody may have put something else there.
			if to, readErr := os.Readlink(link); readErr == nil && to == c.name {
				err = errors.Join(err, os.Remove(link))
			}
		}()
		port = link
	}
	d.ready(port)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines, failed := typed(ctx, in)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.look()
		case line, ok := <-lines:
			if !ok {
				return <-failed
			}
			words := strings.Fields(line)
			switch {
			case len(words) == 0:
			case words[0] == "quit":
				return nil
			case words[0] == "help":
				say.print("%s", d.help)
			default:
				if err := d.do(words); err != nil {
					say.print("%v", err)
				}
			}
		}
	}
}

// typed gives what comes from in, a line each, and then why no more does; nil:
// it has ended.
func typed(ctx context.Context, in io.Reader) (<-chan string, <-chan error) {
	lines, failed := make(chan string), make(chan error, 1)
	go func() {
		defer close(lines)
		s := bufio.NewScanner(in)
		for s.Scan() {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
		failed <- s.Err()
	}()
	return lines, failed
}

// rate is that of the near end in baud, -1 if it cannot be told.
func (c *cable) rate() int {
	rate := -1
	raw, err := c.master.SyscallConn()
	if err != nil {
		return rate
	}
	// An error is that of a terminal that is closed.
	_ = raw.Control(func(fd uintptr) {
		if t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS2); err == nil {
			rate = int(t.Ospeed)
		}
	})
	return rate
}

// journal says what happens, a line each, from whatever goroutine.
type journal struct {
	mu sync.Mutex
	w  io.Writer
}

// print says something as it is. What cannot be written nobody reads.
func (j *journal) print(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(j.w, format+"\n", args...)
}

// note says what has just happened.
func (j *journal) note(format string, args ...any) {
	j.print(time.Now().Format("15:04:05")+"  "+format, args...)
}

const (
	// powerLoss is the fault that no simulator has by itself.
	powerLoss = "power-loss"
	// darkFor is how long it lasts, unless it is said.
	darkFor = 10 * time.Second
)

// trouble is what may befall a simulated device.
type trouble[F fmt.Stringer] struct {
	device interface {
		Inject(fault F, n int)
		Power(on bool)
	}
	parse func(name string) (F, error)
	note  func(format string, args ...any)

	mu   sync.Mutex
	off  bool
	back *time.Timer // gives the power back; nil: nobody does
}

// begin brings a fault about, written NAME or NAME:N.
func (t *trouble[F]) begin(text string) error {
	name, count, counted := strings.Cut(text, ":")
	n := -1
	if counted {
		u, err := strconv.ParseUint(count, 10, 16)
		if err != nil {
			return fmt.Errorf("fault %q: behind the colon stands a number up to 65535, of commands (0: no more of it), or of seconds for %s", text, powerLoss)
		}
		n = int(u)
	}
	if name == powerLoss {
		dark := darkFor
		if counted {
			dark = time.Duration(n) * time.Second
		}
		t.power(false, dark)
		return nil
	}
	fault, err := t.parse(name)
	if err != nil {
		return fmt.Errorf("%w and %s", err, powerLoss)
	}
	t.device.Inject(fault, n)
	switch n {
	case -1:
		t.note("fault %v: all commands; fault %v:0 ends it", fault, fault)
	case 0:
		t.note("fault %v: no more", fault)
	default:
		t.note("fault %v: commands left: %d", fault, n)
	}
	return nil
}

// power switches the power, and gives it back after a time; 0: never.
func (t *trouble[F]) power(on bool, back time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.back != nil {
		t.back.Stop()
		t.back = nil
	}
	t.off = !on
	t.device.Power(on)
	switch {
	case on:
		t.note("it has power")
	case back > 0:
		t.back = time.AfterFunc(back, func() { t.power(true, 0) })
		t.note("it has lost its power, for %v", back)
	default:
		t.note("it has no power, until: power on")
	}
}

// dark reports whether there is no power.
func (t *trouble[F]) dark() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.off
}

// end lets nothing more happen by itself.
func (t *trouble[F]) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.back != nil {
		t.back.Stop()
	}
}

// do does what every device can be told; known is false for what is none of it.
func (t *trouble[F]) do(words []string) (known bool, err error) {
	switch words[0] {
	case "fault":
		if len(words) != 2 {
			return true, errors.New("write: fault NAME, or fault NAME:N for the next N commands")
		}
		return true, t.begin(words[1])
	case "power":
		on, err := onOff(words)
		if err == nil {
			t.power(on, 0)
		}
		return true, err
	}
	return false, nil
}

func onOff(words []string) (on bool, err error) {
	if len(words) != 2 || words[1] != "on" && words[1] != "off" {
		return false, fmt.Errorf("write: %s on, or %[1]s off", words[0])
	}
	return words[1] == "on", nil
}

// unknown is a command that there is not.
func unknown(words []string) error {
	return fmt.Errorf("there is no command %q: help shows those that there are", words[0])
}

// linkFlag adds --link to a command.
func linkFlag(cmd *cobra.Command, link *string) {
	cmd.Flags().StringVar(link, "link", "", "make `FILE` a symbolic link to the port, and remove it at the end")
}
