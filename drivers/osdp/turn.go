package osdp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"
)

var errRestarted = errors.New("the peripheral began anew by itself")

// prepare makes the next command.
func (p *Peripheral) prepare(now time.Time) *outgoing {
	for {
		out := &outgoing{number: p.number}
		out.command, out.job = p.choose(now)
		f, err := p.frame(out)
		if err == nil && p.session != nil && p.step == stepReady {
			out.raw, err = p.session.Seal(f)
		} else if err == nil {
			out.raw, err = f.Bytes()
		}
		clear(f.Data)
		if err == nil {
			return out
		}
		// Only a command from outside can be wrong.
		out.job.finish(nil, err)
	}
}

// frame makes a command's frame, still in clear text.
func (p *Peripheral) frame(out *outgoing) (Frame, error) {
	f := Frame{Address: p.Address(), Control: Control(out.number), Code: byte(out.command.Command())}
	if !p.config.Checksum {
		f.Control |= ControlCRC
	}
	var err error
	if f.Data, err = out.command.AppendBinary(nil); err != nil {
		return f, err
	}
	switch p.step {
	case stepChallenge:
		f.Block = []byte{blockChallenge, p.keyKind()}
	case stepCryptogram:
		f.Block = []byte{blockServerCryptogram, p.keyKind()}
	}
	size := f.size()
	if p.session != nil && p.step == stepReady {
		size = sealedSize(f)
	}
	if most := p.status.Capabilities.ReceiveSize(); out.job != nil && most > 0 && size > most {
		return f, fmt.Errorf("%w: %v has %d bytes, and the buffer %d", ErrTooLong, out.command.Command(), size, most)
	}
	if set, ok := out.command.(SetKey); ok {
		// From here on the peripheral may have it, whatever happens to us.
		return f, p.config.Keys.Begin(set.Key)
	}
	return f, nil
}

// sealedSize is the length of a frame's sealed form.
func sealedSize(f Frame) int {
	f.Block = []byte{blockCommandMAC}
	if len(f.Data) > 0 {
		f.Block[0] = blockCommandData
		f.Data = make([]byte, (len(f.Data)/16+1)*16)
	}
	return f.size()
}

// choose finds what to ask next.
func (p *Peripheral) choose(now time.Time) (Command, *job) {
	switch p.step {
	case stepID:
		return GetID{}, nil
	case stepCapabilities:
		return GetCapabilities{}, nil
	case stepChallenge:
		rand.Read(p.random[:])
		return Challenge{p.random}, nil
	case stepCryptogram:
		return ServerCryptogram{p.session.ServerCryptogram()}, nil
	case stepClearText:
		return Poll{}, nil
	}
	if len(p.initial) > 0 {
		c := p.initial[0]
		p.initial = p.initial[1:]
		return c, nil
	}
	// Commands go before polls, but not for long.
	if !p.commanded || now.Sub(p.polled) < pollAtLeast {
		if j := p.nextJob(now); j != nil {
			p.commanded = true
			return j.command, j
		}
	}
	p.polled, p.commanded = now, false
	return Poll{}, nil
}

// nextJob takes the next command from the queue. On the default key that is the
// new key and nothing else.
func (p *Peripheral) nextJob(now time.Time) *job {
	if p.abandoned != 0 && now.After(p.forget) {
		p.abandoned, p.aborted = 0, false
	}
	for i := 0; i < len(p.queue); {
		j := p.queue[i]
		if p.install != j.install || j.later != 0 && p.aborted {
			i++
			continue
		}
		p.queue = slices.Delete(p.queue, i, i+1)
		if j.later != 0 && p.abandoned != 0 {
			j.finish(nil, ErrScanPending)
			continue
		}
		return j
	}
	return nil
}

// noReply reports whether the line is well and nothing came that counts.
func noReply(err error) bool {
	return errors.Is(err, errSilent) || errors.Is(err, errGarbled) || errors.Is(err, errBusy)
}

// isBusy reports whether a reply asks for patience. It comes in clear text,
// within a Secure Channel too.
func isBusy(f Frame) bool { return ReplyCode(f.Code) == CodeBUSY && f.Block == nil }

// unanswered deals with silence, with noise, or with too much patience asked.
func (p *Peripheral) unanswered(now time.Time, why error) {
	p.misses++
	p.due = now
	p.count(func(c *Counters) {
		switch {
		case errors.Is(why, errGarbled):
			c.Garbled++
		case errors.Is(why, errBusy):
			c.Busy++
		default:
			c.Silent++
		}
	})
	switch {
	case p.status.State == Offline:
		p.out = nil // begin with a fresh number when it comes back
		p.number = 0
		if !noReply(p.status.Err) {
			p.set(now, Offline, because(ErrOffline, why))
		}
	case now.Sub(p.status.Heard) >= OfflineAfter:
		misses := p.misses
		p.offline(fmt.Errorf("%w: %w", ErrOffline, why))
		p.misses = misses
	}
}

