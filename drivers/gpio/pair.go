package gpio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warthog618/go-gpiocdev/uapi"
	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/gpio"
	"periph.io/x/host/v3/gpioioctl"
)

// Edge is one falling edge on a pair of lines.
type Edge struct {
	Line uint8         // 0: the first line of the pair (D0), 1: the second (D1)
	Seq  uint32        // counts over both lines, by one; a gap means that edges were lost. 0 in every edge: not known
	At   time.Duration // of the kernel's monotonic clock (CLOCK_MONOTONIC), in the interrupt
}

// Pair is two lines whose falling edges are read together. One goroutine
// calls Read; any may call the others.
type Pair interface {
	// Read fills buf with the edges that are waiting, in the order in which the
	// kernel queued them: with several processors that is not the order in which
	// they happened, which Seq tells. It waits up to wait for the first (0, nil:
	// none was waiting when it was called, and none came). It fails when the lines
	// are gone, and with ErrClosed when they were closed.
	Read(buf []Edge, wait time.Duration) (int, error)
	// Levels tells which lines are low now. Both rest high.
	Levels() (low [2]bool, err error)
	// Now is the clock that Edge.At is of.
	Now() time.Duration
	// Close gives the lines back and ends a Read that waits. It may be repeated.
	Close() error
}

// PairOptions are the choices that a pair leaves.
type PairOptions struct {
	// Bias is "up" (the chip's own pull-up resistor) or "none" (it is switched
	// off: the line has a resistor of its own). Empty: up.
	Bias string
	// AllowFallback lets a pair be opened by periph if the kernel refuses the
	// request that this package makes: its edges then have no sequence number
	// and the time at which this program saw them.
	AllowFallback bool
}

// OpenPair takes two lines of a chip, by their names, as inputs. The chip goes
// by its label; empty: the board's.
func OpenPair(chip string, d0, d1 string, o PairOptions) (Pair, error) {
	if o.Bias != "" && o.Bias != biasUp && o.Bias != biasNone {
		return nil, fmt.Errorf("bias: %q is neither %q nor %q", o.Bias, biasUp, biasNone)
	}
	if d0 == d1 {
		return nil, fmt.Errorf("d0 and d1 are the same line %q", d0)
	}
	chips, err := Chips()
	if err != nil {
		return nil, err
	}
	c, err := findChip(chips, chip)
	if err != nil {
		return nil, err
	}
	var offsets [2]uint32
	for i, name := range []string{d0, d1} {
		offset, err := c.find(name)
		if err != nil {
			return nil, fmt.Errorf("d%d: %w", i, err)
		}
		offsets[i] = uint32(offset)
	}
	p, err := openKernelPair(c, offsets, o)
	if err == nil {
		return p, nil
	}
	err = fmt.Errorf("lines %q and %q of chip %q: %w", d0, d1, c.Label, err)
	if unsupported := errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOTSUP); !unsupported {
		return nil, err
	}
	if !o.AllowFallback {
		return nil, fmt.Errorf("%w: this kernel does not number edges as is needed; with allow_fallback they are read without numbers", err)
	}
	fallback, ferr := openLineSetPair(c, offsets, o)
	if ferr != nil {
		return nil, errors.Join(err, ferr)
	}
	return fallback, nil
}

// edgeBuffer is how many edges the kernel keeps for a pair: the most that it
// grants. A frame of 37 bits is 37, so that a program that stands still for
// seconds loses none.
const edgeBuffer = 1024

// kernelPair is one line request of two lines. periph throws the kernel's
// timestamps and sequence numbers away and has no way to ask for a larger
// buffer: with them bits that come swapped or not at all are noticed.
type kernelPair struct {
	request *os.File
	closed  atomic.Bool
	offsets [2]uint32
	raw     [64 * eventSize]byte
}

func openKernelPair(c Chip, offsets [2]uint32, o PairOptions) (*kernelPair, error) {
	request := uapi.LineRequest{Lines: 2, EventBufferSize: edgeBuffer}
	request.Offsets[0], request.Offsets[1] = offsets[0], offsets[1]
	request.Config.Flags = uapi.LineFlagV2Input | uapi.LineFlagV2EdgeFalling | uapi.LineFlagV2BiasPullUp
	if o.Bias == biasNone {
		request.Config.Flags ^= uapi.LineFlagV2BiasPullUp | uapi.LineFlagV2BiasDisabled
	}
	f, err := requestLines(c, &request)
	if err != nil {
		return nil, err
	}
	return &kernelPair{request: f, offsets: offsets}, nil
}

func (p *kernelPair) Read(buf []Edge, wait time.Duration) (int, error) {
	n, err := p.read(buf, wait)
	return n, p.unlessClosed(err)
}

