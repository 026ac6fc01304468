package serial

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrHeld means that another program has the port open: the daemon, or a
// command that speaks on the same line. Two on one line spoil it for each other.
var ErrHeld = errors.New("serial: another program uses the port, such as the daemon: end that first")

// held keeps a port for one program until it is closed. It is a flock of the
// device, which programs that ask nobody do not heed.
type held struct{ *os.File }

// Close lets the next one have the port at once, though a process that is just
// being started may have a copy of the file.
func (h held) Close() error {
	return errors.Join(unix.Flock(int(h.Fd()), unix.LOCK_UN), h.File.Close())
}

func hold(name string) (held, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return held{}, fmt.Errorf("serial: open %q: %w", name, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return held{}, fmt.Errorf("%w: %q", ErrHeld, name)
		}
		return held{}, fmt.Errorf("serial: hold %q: %w", name, err)
	}
	return held{f}, nil
}