// answered deals with a reply.
func (p *Peripheral) answered(start, now time.Time, f Frame, raw []byte) {
	p.misses = 0
	p.due = now
	if isBusy(f) {
		p.count(func(c *Counters) { c.Busy++ })
		p.due = now.Add(busyPause)
		return
	}
	p.mu.Lock()
	p.status.Heard = now
	p.mu.Unlock()
	if p.status.State == Offline {
		p.set(now, Starting, nil)
	}
	code, number := ReplyCode(f.Code), f.Control.Sequence()
	established := p.session != nil && p.step == stepReady
	if established {
		opened, err := p.open(f, raw)
		if err != nil {
			p.lose(now, err)
			return
		}
		f = opened
	}
	if !established && hasMAC(f.Block) {
		p.unsecure(now, fmt.Errorf("%w: a frame of a Secure Channel that does not exist", ErrUnexpected))
		return
	}
	if number != p.out.number {
		p.restart(now, errRestarted)
		p.due = now.Add(lossPause)
		return
	}
	p.count(func(c *Counters) { c.Replies++ })
	p.number = p.number%3 + 1
	out := p.out
	p.out = nil
	reply, whole, err := p.parse(f)
	clear(f.Data)
	switch {
	case err != nil:
		p.count(func(c *Counters) { c.Malformed++ })
		if p.step != stepReady {
			p.unsecure(now, err)
			return
		}
		if !p.install {
			p.tell(Event{At: now, State: p.status.State, Err: err})
		}
		out.job.finish(nil, err)
		if isMultiPart(f) {
			p.waiting.finish(nil, err)
			p.waiting = nil
		}
	case !whole:
		// The rest comes when it is polled.
		switch {
		case out.job != nil && p.waiting != nil:
			p.parts.Reset()
			out.job.finish(nil, ErrScanPending)
		case out.job != nil:
			out.job.later = code
			p.waiting = out.job
		}
	case p.step == stepReady:
		p.ready(now, out, reply)
	default:
		p.start(now, out, f, reply)
	}
	p.pace(start, now, out, reply)
}

// open verifies and decrypts a reply within the Secure Channel.
func (p *Peripheral) open(f Frame, raw []byte) (Frame, error) {
	if f.Block != nil {
		return p.session.Open(raw)
	}
	if m, err := ParseReply(ReplyCode(f.Code), f.Data); err == nil {
		if nak, ok := m.(NAK); ok {
			return Frame{}, nak // it has lost the session
		}
	}
	return Frame{}, ErrClear
}

// parse reads a reply, which may be one part of it.
func (p *Peripheral) parse(f Frame) (r Reply, whole bool, err error) {
	if !isMultiPart(f) {
		r, err = ParseReply(ReplyCode(f.Code), f.Data)
		return r, true, err
	}
	part, err := ParseFragment(f.Data)
	if err != nil {
		return nil, false, err
	}
	message, done, err := p.parts.Add(part)
	if err != nil || !done {
		return nil, false, err
	}
	r, err = ParseReply(ReplyCode(f.Code), message)
	clear(message)
	return r, true, err
}

// pace says when the peripheral has its next turn.
func (p *Peripheral) pace(start, now time.Time, out *outgoing, reply Reply) {
	_, polled := out.command.(Poll)
	_, nothing := reply.(ACK)
	switch {
	case p.step != stepReady, len(p.initial) > 0, p.due.After(now):
	case reply == nil, len(p.queue) > 0, polled && !nothing:
	default:
		p.due = start.Add(p.bus.config.PollEvery)
	}
}

// ready deals with a reply of a peripheral that works.
func (p *Peripheral) ready(now time.Time, out *outgoing, reply Reply) {
	code := reply.Reply()
	nak, refused := reply.(NAK)
	if refused && p.session == nil && (nak.Code == NAKSecurity || nak.Code == NAKSequence) {
		// It wants what was not configured, or has begun anew.
		out.job.finish(nil, nak)
		if nak.Code == NAKSecurity {
			p.unsecure(now, nak)
		} else {
			p.restart(now, nak)
		}
		return
	}
	p.settle(out.command, code)
	j := out.job
	switch {
	case p.install:
		if _, ok := out.command.(SetKey); !ok {
			return // nothing that came under the default key counts
		}
	case p.waiting != nil && code == p.waiting.later:
		p.waiting.finish(reply, nil)
		p.waiting = nil
		if j == nil {
			return
		}
	case j == nil && p.abandoned != 0 && code == p.abandoned:
		p.abandoned = 0
		forget(reply)
		return
	}
	if j == nil {
		if code != CodeACK && !refused {
			p.tell(Event{At: now, Reply: reply, State: p.status.State})
		}
		return
	}
	switch command := out.command.(type) {
	case SetKey:
		if code == CodeACK {
			// It has the new key and drops the session.
			p.install, p.useNext = false, true
			p.restart(now, nil)
		}
	case SetComm:
		if comm, ok := reply.(Comm); ok {
			p.moved(now, command, comm, j.park)
		}
	}
	switch {
	case refused:
		j.finish(nil, nak)
	case j.later != 0 && code == CodeACK && j.dropped:
		p.abandon(j.later)
		p.abort()
	case j.later != 0 && code == CodeACK:
		p.waiting = j
	default:
		j.finish(reply, nil)
	}
}

// moved follows a peripheral to its new address, and parks it when it goes over
// to a new rate: the line follows when all have gone.
func (p *Peripheral) moved(now time.Time, c SetComm, comm Comm, park bool) {
	if comm.Address <= MaxAddress {
		p.mu.Lock()
		p.status.Address = comm.Address
		p.mu.Unlock()
	}
	p.parked = park && comm.Baud == c.Baud && int(comm.Baud) != p.bus.link.baud
	p.restart(now, nil)
}
