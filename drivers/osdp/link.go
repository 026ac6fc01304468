package osdp

import (
	"errors"
	"time"
)

// The protocol's times.
const (
	// DefaultReplyTimeout is how long a peripheral may take to begin its reply,
	// once the command has gone out.
	DefaultReplyTimeout = 200 * time.Millisecond
	// DefaultGap is the longest silence between two bytes of a frame.
	DefaultGap = 20 * time.Millisecond
	// OfflineAfter is the silence after which either side takes the other for
	// gone, and the Secure Channel for over.
	OfflineAfter = 8 * time.Second
)

var (
	errSilent  = errors.New("no reply in time")
	errGarbled = errors.New("the reply was garbled")
	errBusy    = errors.New("it asks for patience, and nothing else")
)

// link is a line with one command on it at a time.
type link struct {
	line       Line
	baud       int
	reply, gap time.Duration
	mark       bool
	decoder    Decoder
	buf        [512]byte
}

// wire is the time that n bytes take: a start bit, eight bits, a stop bit each.
func (l *link) wire(n int) time.Duration {
	return time.Duration(n) * 10 * time.Second / time.Duration(l.baud)
}

// exchange sends a command and waits for the reply with its number, or for one
// with the number 0 (a Busy, or a peripheral that began anew). An echo of the
// command, other panels' commands, other peripherals' replies and late replies
// to other numbers are passed over. Besides errSilent and errGarbled, an error
// is the line's.
func (l *link) exchange(command []byte, address, number byte) (Frame, []byte, error) {
	if err := l.drain(); err != nil {
		return Frame{}, nil, err
	}
	if l.mark {
		command = append([]byte{markByte}, command...)
	}
	if _, err := l.line.Write(command); err != nil {
		return Frame{}, nil, err
	}
	broken := l.decoder.Broken
	begin := time.Now().Add(l.wire(len(command)) + l.reply) // until then
	end := begin.Add(l.wire(MaxFrame))                      // however much is said
	for {
		now := time.Now()
		wait := begin.Sub(now)
		begun := l.decoder.Waiting() || l.decoder.Broken > broken
		switch {
		case begun:
			wait = l.gap
		case wait <= 0:
			return Frame{}, nil, errSilent
		}
		if now.After(end) {
			return Frame{}, nil, errGarbled
		}
		n, err := l.line.Read(l.buf[:], wait)
		if err != nil {
			return Frame{}, nil, err
		}
		l.decoder.Write(l.buf[:n])
		clear(l.buf[:n])
		for {
			f, raw, ok := l.decoder.Next(n == 0)
			if !ok {
				break
			}
			ours := f.Reply && (f.Address == address || address == Broadcast)
			if s := f.Control.Sequence(); ours && (s == number || s == 0) {
				return f, raw, nil
			}
		}
		// Nothing follows what was broken: it can be asked for again at once.
		if n == 0 && l.decoder.Broken > broken {
			return Frame{}, nil, errGarbled
		}
	}
}

// drain drops what came unasked.
func (l *link) drain() error {
	l.decoder.Reset()
	for range maxUnread / len(l.buf) {
		n, err := l.line.Read(l.buf[:], 0)
		if n == 0 {
			return err
		}
	}
	return nil // it never stops: the command goes out all the same
}
