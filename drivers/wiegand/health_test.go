package wiegand

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// seen is the tally of a reader whose wires showed these edges, live.
func seen(r rules, edges []edge) *tally {
	var t tally
	for _, f := range decodeLive(newDecoder(r, 0), edges) {
		t.count(&f, false)
	}
	return &t
}

// swipes is a script of n cards, a second apart; each goes through bad.
func swipes(t testing.TB, rng *rand.Rand, name string, n int, bad func(*script)) *script {
	s := start()
	swipesOn(t, s, rng, name, n, bad)
	return s
}

func swipesOn(t testing.TB, s *script, rng *rand.Rand, name string, n int, bad func(*script)) {
	t.Helper()
	f := format(t, name)
	for range n {
		one := (&script{now: s.now}).frame(random(f, upTo(rng)), ms)
		if bad != nil {
			bad(one)
		}
		s.edges = append(s.edges, one.edges...)
		s.now = one.now
		s.silence(time.Second)
	}
}

func TestWhatIsLikelyWrongIsSaid(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	only := func(line uint8) func(*script) {
		return func(s *script) {
			var left []edge
			for _, e := range s.edges {
				if e.Line == line {
					left = append(left, e)
				}
			}
			s.edges = left
		}
	}
	echo := func(after time.Duration, other uint8) func(*script) {
		return func(s *script) {
			var all []edge
			for _, e := range s.edges {
				all = append(all, e)
				if rng.IntN(2) == 0 {
					all = append(all, edge{Line: e.Line ^ other, At: e.At + after})
				}
			}
			s.edges = all
		}
	}
	weak := func(s *script) {
		for i := len(s.edges) - 1; i >= 0; i-- {
			if rng.IntN(10) == 0 {
				s.remove(i)
			}
		}
	}
	swap := func(s *script) {
		for i := range s.edges {
			s.edges[i].Line ^= 1
		}
	}
	parity := func(s *script) { s.edges[0].Line ^= 1 }
	noise := start()
	for range 20 {
		noise.pulse(uint8(rng.IntN(2))).silence(time.Minute)
	}
	rare := start()
	for range 20 {
		rare.pulse(0).silence(10 * time.Minute)
	}
	hum := start() // never silent for the gap: no card comes through it
	for range 2000 {
		hum.pulse(0).silence(20 * ms)
	}
	keys := start()
	for range 5 {
		keys.frame("0101", 2*ms).silence(300 * ms)
	}
	busy := swipes(t, rng, "H10301", 12, nil).number()
	for i := range 6 {
		busy = lose(busy, i*50+10)
	}
	tests := []struct {
		cause string
		edges []edge
		says  string // empty: nothing
	}{
		{"all is well", swipes(t, rng, "H10301", 40, nil).number(), ""},
		{"D1 is broken", swipes(t, rng, "H10301", 6, only(0)).number(), "nothing comes over D1"},
		{"D0 is broken", swipes(t, rng, "H10301", 6, only(1)).number(), "nothing comes over D0"},
		{"D0 and D1 are swapped", swipes(t, rng, "H10301", 6, swap).number(), "swapped"},
		{"no common ground", swipes(t, rng, "H10301", 6, echo(20*us, 1)).number(), "0 V"},
		{"the cable is too long", swipes(t, rng, "H10301", 6, echo(40*us, 0)).number(), "cable is probably too long"},
		{"the level shifter is missing", swipes(t, rng, "H10301", 8, weak).number(), "level shifter"},
		{"interference", noise.number(), "interference"},
		{"a pulse now and then", rare.number(), ""},
		{"mains hum", hum.number(), "interference"},
		{"the controller is too busy", busy, "overloaded"},
		{"cards of another length", swipes(t, rng, "H10306", 5, nil).number(), "34 bits"},
		{"cards of another layout", swipes(t, rng, "H10301", 5, parity).number(), "another format"},
		{"a keypad that is not configured", keys.number(), "keypad"},
	}
	for _, test := range tests {
		t.Run(test.cause, func(t *testing.T) {
			tally := seen(newRules(formats(t, "H10301"), &Device{}), test.edges)
			h := tally.health(tally.recent[len(tally.recent)-1].at, 26)
			if (test.says == "") != (h.Likely == "") || !strings.Contains(h.Likely, test.says) {
				t.Errorf("it says %q, nothing of %q", h.Likely, test.says)
			}
			if got := tally.health(tally.recent[len(tally.recent)-1].at+memoryAge+time.Second, 26).Likely; got != "" {
				t.Errorf("a day later it still says %q", got)
			}
		})
	}

	bad := map[string]func(*script){"one line": only(0), "swapped": swap, "ground": echo(20*us, 1), "echo": echo(40*us, 0), "weak": weak, "parity": parity}
	for cause, spoil := range bad {
		t.Run(cause+" once or twice is no diagnosis", func(t *testing.T) {
			s := swipes(t, rng, "H10301", 20, nil)
			swipesOn(t, s, rng, "H10301", 2, spoil)
			swipesOn(t, s, rng, "H10301", 3, nil)
			if got := seen(newRules(formats(t, "H10301"), &Device{}), s.number()).health(s.now, 26).Likely; got != "" {
				t.Errorf("it says %q", got)
			}
		})
		t.Run(cause+" is forgotten when it was mended", func(t *testing.T) {
			s := swipes(t, rng, "H10301", 40, spoil)
			swipesOn(t, s, rng, "H10301", lookBack, nil)
			if got := seen(newRules(formats(t, "H10301"), &Device{}), s.number()).health(s.now, 26).Likely; got != "" {
				t.Errorf("it says %q", got)
			}
		})
	}
}