func (p *kernelPair) read(buf []Edge, wait time.Duration) (int, error) {
	raw := p.raw[:min(len(buf)*eventSize, len(p.raw))]
	n, err := readNow(p.request, raw)
	if errors.Is(err, unix.EAGAIN) && wait > 0 {
		if err := p.request.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return 0, err
		}
		n, err = p.request.Read(raw)
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		_, err := p.Levels() // some kernels do not wake a reader whose chip has gone
		return 0, err
	case err != nil:
		return 0, err
	}
	return parseEdges(raw[:n], p.offsets, buf)
}

// readNow reads what is waiting, or fails with EAGAIN. A read with a deadline
// that passes before it has begun, as on a busy machine, fails for that though
// edges are waiting: a frame of which the rest was there would seem to be over.
func readNow(file *os.File, into []byte) (n int, err error) {
	err = control(file, func(fd uintptr) (err error) {
		n, err = unix.Read(int(fd), into)
		return err
	})
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

// unlessClosed names the reason of every error after Close.
func (p *kernelPair) unlessClosed(err error) error {
	if err != nil && p.closed.Load() {
		return ErrClosed
	}
	return err
}

// eventSize is the size of the kernel's struct gpio_v2_line_event.
const eventSize = 48

// parseEdges reads the kernel's events into edges, and gives their number.
func parseEdges(raw []byte, offsets [2]uint32, edges []Edge) (int, error) {
	n := 0
	for ; len(raw) >= eventSize && n < len(edges); raw = raw[eventSize:] {
		line := uint8(0)
		switch offset := binary.NativeEndian.Uint32(raw[12:]); offset {
		case offsets[0]:
		case offsets[1]:
			line = 1
		default:
			return n, fmt.Errorf("the kernel told an edge of line %d, which was not asked for", offset)
		}
		edges[n] = Edge{
			Line: line,
			Seq:  binary.NativeEndian.Uint32(raw[16:]),
			At:   time.Duration(binary.NativeEndian.Uint64(raw)),
		}
		n++
	}
	if len(raw) > 0 {
		return n, fmt.Errorf("the kernel told %d bytes too many", len(raw))
	}
	return n, nil
}

func (p *kernelPair) Levels() (low [2]bool, err error) {
	bits, err := lineValues(p.request, 0b11)
	return [2]bool{bits&1 == 0, bits&2 == 0}, p.unlessClosed(err)
}

func (p *kernelPair) Now() time.Duration { return monotonic() }

func (p *kernelPair) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	return p.request.Close()
}

// monotonic is the clock of the kernel's edges.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every Linux has this clock
	}
	return time.Duration(t.Nano())
}

// lineSetPair is the same by periph, without what periph leaves out. It uses
// the kernel's same interface: it is for a kernel that refuses only the buffer
// or the bias.
type lineSetPair struct {
	first int // offset of D0

	mu     sync.Mutex // periph's set must not be closed while somebody uses it
	set    *lineSet
	closed atomic.Bool
}

func openLineSetPair(c Chip, offsets [2]uint32, o PairOptions) (*lineSetPair, error) {
	pull := gpio.PullUp
	if o.Bias == biasNone {
		pull = gpio.PullNoChange
	}
	set, err := openLineSet(c, gpioioctl.LineInput, gpio.FallingEdge, pull, int(offsets[0]), int(offsets[1]))
	if err != nil {
		return nil, err
	}
	return &lineSetPair{set: set, first: int(offsets[0])}, nil
}

func (p *lineSetPair) Read(buf []Edge, wait time.Duration) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	for end := time.Now().Add(wait); ; {
		line, fell, err := p.next(min(time.Until(end), turn))
		switch {
		case err != nil:
			return 0, err
		case fell:
			buf[0] = Edge{At: monotonic()}
			if line != p.first {
				buf[0].Line = 1
			}
			return 1, nil
		case !time.Now().Before(end):
			_, err := p.Levels() // some kernels do not wake a reader whose chip has gone
			return 0, err
		}
	}
}

// next is one wait for an edge.
func (p *lineSetPair) next(d time.Duration) (line int, fell bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return 0, false, ErrClosed
	}
	return p.set.next(d)
}

func (p *lineSetPair) Levels() (low [2]bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return low, ErrClosed
	}
	bits, err := p.set.values()
	return [2]bool{bits&1 == 0, bits&2 == 0}, err
}

func (p *lineSetPair) Now() time.Duration { return monotonic() }

func (p *lineSetPair) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	p.mu.Lock() // a wait ends within a turn
	defer p.mu.Unlock()
	return p.set.Close()
}
