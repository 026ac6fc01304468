package wiegand

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// What can go wrong on the way of a card's bits.
var faults = []string{
	"nothing",
	"lost pulses",     // the kernel never saw them
	"a broken cable",  // for a while: pulses in a row
	"lost edges",      // the kernel saw them and could not keep them
	"a full buffer",   // the same, in a row
	"reordered edges", // the two lines' interrupt threads overtake each other
	"a split frame",   // the reader pauses within it
	"merged frames",   // the next one comes right after
	"ghosts",          // pulses that no reader sent
	"lost and reordered",
	"lost and split",
	"lost and merged",
}

// played is what a reader sent and how it came through.
type played struct {
	fault  string
	sent   []string // the cards
	edges  []edge   // as they were queued
	frames []frame
}

// play sends up to three cards with one of the faults to a reader of these
// formats. Int picks a number below n, card the bits of a card.
func play(rules rules, fault string, intn func(n int) int, card func() string) played {
	p := played{fault: fault}
	spacing := time.Duration(float64(200*us) * []float64{1, 2, 3, 5, 10, 20, 50, 100}[intn(8)])
	jitter := func() time.Duration { return spacing * time.Duration(intn(101)-50) / 1000 }

	s := start()
	split, merged := fault == "a split frame" || fault == "lost and split", fault == "merged frames" || fault == "lost and merged"
	for range 1 + intn(3) {
		bits := card()
		p.sent = append(p.sent, bits)
		parts := []string{bits}
		if split {
			cut := 1 + intn(len(bits)-1)
			parts = []string{bits[:cut], bits[cut:]}
		}
		for i, part := range parts {
			if i > 0 {
				s.silence(spacing + time.Duration(intn(300))*ms)
			}
			s.frame(part, spacing)
		}
		if merged {
			s.silence(spacing + time.Duration(intn(int(defaultGap-spacing)+1)))
		} else {
			s.silence(restMost + time.Duration(intn(1000))*ms)
		}
	}
	for i := range s.edges {
		s.edges[i].At += jitter()
	}
	if fault == "ghosts" {
		for range 1 + intn(3) {
			s.edges = append(s.edges, edge{Line: uint8(intn(2)), At: time.Second - 300*ms + time.Duration(intn(int(s.now-time.Second+300*ms)))})
		}
		slices.SortFunc(s.edges, func(a, b edge) int { return int(a.At - b.At) })
	}
	switch fault {
	case "lost pulses", "lost and reordered", "lost and split", "lost and merged":
		for range 1 + intn(4) {
			s.remove(intn(len(s.edges)))
		}
	case "a broken cable":
		from := intn(len(s.edges))
		to := min(len(s.edges), from+1+intn(20))
		s.edges = slices.Delete(s.edges, from, to)
	}
	p.edges = s.number()
	decode := decodeAll
	if intn(2) == 0 {
		decode = decodeLive
	}
	// The kernel loses edges while nobody reads them, the oldest first: a later
	// one is always there when they are missed.
	switch fault {
	case "lost edges":
		decode = decodeAll
		for range 1 + intn(4) {
			p.edges = lose(p.edges, intn(len(p.edges)-1))
		}
	case "a full buffer":
		decode = decodeAll
		from := intn(len(p.edges) - 1)
		p.edges = lose(p.edges, between(from, min(len(p.edges)-1, from+1+intn(60)))...)
	case "reordered edges", "lost and reordered":
		for range 1 + intn(6) {
			if i := intn(len(p.edges)); i > 0 {
				j := max(0, i-1-intn(3))
				e := p.edges[i]
				p.edges = slices.Insert(slices.Delete(p.edges, i, i+1), j, e)
			}
		}
	}
	p.frames = decode(newDecoder(rules, 0), p.edges)
	return p
}

// wrong is how many frames were taken that nobody sent, or that were sent once
// and taken twice.
func (p *played) wrong() int {
	sent := slices.Clone(p.sent)
	n := 0
	for _, f := range p.frames {
		if f.refused != "" || f.ghost {
			continue
		}
		i := slices.Index(sent, f.card.Bits())
		if i < 0 {
			n++
			continue
		}
		sent = slices.Delete(sent, i, i+1)
	}
	return n
}

// protected are the built-in formats with a check.
func protected() []*badge.Format {
	return slices.DeleteFunc(badge.Builtin().Formats(), func(f *badge.Format) bool { return !f.Protected() })
}

