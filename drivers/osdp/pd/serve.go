package pd

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
)

// Wire describes the line that peripherals are on.
type Wire struct {
	// Baud makes the line as slow as a real one; 0: it takes no time.
	Baud int
	// Rate is the rate at which the panel speaks: peripherals that are set to
	// another one do not understand it. nil: they all do.
	Rate func() int
	// Sleep is time.Sleep, unless something more precise is wanted.
	Sleep func(time.Duration)
}

// Serve puts peripherals on a line, until reading from it fails: close rw to
// end it. Two peripherals with one address disturb each other.
func Serve(rw io.ReadWriter, w Wire, peripherals ...*Peripheral) error {
	if w.Sleep == nil {
		w.Sleep = time.Sleep
	}
	var d osdp.Decoder
	b := make([]byte, 2*osdp.MaxFrame)
	last := time.Now()
	for {
		n, err := rw.Read(b)
		if err != nil {
			return err
		}
		now := time.Now()
		if d.Waiting() && now.Sub(last) > osdp.DefaultGap {
			d.Reset() // the rest of it does not come any more
		}
		last = now
		d.Write(b[:n])
		for {
			f, raw, ok := d.Next(false)
			if !ok {
				break
			}
			out, after := w.answer(f, raw, peripherals)
			if out == nil {
				continue
			}
			if w.Baud > 0 {
				// The command was on the line for a time, and so is the reply.
				after += time.Duration(len(raw)+len(out)) * 10 * time.Second / time.Duration(w.Baud)
				after -= time.Since(now)
			}
			if after > 0 {
				w.Sleep(after)
			}
			if _, err := rw.Write(out); err != nil {
				return err
			}
		}
	}
}

// answer gives what all peripherals together put on the line.
func (w Wire) answer(f osdp.Frame, raw []byte, peripherals []*Peripheral) (out []byte, after time.Duration) {
	rate := 0
	if w.Rate != nil {
		rate = w.Rate()
	}
	for _, p := range peripherals {
		reply, late := p.receive(f, raw, rate)
		after = max(after, late)
		if out == nil {
			out = reply
			continue
		}
		// The line is what both pull it to.
		for i := range min(len(out), len(reply)) {
			out[i] &= reply[i]
		}
		if len(reply) > len(out) {
			out = append(out, reply[len(out):]...)
		}
	}
	return out, after
}

// NewLine is a line in memory with peripherals on it, at the rate that the
// panel opens it with: what osdp.Config.Open is to give. Wire.Rate is not used.
func NewLine(w Wire, baud int, peripherals ...*Peripheral) osdp.Line {
	panel, far := net.Pipe()
	l := &line{Line: osdp.NewLine(panel), far: far, served: make(chan struct{})}
	l.rate.Store(int64(baud))
	w.Rate = func() int { return int(l.rate.Load()) }
	go func() {
		defer close(l.served)
		Serve(far, w, peripherals...)
	}()
	return l
}

type line struct {
	osdp.Line
	far    net.Conn
	rate   atomic.Int64
	served chan struct{}
}

func (l *line) SetBaud(baud int) error {
	l.rate.Store(int64(baud))
	return nil
}

func (l *line) Close() error {
	l.far.Close()
	err := l.Line.Close()
	<-l.served
	return err
}
