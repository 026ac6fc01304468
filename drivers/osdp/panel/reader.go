package panel

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
)

// Why a card is not to be trusted.
const (
	RefusedEmpty  = "a card without bits"
	RefusedLong   = "more bits than any card has"
	RefusedDigits = "characters in place of bits: set the reader to raw card data"
)

// waiting is how many presentations and keys wait while nobody calls Read: some
// readers send a whole PIN and its # at once.
const waiting = 2 * badge.MaxPIN

// Reader delivers a reader's cards, and its keys if it has a keypad.
type Reader struct {
	p      *peripheral
	number byte
	keypad bool
	reads  chan badge.Read

	// The peripheral's mutex guards what follows.
	lost      bool // more came than was read
	delivered uint64
	refused   map[string]uint64
	last      time.Time
}

func newReader(p *peripheral, number byte, keypad bool) *Reader {
	return &Reader{p: p, number: number, keypad: keypad, reads: make(chan badge.Read, waiting), refused: make(map[string]uint64)}
}

// Authenticated reports whether what the reader tells comes over the Secure
// Channel.
func (r *Reader) Authenticated() bool { return !r.p.config.ClearText }

// Read waits for the next card or key. It fails while the peripheral does not
// work, or has no Secure Channel.
func (r *Reader) Read(ctx context.Context) (badge.Read, error) {
	if err := r.p.start(); err != nil {
		return badge.Read{}, err
	}
	for {
		c := r.p.condition()
		switch {
		case ctx.Err() != nil:
			return badge.Read{}, ctx.Err()
		case c.wrong != nil:
			return badge.Read{}, c.wrong
		case r.overrun():
			return badge.Read{}, errors.New("more was presented than was read, and some of it is lost")
		}
		select {
		case read := <-r.reads:
			return read, nil
		case <-c.changed:
		case <-ctx.Done():
		}
	}
}

// overrun reports once that presentations were lost.
func (r *Reader) overrun() bool {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	lost := r.lost
	r.lost = false
	return lost
}

// Health tells what the line has shown of the reader. Any goroutine may call
// it.
func (r *Reader) Health() badge.Health {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	h := badge.Health{Frames: r.delivered, Refused: maps.Clone(r.refused), Last: r.last}
	if r.p.own != nil {
		h.Likely = r.p.trend.likely(time.Now(), r.p.own.Status().Counters)
	}
	return h
}

// The methods below are called with the peripheral's mutex held.

// card delivers a card.
func (r *Reader) card(at time.Time, m osdp.Card) {
	if m.Reader != r.number {
		return
	}
	read := badge.Read{At: at}
	read.Frame, read.Refused = bitsOf(m)
	r.deliver(read)
}

// bitsOf are a card's bits, or the reason why they are none.
func bitsOf(m osdp.Card) (f badge.Frame, refused string) {
	switch n := int(m.Bits); {
	case n == 0:
		return f, RefusedEmpty
	case n > badge.MaxBits:
		return f, RefusedLong
	default:
		bits := make([]byte, n)
		for i := range bits {
			bits[i] = '0' + m.Data[i/8]>>(7-i%8)&1
		}
		return frame(string(bits)), ""
	}
}

func (r *Reader) formatted(at time.Time, m osdp.FormattedCard) {
	if m.Reader == r.number {
		r.deliver(badge.Read{At: at, Refused: RefusedDigits})
	}
}

// keyCodes are the keys in badge.Keypad4Bit.
const keyCodes = "0123456789*#"

// noKey is a code that no key has: it ends what is being typed.
const noKey = 0xF

// keys delivers keys, each by itself.
func (r *Reader) keys(at time.Time, m osdp.Keypad) {
	if m.Reader != r.number || !r.keypad {
		return
	}
	for _, key := range m.Keys {
		code := strings.IndexByte(keyCodes, key)
		if code < 0 {
			code = noKey
		}
		bits := [4]byte{}
		for i := range bits {
			bits[i] = '0' + byte(code>>(3-i)&1)
		}
		r.deliver(badge.Read{At: at, Frame: frame(string(bits[:])), Keypad: true})
	}
}

// frame is of 1 to badge.MaxBits bits.
func frame(bits string) badge.Frame {
	f, err := badge.ParseFrame(bits)
	if err != nil {
		panic(err) // there is nothing else that it checks
	}
	return f
}

func (r *Reader) deliver(read badge.Read) {
	select {
	case r.reads <- read:
	default:
		r.lost = true
		r.p.tell()
		return
	}
	r.delivered++
	if read.Refused != "" {
		r.refused[read.Refused]++
	} else {
		r.last = read.At
	}
}

// drop forgets what nobody has read.
func (r *Reader) drop() {
	for {
		select {
		case <-r.reads:
		default:
			return
		}
	}
}