func TestNoFaultMakesAnotherCardsNumber(t *testing.T) {
	for _, f := range protected() {
		t.Run(f.Name(), rapid.MakeCheck(func(t *rapid.T) {
			fault := rapid.SampledFrom(faults).Draw(t, "fault")
			intn := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
			number := func(most uint64) uint64 { return rapid.Uint64Range(0, most).Draw(t, "field") }
			p := play(newRules([]*badge.Format{f}, &Device{}), fault, intn, func() string { return random(f, number) })
			if p.wrong() > 0 {
				t.Errorf("%s: %v came of %v", fault, told(p.frames), p.sent)
			}
			if fault == "nothing" && len(p.frames) != len(p.sent) {
				t.Errorf("without a fault %v came of %v", told(p.frames), p.sent)
			}
		}))
	}
}

// TestWhatTheKernelLosesIsNoticedWhateverLengthsAReaderHas is about readers
// whose longer cards may leave a frame of their shorter ones.
func TestWhatTheKernelLosesIsNoticedWhateverLengthsAReaderHas(t *testing.T) {
	sets := [][]*badge.Format{
		formats(t, "H10301", "H10306", "H10302"),
		formats(t, "H10306", "C1k35s", "C15001", "H10302"),
		formats(t, "H10301", "Avig56"),
	}
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.SampledFrom(sets).Draw(t, "formats")
		fault := rapid.SampledFrom([]string{"nothing", "lost edges", "a full buffer", "reordered edges"}).Draw(t, "fault")
		intn := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
		number := func(most uint64) uint64 { return rapid.Uint64Range(0, most).Draw(t, "field") }
		p := play(newRules(set, &Device{}), fault, intn, func() string { return random(set[intn(len(set))], number) })
		if p.wrong() > 0 {
			t.Errorf("%s: %v came of %v", fault, told(p.frames), p.sent)
		}
		if fault == "nothing" && len(p.frames) != len(p.sent) {
			t.Errorf("without a fault %v came of %v", told(p.frames), p.sent)
		}
	})
}

// TestPulsesMissingInsideALongerFrameMakeNoShorterOne cuts every run of pulses
// out of the inside of a frame of 37 bits, at a reader that also has formats
// of 26, 34, 35 and 36.
func TestPulsesMissingInsideALongerFrameMakeNoShorterOne(t *testing.T) {
	set := formats(t, "H10301", "H10306", "C1k35s", "C15001", "H10302")
	long := format(t, "H10302")
	rng := rand.New(rand.NewPCG(1, 2))
	tried := 0
	for _, spacing := range []time.Duration{200 * us, ms, 2 * ms, 5 * ms, 10 * ms} {
		for from := 1; from < 36; from++ {
			for to := from + 1; to < 37; to++ {
				hole := time.Duration(to-from+1) * spacing
				if hole >= longestGap {
					continue // the reader might as well have stopped
				}
				s := start().frame(random(long, upTo(rng)), spacing)
				s.edges = slices.Delete(s.edges, from, to)
				for _, f := range decodeAll(readerOf(set, Device{}), s.number()) {
					if f.refused == "" && !f.ghost {
						t.Errorf("%v: without bits %d to %d a frame of %d bits was taken", spacing, from, to-1, f.bits)
					}
				}
				tried++
			}
		}
	}
	if tried < 2000 {
		t.Errorf("only %d holes were tried", tried)
	}
}

// count plays n times at random and says what came of it.
func count(t *testing.T, n int, seed uint64) {
	t.Helper()
	type result struct{ cards, taken, refused, wrong int }
	results := make(map[string]*result)
	rng := rand.New(rand.NewPCG(seed, 0))
	all := protected()
	for i := range n {
		f := all[rng.IntN(len(all))]
		fault := faults[i%len(faults)]
		p := play(newRules([]*badge.Format{f}, &Device{}), fault, rng.IntN, func() string { return random(f, upTo(rng)) })
		r := results[fault]
		if r == nil {
			r = &result{}
			results[fault] = r
		}
		r.cards += len(p.sent)
		r.wrong += p.wrong()
		if p.wrong() > 0 && r.wrong < 10 {
			t.Errorf("%s: %s: %v came of %v", f.Name(), fault, told(p.frames), p.sent)
		}
		for _, f := range p.frames {
			switch {
			case f.ghost:
			case f.refused != "":
				r.refused++
			default:
				r.taken++
			}
		}
	}
	for _, fault := range faults {
		r := results[fault]
		t.Logf("%-20s %8d cards, %8d taken, %8d refused, %d wrong", fault, r.cards, r.taken, r.refused, r.wrong)
		if fault == "nothing" && r.taken != r.cards {
			t.Errorf("without a fault %d of %d cards were taken", r.taken, r.cards)
		}
		if r.wrong > 0 {
			t.Errorf("%s: %d wrong", fault, r.wrong)
		}
	}
}

func TestRandomFaultsGiveNoWrongCard(t *testing.T) { count(t, 8_000, 1) }
