package gpio

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/warthog618/go-gpiocdev/uapi"
	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/driver/driverreg"
	"periph.io/x/conn/v3/gpio"
	"periph.io/x/host/v3/gpioioctl"
)

// turn is how long one wait for an edge lasts: a wait of periph's cannot be
// ended safely from outside, and does not end when the chip goes away.
const turn = 100 * time.Millisecond

// machine is what the driver asks of the kernel. Lines go by their offset in
// the chip.
type machine interface {
	chips() ([]Chip, error)
	// output makes a line an output whose first level is first, with no other
	// before it. When the line is released, by whatever way the program ends, it
	// is pulled to that level as far as the chip can.
	output(c Chip, line int, first bool) (output, error)
	// input makes a line an input.
	input(c Chip, line int, bias string) (input, error)
}

// output is a line that this program drives. High is true.
type output interface {
	Set(high bool) error
	Level() (high bool, err error)
	Close() error
}

// input is a line that this program reads. High is true. Nobody may be in
// Wait when it is closed.
type input interface {
	Level() (high bool, err error)
	// Wait waits up to d for an edge and reports whether there was one.
	Wait(d time.Duration) (edge bool, err error)
	Close() error
}

// kernel is the machine that this program runs on.
type kernel struct{}

func (kernel) chips() ([]Chip, error) { return Chips() }

func (kernel) output(c Chip, line int, first bool) (output, error) {
	if first {
		return openRaised(c, line)
	}
	return openLineSet(c, gpioioctl.LineOutput, gpio.NoEdge, gpio.PullDown, line)
}

func (kernel) input(c Chip, line int, bias string) (input, error) {
	pull := map[string]gpio.Pull{biasUp: gpio.PullUp, biasDown: gpio.PullDown, biasNone: gpio.PullNoChange}[bias]
	return openLineSet(c, gpioioctl.LineInput, gpio.BothEdges, pull, line)
}

// lineSet is lines in periph's hands. Of periph only its LineSet is used: a
// pin of its own is turned into an input by reading it back, and reads as low
// when its chip is gone.
type lineSet struct{ *gpioioctl.LineSet }

func openLineSet(c Chip, direction gpioioctl.LineDir, edge gpio.Edge, pull gpio.Pull, lines ...int) (*lineSet, error) {
	chip, err := periphChip(c)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range lines {
		names = append(names, chip.ByNumber(i).Name()) // periph renames lines whose name another chip has too
	}
	set, err := chip.LineSet(direction, edge, pull, names...)
	if err != nil {
		return nil, err
	}
	return &lineSet{set}, nil
}

func (l *lineSet) values() (uint64, error) {
	v, err := l.Read(0) // of all lines
	return uint64(v), err
}

func (l *lineSet) Level() (bool, error) {
	v, err := l.values()
	return v != 0, err
}

func (l *lineSet) Set(high bool) error {
	var v gpio.GPIOValue
	if high {
		v = 1
	}
	return l.Out(v, 0) // all lines
}

func (l *lineSet) Wait(d time.Duration) (bool, error) {
	_, edge, err := l.next(d)
	return edge, err
}

// next waits for an edge and gives the offset of its line. Neither 0 nor less
// may reach periph: 0 means for ever to it.
func (l *lineSet) next(d time.Duration) (line int, edge bool, err error) {
	line, _, err = l.WaitForEdge(max(d, time.Millisecond))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, false, nil
	}
	return line, err == nil, err
}

// periphChip finds a chip among those that periph opened, which it does once
// and for good.
func periphChip(c Chip) (*gpioioctl.GPIOChip, error) {
	if err := startPeriph(); err != nil {
		return nil, err
	}
	for _, known := range gpioioctl.Chips {
		if known.Name() == c.Name && known.Label() == c.Label && known.LineCount() == len(c.Lines) {
			return known, nil
		}
	}
	return nil, fmt.Errorf("chip %q came after this program had started: start it again", c.Label)
}

// startPeriph opens all chips. Chips has looked at each of them before: one
// that does not answer would be closed by periph twice, at any later time, by
// which its number may be another file's.
var startPeriph = sync.OnceValue(func() error {
	state, err := driverreg.Init()
	if err != nil {
		return fmt.Errorf("periph: %w", err)
	}
	for _, f := range append(state.Failed, state.Skipped...) {
		return fmt.Errorf("periph: %s: %w", f.D, f.Err)
	}
	// For a second name of a chip periph closes file 0 (periph/host#70), and
	// would take a line that then gets that number for one it does not hold. It
	// also closes that chip's file twice in a row, with nothing in between: a
	// file that another goroutine opens in that very moment is lost.
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if fd > 2 {
			return unix.Close(fd)
		}
	}
})

// raised is an output whose first level is high. periph has no way to say
// that level in its request (its getLineSetRequestStruct leaves the values
// out), so that it drives low first, and a relay that is active low, or a
// magnet that holds the door, would let go for a moment.
type raised struct{ request *os.File }

func openRaised(c Chip, line int) (*raised, error) {
	request := uapi.LineRequest{Lines: 1}
	request.Offsets[0] = uint32(line)
	request.Config.Flags = uapi.LineFlagV2Output | uapi.LineFlagV2BiasPullUp
	request.Config.AddAttribute(uapi.LineConfigAttribute{Attr: uapi.OutputValues(1).Encode(), Mask: 1})
	f, err := requestLines(c, &request)
	if err != nil {
		return nil, err
	}
	return &raised{f}, nil
}

func (r *raised) Set(high bool) error {
	values := uapi.LineValues{Mask: 1}
	if high {
		values.Bits = 1
	}
	return control(r.request, func(fd uintptr) error { return uapi.SetLineValuesV2(fd, values) })
}

func (r *raised) Level() (bool, error) {
	v, err := lineValues(r.request, 1)
	return v != 0, err
}

func (r *raised) Close() error { return r.request.Close() }

// requestLines asks a chip for lines. The file ends a read by a deadline or by
// being closed.
func requestLines(c Chip, request *uapi.LineRequest) (*os.File, error) {
	copy(request.Consumer[:], consumer())
	chip, err := os.Open(c.path)
	if err != nil {
		return nil, err
	}
	defer chip.Close()
	if err := uapi.GetLine(chip.Fd(), request); err != nil {
		return nil, err
	}
	fd := int(request.Fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), c.Name+" lines"), nil
}

func lineValues(f *os.File, mask uapi.LineBitmap) (uapi.LineBitmap, error) {
	values := uapi.LineValues{Mask: mask}
	err := control(f, func(fd uintptr) error { return uapi.GetLineValuesV2(fd, &values) })
	return values.Bits, err
}

// control calls f with a file's number, which stays the file's meanwhile. (Fd
// would end its deadlines.)
func control(file *os.File, f func(fd uintptr) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(fd) }); err != nil {
		return err
	}
	return ferr
}
