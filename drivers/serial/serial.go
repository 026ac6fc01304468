package serial

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tarm/serial"
)

var (
	// ErrGone means that the other end of the line is gone, such as a converter
	// that was unplugged. Close the port, and open it again when it is back.
	ErrGone = errors.New("serial: the line is gone: look for the converter, and open it again")
	// ErrStuck means that bytes do not leave: what is to send them does not. Close
	// the port.
	ErrStuck = errors.New("serial: the line takes no bytes: close it, and open it again")
	// ErrClosed means that the port was closed here.
	ErrClosed = errors.New("serial: the port is closed")
)

const (
	// step is how long a read of tarm/serial blocks, and so how long Close may
	// take. It has no shorter one.
	step = 100 * time.Millisecond
	// earlyEnds is how many reads in a row must end well before the step is over
	// until the line counts as gone: tarm/serial says the same for both, and one
	// read may be early for a signal.
	earlyEnds = 3
	// grace is how much longer than the wire needs a write may take.
	grace = time.Second
	// unread bounds what is kept that nobody reads. What comes after it is dropped;
	// the checksums of what is cut say so.
	unread = 16 << 10
)

// port is what tarm/serial's is here.
type port interface {
	io.ReadWriteCloser
	Flush() error
}

// Port is an open serial port: 8 bits, no parity, one stop bit. One goroutine
// reads, writes and sets the rate; Close may be called from any.
type Port struct {
	name string

	mu     sync.Mutex
	baud   int
	open   *opened
	closed bool
}

// Open opens a serial port, for example "/dev/serial0", which nobody else here
// may have open: that is ErrHeld. tarm/serial knows the usual rates from 50 to
// 4,000,000.
func Open(name string, baud int) (*Port, error) {
	o, err := open(name, baud)
	if err != nil {
		return nil, err
	}
	return &Port{name: name, baud: baud, open: o}, nil
}

// Read waits for at most timeout for bytes and copies those that there are to
// b. It returns 0, nil when none came, and an error when the line is gone.
func (p *Port) Read(b []byte, timeout time.Duration) (int, error) {
	_, o, err := p.current()
	if err != nil {
		return 0, err
	}
	return o.read(b, timeout)
}

// Write sends b and returns when the kernel has taken it.
func (p *Port) Write(b []byte) (int, error) {
	baud, o, err := p.current()
	if err != nil {
		return 0, err
	}
	return o.write(b, grace+time.Duration(len(b))*10*time.Second/time.Duration(baud))
}

// SetBaud changes the rate; what has not been read is lost. After an error the
// port is closed.
func (p *Port) SetBaud(baud int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	// tarm/serial cannot change an open port.
	err := p.open.close()
	if err == nil {
		var o *opened
		if o, err = open(p.name, baud); err == nil {
			p.baud, p.open = baud, o
			return nil
		}
	}
	p.closed = true
	return err
}

// Close ends a Read that waits, within a little more than 100 ms.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.open.close()
}

func (p *Port) current() (int, *opened, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, nil, ErrClosed
	}
	return p.baud, p.open, nil
}

// opened is a port at one rate. It reads in a goroutine of its own, so that a
// wait can end at any time.
type opened struct {
	held    io.Closer
	port    port
	arrived chan struct{} // something is in buf, or err is set
	ended   chan struct{} // the goroutine is no more

	mu     sync.Mutex
	buf    [unread]byte // of one size: no copies of what was in it are left about
	n      int
	err    error
	closed bool
	stuck  bool
}

func open(name string, baud int) (*opened, error) {
	if baud <= 0 {
		return nil, fmt.Errorf("serial: open %q: %d is no rate", name, baud)
	}
	held, err := hold(name)
	if err != nil {
		return nil, err
	}
	port, err := serial.OpenPort(&serial.Config{Name: name, Baud: baud, ReadTimeout: step})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serial: open %q at %d baud: %w", name, baud, err), held.Close())
	}
	o := &opened{held: held, port: port, arrived: make(chan struct{}, 1), ended: make(chan struct{})}
	go o.run()
	return o, nil
}

func (o *opened) run() {
	defer close(o.ended)
	b := make([]byte, 1024)
	early := 0
	for {
		start := time.Now()
		n, err := o.port.Read(b)
		switch {
		case n > 0:
			early, err = 0, nil
		case err == nil || errors.Is(err, io.EOF):
			err = nil
			if early++; time.Since(start) > step/2 {
				early = 0
			}
			if early == earlyEnds {
				err = ErrGone
			}
		default:
			err = fmt.Errorf("%w (%w)", ErrGone, err)
		}
		o.mu.Lock()
		o.n += copy(o.buf[o.n:], b[:n])
		if o.err == nil {
			o.err = err
		}
		stop := err != nil || o.closed
		o.mu.Unlock()
		clear(b[:n])
		if n > 0 || stop {
			o.signal()
		}
		if stop {
			return
		}
	}
}

func (o *opened) signal() {
	select {
	case o.arrived <- struct{}{}:
	default:
	}
}

func (o *opened) read(b []byte, timeout time.Duration) (int, error) {
	var late <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	for waiting := timeout > 0; ; {
		n, err := o.take(b)
		if n > 0 || err != nil || !waiting {
			return n, err
		}
		select {
		case <-o.arrived:
		case <-late:
			waiting = false
		}
	}
}

// take moves what has arrived to b and leaves no copy.
func (o *opened) take(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := copy(b, o.buf[:o.n])
	if n == 0 {
		return 0, o.err
	}
	copy(o.buf[:], o.buf[n:o.n])
	clear(o.buf[o.n-n : o.n])
	o.n -= n
	return n, nil
}

func (o *opened) write(b []byte, limit time.Duration) (int, error) {
	o.mu.Lock()
	err, stuck := o.err, o.stuck
	o.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if stuck {
		return 0, ErrStuck
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	own := bytes.Clone(b) // may outlast this call, and b is the caller's to clear
	go func() {
		n, err := o.port.Write(own)
		clear(own)
		done <- result{n, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-done:
		if r.err != nil {
			r.err = fmt.Errorf("%w (%w)", ErrGone, r.err)
		}
		return r.n, r.err
	case <-timer.C:
		o.mu.Lock()
		o.stuck = true
		o.mu.Unlock()
		return 0, ErrStuck
	}
}

// close ends the goroutine first, whose read ends by itself: a port that is
// closed under a read hangs, and so does one that is closed under a write.
func (o *opened) close() error {
	o.mu.Lock()
	o.closed = true
	if o.err == nil {
		o.err = ErrClosed
	}
	stuck := o.stuck
	o.mu.Unlock()
	o.signal()
	<-o.ended
	o.mu.Lock()
	clear(o.buf[:o.n])
	o.n = 0
	o.mu.Unlock()
	if stuck {
		o.port.Flush()
		go o.port.Close() // when the write ends, which nothing here can hasten
		return o.held.Close()
	}
	return errors.Join(o.port.Close(), o.held.Close())
}
