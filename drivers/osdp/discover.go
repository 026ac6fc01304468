package osdp

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Discovery says where Discover looks. Zero values are the defaults.
type Discovery struct {
	Bauds        []int         // Bauds
	Addresses    []byte        // every one from 0; {Broadcast} finds the one peripheral of a line soon
	ReplyTimeout time.Duration // DefaultReplyTimeout
	Checksum     bool          // ask with a checksum, not a CRC
	Mark         bool          // as Config.Mark
}

// Found is a peripheral that answered.
type Found struct {
	Address      byte // as it answered: asked by Broadcast, some answer with that
	Baud         int
	ID           ID
	Capabilities Capabilities // nil: it refused to tell
}

// Discover asks every address at every rate for its identity, in clear text,
// which a peripheral with a key answers too. Nothing else may be on the line
// meanwhile. All of it takes some three minutes. An error ends the search.
func Discover(ctx context.Context, line Line, d Discovery) iter.Seq2[Found, error] {
	if len(d.Bauds) == 0 {
		d.Bauds = Bauds
	}
	if len(d.Addresses) == 0 {
		for a := range byte(MaxAddress + 1) {
			d.Addresses = append(d.Addresses, a)
		}
	}
	return func(yield func(Found, error) bool) {
		for _, baud := range d.Bauds {
			if err := line.SetBaud(baud); err != nil {
				yield(Found{}, err)
				return
			}
			l := &link{line: line, baud: baud, reply: orDefault(d.ReplyTimeout, DefaultReplyTimeout), gap: DefaultGap, mark: d.Mark}
			for _, address := range d.Addresses {
				if err := ctx.Err(); err != nil {
					yield(Found{}, err)
					return
				}
				found, err := l.identify(address, d.Checksum)
				switch {
				case errors.Is(err, errSilent), errors.Is(err, errGarbled), errors.Is(err, ErrUnexpected):
				case err != nil:
					yield(Found{}, err)
					return
				case !yield(found, nil):
					return
				}
			}
		}
	}
}

// identify asks one address. The number 0 has a peripheral that was in another
// panel's session forget it.
func (l *link) identify(address byte, checksum bool) (Found, error) {
	reply, from, err := l.ask(address, 0, checksum, GetID{})
	if err != nil {
		return Found{}, err
	}
	id, ok := reply.(ID)
	if !ok {
		return Found{}, unexpected(CodeID, reply)
	}
	found := Found{Address: from, Baud: l.baud, ID: id}
	reply, _, err = l.ask(address, 1, checksum, GetCapabilities{})
	if err != nil && !errors.Is(err, errSilent) && !errors.Is(err, errGarbled) && !errors.Is(err, ErrUnexpected) {
		return Found{}, err
	}
	found.Capabilities, _ = reply.(Capabilities)
	return found, nil
}

// ask sends a command in clear text, up to three times.
func (l *link) ask(address, number byte, checksum bool, c Command) (reply Reply, from byte, err error) {
	data, err := c.AppendBinary(nil)
	if err != nil {
		return nil, 0, err
	}
	f := Frame{Address: address, Control: Control(number), Code: byte(c.Command()), Data: data}
	if !checksum {
		f.Control |= ControlCRC
	}
	raw, err := f.Bytes()
	if err != nil {
		return nil, 0, err
	}
	for range eager {
		var r Frame
		r, _, err = l.exchange(raw, address, number)
		switch {
		case errors.Is(err, errGarbled):
			continue
		case err != nil:
			return nil, 0, err
		}
		m, err := ParseReply(ReplyCode(r.Code), r.Data)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrUnexpected, err)
		}
		if _, busy := m.(Busy); !busy {
			return m, r.Address, nil
		}
		time.Sleep(busyPause)
	}
	if err == nil {
		err = errSilent
	}
	return nil, 0, err
}
