package osdp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/tarm/serial"
)

// Bauds are the protocol's rates; 8 bits, no parity, one stop bit.
var Bauds = []int{9600, 19200, 38400, 57600, 115200, 230400}

// DefaultBaud is the rate of a peripheral that was told no other.
const DefaultBaud = 9600

// Line is a serial line, or what stands for one. One goroutine uses it.
type Line interface {
	// Read waits for at most timeout for bytes and copies those that there are to
	// b. It returns 0, nil when none came, and an error when the line is gone.
	Read(b []byte, timeout time.Duration) (int, error)
	Write(b []byte) (int, error)
	// SetBaud changes the rate; what has not been read is lost.
	SetBaud(baud int) error
	Close() error
}

// ErrLineGone is the error of a line whose other end is gone: a converter that
// was unplugged, a closed pipe.
var ErrLineGone = errors.New("the serial line is gone")

// ErrLineStuck is the error of a serial port that takes no bytes: a converter
// that hangs. It is to be closed.
var ErrLineStuck = errors.New("the serial line takes no bytes")

// NewLine makes a line of anything that reads and writes bytes at a rate of
// its own: a pipe, a connection, a pseudo-terminal. Its SetBaud does nothing.
func NewLine(rw io.ReadWriteCloser) Line { return newStream(rw, 0) }

// serialTimeout is how long a read of a serial port blocks, and so how long
// its closing may take. tarm/serial has no shorter one.
const serialTimeout = 100 * time.Millisecond

// writeTimeout is how long a serial port may take for a frame. The longest takes
// 1.5 s at 9600 baud.
const writeTimeout = 2 * time.Second

// OpenSerial opens a serial port, for example "/dev/ttyUSB0". A converter to
// RS-485 has to switch its direction by itself.
func OpenSerial(name string, baud int) (Line, error) {
	l := &serialLine{name: name}
	if err := l.open(baud); err != nil {
		return nil, err
	}
	return l, nil
}

type serialLine struct {
	name string
	*stream
}

func (l *serialLine) open(baud int) error {
	if !slices.Contains(Bauds, baud) {
		return fmt.Errorf("%d baud is not one of %v", baud, Bauds)
	}
	port, err := serial.OpenPort(&serial.Config{Name: l.name, Baud: baud, ReadTimeout: serialTimeout})
	if err != nil {
		return fmt.Errorf("open serial port %q at %d baud: %w", l.name, baud, err)
	}
	l.stream = newStream(port, serialTimeout)
	return nil
}

// SetBaud opens the port anew, for tarm/serial cannot change an open one.
func (l *serialLine) SetBaud(baud int) error {
	if err := l.Close(); err != nil {
		return err
	}
	return l.open(baud)
}

// stream reads in a goroutine of its own, so that a wait can end at any time,
// which neither a serial port nor a pseudo-terminal can do.
type stream struct {
	rw      io.ReadWriteCloser
	timeout time.Duration // of rw's own Read, which then gives 0 and io.EOF; 0: it has none
	arrived chan struct{} // something is in buf, or err is set
	ended   chan struct{} // the goroutine is no more
	timer   *time.Timer

	mu     sync.Mutex
	buf    []byte
	err    error
	closed bool
	stuck  bool // a write has not ended
}

// maxUnread bounds what a line keeps that nobody reads. What comes after it is
// dropped: the frames in it are asked for again.
const maxUnread = 64 << 10

func newStream(rw io.ReadWriteCloser, timeout time.Duration) *stream {
	s := &stream{rw: rw, timeout: timeout, arrived: make(chan struct{}, 1), ended: make(chan struct{}), timer: time.NewTimer(0)}
	go s.run()
	return s
}

func (s *stream) run() {
	defer close(s.ended)
	b := make([]byte, 1024)
	early := 0
	for {
		start := time.Now()
		n, err := s.rw.Read(b)
		if n == 0 && s.timeout > 0 && (err == nil || errors.Is(err, io.EOF)) {
			// A port that timed out and one that was unplugged say the same; the
			// latter at once.
			err = nil
			if early++; time.Since(start) > s.timeout/2 {
				early = 0
			}
			if early == 3 {
				err = ErrLineGone
			}
		} else if errors.Is(err, io.EOF) {
			err = ErrLineGone
		}
		s.mu.Lock()
		if len(s.buf)+n <= maxUnread {
			s.buf = append(s.buf, b[:n]...)
		}
		clear(b[:n])
		if err != nil && s.err == nil {
			s.err = err
		}
		stop := err != nil || s.closed
		s.mu.Unlock()
		if n > 0 || stop {
			select {
			case s.arrived <- struct{}{}:
			default:
			}
		}
		if stop {
			return
		}
	}
}

func (s *stream) Read(b []byte, timeout time.Duration) (int, error) {
	waiting := timeout > 0
	if waiting {
		s.timer.Reset(timeout)
		defer s.timer.Stop()
	}
	for {
		s.mu.Lock()
		n := copy(b, s.buf)
		left := copy(s.buf, s.buf[n:])
		clear(s.buf[left:]) // a line in clear text carries cards and PINs
		s.buf = s.buf[:left]
		err := s.err
		s.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if err != nil || !waiting {
			return 0, err
		}
		select {
		case <-s.arrived:
		case <-s.timer.C:
			waiting = false
		}
	}
}

// Write sends b. A serial port that takes no bytes is an error; all else that
// does not is closed, which ends the write.
func (s *stream) Write(b []byte) (int, error) {
	if s.timeout == 0 {
		return s.rw.Write(b)
	}
	s.mu.Lock()
	stuck := s.stuck
	s.mu.Unlock()
	if stuck {
		return 0, ErrLineStuck
	}
	own := bytes.Clone(b) // it may outlast this call
	var n int
	var err error
	written := make(chan struct{})
	go func() {
		defer close(written)
		n, err = s.rw.Write(own)
		clear(own)
	}()
	late := time.NewTimer(writeTimeout)
	defer late.Stop()
	select {
	case <-written:
		return n, err
	case <-late.C:
		s.mu.Lock()
		s.stuck = true
		s.mu.Unlock()
		return 0, ErrLineStuck
	}
}

func (s *stream) SetBaud(int) error { return nil }

// Close ends the goroutine first, where its read ends by itself: a serial port
// that is closed under a read hangs, and so does one that is closed under a
// write.
func (s *stream) Close() error {
	s.mu.Lock()
	first, stuck := !s.closed, s.stuck
	s.closed = true
	if s.err == nil {
		s.err = io.ErrClosedPipe
	}
	s.mu.Unlock()
	if !first {
		return nil
	}
	if s.timeout > 0 {
		<-s.ended
		if stuck {
			if f, ok := s.rw.(interface{ Flush() error }); ok {
				f.Flush() // which ends the write, if anything does
			}
			go s.rw.Close()
			return nil
		}
		return s.rw.Close()
	}
	err := s.rw.Close()
	<-s.ended
	return err
}