func TestOnlyTheLastFramesAreRemembered(t *testing.T) {
	var tally tally
	for range 3 * memory {
		tally.count(&frame{bits: 26}, false)
	}
	if len(tally.recent) != memory || cap(tally.recent) > 2*memory {
		t.Errorf("%d frames are remembered, with room for %d", len(tally.recent), cap(tally.recent))
	}
}

func TestATimingThatIsNeverTheReadersIsSaid(t *testing.T) {
	var tally tally
	for i := range strange {
		if h := tally.health(0, 26); h.Likely != "" {
			t.Errorf("after %d frames it says %q", i, h.Likely)
		}
		tally.count(&frame{bits: 26, wire: wire{zeros: 13}}, true)
	}
	if h := tally.health(0, 26); !strings.Contains(h.Likely, "another timing") || h.Foreign != strange {
		t.Errorf("it says %q of %d foreign frames", h.Likely, h.Foreign)
	}
}

func TestWhatTheWiresShowedIsCounted(t *testing.T) {
	h := formats(t, "H10301")
	a := card(t, h[0], 4711)
	s := start().frame(a, ms).silence(time.Second)
	s.frame(a[:20], 2*ms).silence(time.Second)
	s.frame("010", ms).silence(time.Second)
	s.frame(a, ms).silence(10 * ms).pulse(0)
	tally := seen(newRules(h, &Device{}), s.number())
	got := tally.health(s.now, 26)
	if got.Refused[RefusedLength] != 1 || len(got.Refused) != 1 || got.Ghosts != 4 {
		t.Errorf("refused %v, %d ghosts", got.Refused, got.Ghosts)
	}
	want := map[time.Duration]uint64{1500 * us: 50, 2500 * us: 19}
	for _, b := range got.Spacing {
		if b.Count != want[b.Below] {
			t.Errorf("%d bits came within %v, not %d", b.Count, b.Below, want[b.Below])
		}
	}
	got.Refused[RefusedLost] = 9
	if tally.refused[RefusedLost] != 0 {
		t.Error("what was told can be changed by whoever was told")
	}
	var fresh badge.Health
	if len(got.Spacing) != len(buckets) || fresh.Spacing != nil {
		t.Errorf("%d buckets", len(got.Spacing))
	}
}
