package sim

import (
	"os"
	"sync"

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
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	c := &Cable{Name: slave.Name(), master: master, slave: slave, served: make(chan struct{})}
	go func() {
		defer close(c.served)
		m.Serve(master, c.rate)
	}()
	return c, nil
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
