package mqtt

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// conn is the network connection under the client library. It gives each write
// a deadline, tells at once when the connection has failed (the library keeps
// some failures to itself until the next ping), and lets in only packets that
// the library can bear.
type conn struct {
	net.Conn
	writeTimeout time.Duration
	frames       frames
	failed       func(error)
	closed       atomic.Bool
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bad := c.frames.check(p[:n]); bad != nil {
		n, err = 0, bad
	}
	c.tell(err)
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
		c.tell(err)
		return 0, err
	}
	n, err := c.Conn.Write(p)
	c.tell(err)
	return n, err
}

func (c *conn) tell(err error) {
	if err != nil && !c.closed.Load() {
		c.failed(err)
	}
}

func (c *conn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// Packet types that a broker may send to this client (MQTT 3.1.1, 2.2.1).
const (
	typeConnack    = 2
	typePublish    = 3
	typePuback     = 4
	typeSuback     = 9
	typePingresp   = 13
	typeDisconnect = 14 // not in 3.1.1, but some brokers say it before they close
)

// frames follows the packet boundaries of a stream of bytes and refuses a
// packet by its fixed header. The library would allocate up to 256 MB on a
// length it is told, and panics on a SUBACK with more codes than it asked for.
type frames struct {
	max           int // bytes of a packet's body
	subscriptions int // topics in the one SUBSCRIBE

	header byte
	state  frameState
	length int // of the body, as far as it is read
	shift  int
	left   int // bytes of the body to come
}

type frameState byte

const (
	atHeader frameState = iota
	atLength
	atBody
)

func (f *frames) check(p []byte) error {
	for len(p) > 0 {
		switch f.state {
		case atHeader:
			f.header, p = p[0], p[1:]
			f.state, f.length, f.shift = atLength, 0, 0
		case atLength:
			b := p[0]
			p = p[1:]
			f.length |= int(b&0x7f) << f.shift
			f.shift += 7
			if b&0x80 != 0 {
				if f.shift > 21 {
					return fmt.Errorf("packet %#02x: length of more than four bytes", f.header)
				}
				continue
			}
			if err := f.allow(); err != nil {
				return err
			}
			f.left, f.state = f.length, atBody
			if f.left == 0 {
				f.state = atHeader
			}
		case atBody:
			n := min(f.left, len(p))
			p, f.left = p[n:], f.left-n
			if f.left == 0 {
				f.state = atHeader
			}
		}
	}
	return nil
}

// allow judges a packet by its first byte and its length.
func (f *frames) allow() error {
	flags := f.header & 0x0f
	want := 0
	switch f.header >> 4 {
	case typePublish:
		if qos := flags >> 1 & 3; qos > 1 {
			return fmt.Errorf("publish with QoS %d from the broker: at most 1 was asked for", qos)
		}
		if f.length > f.max {
			return fmt.Errorf("publish of %d bytes from the broker: more than %d", f.length, f.max)
		}
		return nil
	case typeConnack, typePuback:
		want = 2
	case typeSuback:
		want = 2 + f.subscriptions
	case typePingresp, typeDisconnect:
	default:
		return fmt.Errorf("unexpected packet %#02x from the broker", f.header)
	}
	if flags != 0 || f.length != want {
		return fmt.Errorf("malformed packet %#02x of %d bytes from the broker", f.header, f.length)
	}
	return nil
}
