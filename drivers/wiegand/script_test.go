package wiegand

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

const (
	us = time.Microsecond
	ms = time.Millisecond
)

var builtin = badge.Builtin()

func format(t testing.TB, name string) *badge.Format {
	t.Helper()
	f, ok := builtin.Format(name)
	if !ok {
		t.Fatalf("there is no format %q", name)
	}
	return f
}

func formats(t testing.TB, names ...string) []*badge.Format {
	t.Helper()
	var all []*badge.Format
	for _, name := range names {
		all = append(all, format(t, name))
	}
	return all
}

// card is a frame of a format with this number.
func card(t testing.TB, f *badge.Format, number uint64) string {
	t.Helper()
	c := f.New()
	c.Number = number
	frame, err := f.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return frame.Bits()
}

// script is pulses on two wires, in the order in which they happen.
type script struct {
	edges []edge
	now   time.Duration
}

// start is a script whose lines have been silent since the decoder was made,
// at 0.
func start() *script { return &script{now: time.Second} }

func (s *script) silence(d time.Duration) *script { s.now += d; return s }

// pulse pulls a line now.
func (s *script) pulse(line uint8) *script {
	s.edges = append(s.edges, edge{Line: line, At: s.now})
	return s
}

// frame sends bits; it ends with its last pulse.
func (s *script) frame(bits string, spacing time.Duration) *script {
	for i := range len(bits) {
		if i > 0 {
			s.now += spacing
		}
		s.pulse(bits[i] - '0')
	}
	return s
}

// remove makes a pulse that never reached the kernel.
func (s *script) remove(i int) *script {
	s.edges = append(s.edges[:i:i], s.edges[i+1:]...)
	return s
}

// number gives the edges their sequence numbers, as the kernel does.
func (s *script) number() []edge {
	for i := range s.edges {
		s.edges[i].Seq = uint32(i + 1)
	}
	return s.edges
}

// lose takes edges away that the kernel had numbered.
func lose(edges []edge, at ...int) []edge {
	var left []edge
next:
	for i, e := range edges {
		for _, l := range at {
			if i == l {
				continue next
			}
		}
		left = append(left, e)
	}
	return left
}

// decodeAll gives a decoder all edges at once, and then a long silence.
func decodeAll(d *decoder, edges []edge) []frame {
	var out []frame
	take := func(f frame, ok bool) {
		if ok {
			out = append(out, f)
		}
	}
	last := time.Duration(0)
	for _, e := range edges {
		take(d.add(e))
		last = max(last, e.At)
	}
	take(d.advance(last + time.Minute))
	take(d.advance(last + 2*time.Minute))
	return out
}

// decodeLive gives a decoder the edges as they happen: whenever it has
// something to give before the next one, it is asked.
func decodeLive(d *decoder, edges []edge) []frame {
	var out []frame
	ask := func(until time.Duration) {
		for at, ok := d.deadline(); ok && at <= until; at, ok = d.deadline() {
			f, got := d.advance(at)
			if !got {
				panic("nothing came at the deadline: a reader would ask again without a break")
			}
			out = append(out, f)
		}
	}
	last := time.Duration(0)
	for _, e := range edges {
		ask(e.At)
		if f, ok := d.add(e); ok {
			out = append(out, f)
		}
		last = max(last, e.At)
	}
	ask(last + time.Minute)
	return out
}

// readerOf is the decoder of a reader with these formats.
func readerOf(formats []*badge.Format, d Device) *decoder {
	return newDecoder(newRules(formats, &d), 0)
}

// random is a frame of a format that a card may have.
func random(f *badge.Format, pick func(uint64) uint64) string {
	c := f.New()
	for _, d := range f.Fields() {
		if d.Fixed {
			continue
		}
		v := pick(d.Max)
		switch d.Name {
		case "facility":
			c.Facility = v
		case "number":
			c.Number = v
		case "issue":
			c.Issue = v
		case "oem":
			c.OEM = v
		}
	}
	frame, err := f.Encode(c)
	if err != nil {
		panic(err) // every value up to Max can be encoded
	}
	return frame.Bits()
}

// upTo picks any number up to most.
func upTo(r *rand.Rand) func(most uint64) uint64 {
	return func(most uint64) uint64 {
		if most == ^uint64(0) {
			return r.Uint64()
		}
		return r.Uint64N(most + 1)
	}
}
