package sim

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// Cable is a pseudo-terminal with a module at its far end. It tells at what
// rate the near end was opened, and passes no byte between different ones, but
// is as fast as the machine.
type Cable struct {
	Name string // to open, for example "/dev/pts/3"

	master, slave *os.File
	served        chan struct{}
	unplug        sync.Once
}

// Plug makes one.
func Plug(m *Module) (*Cable, error) {
	return plug(m, func(c *Cable) io.ReadWriter { return c.master })
}

// PlugPaced makes one that is as slow as a wire at its rate.
func PlugPaced(m *Module) (*Cable, error) {
	return plug(m, func(c *Cable) io.ReadWriter { return paced{c} })
}

func plug(m *Module, far func(*Cable) io.ReadWriter) (*Cable, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	c := &Cable{Name: slave.Name(), master: master, slave: slave, served: make(chan struct{})}
	go func() {
		defer close(c.served)
		m.Serve(far(c), c.rate)
	}()
	return c, nil
}

// paced is the far end of a cable on which a byte takes 10 bits' time.
type paced struct{ *Cable }

func (p paced) Read(b []byte) (int, error) {
	n, err := p.master.Read(b)
	p.pace(n)
	return n, err
}

func (p paced) Write(b []byte) (int, error) {
	p.pace(len(b))
	return p.master.Write(b)
}

// pace waits by the kernel's clock: Go's is off by up to a millisecond.
func (p paced) pace(n int) {
	left := unix.NsecToTimespec(int64(n) * int64(10*time.Second) / int64(max(p.rate(), 300)))
	for unix.Nanosleep(&left, &left) == unix.EINTR {
	}
}

var rates = map[uint32]int{
	unix.B9600: 9600, unix.B19200: 19200, unix.B38400: 38400, unix.B57600: 57600, unix.B115200: 115200,
	unix.B230400: 230400, unix.B460800: 460800, unix.B921600: 921600,
}

// rate is that of the near end, -1 if no module has it.
func (c *Cable) rate() int {
	raw, err := c.master.SyscallConn()
	if err != nil {
		return -1
	}
	rate := -1
	raw.Control(func(fd uintptr) {
		if t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil {
			if r, ok := rates[t.Cflag&unix.CBAUD]; ok {
				rate = r
			}
		}
	})
	return rate
}

// Unplug hangs up: whoever has the near end open is told that the line is
// gone.
func (c *Cable) Unplug() {
	c.unplug.Do(func() {
		c.master.Close()
		c.slave.Close()
		<-c.served
	})
}
