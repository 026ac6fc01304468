package wiegand

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// sender is something that sends frames in a way of its own.
type sender struct {
	name    string
	spacing time.Duration
	jitter  time.Duration // standard deviation of each pulse
	drift   float64       // of its clock, up and down, over a season of frames
}

const season = 1000 // frames

// pace sends the n-th frame of 26 bits through a decoder. The interrupt is 3 µs
// late, and one in a hundred up to 100 µs.
func (s *sender) pace(t testing.TB, rng *rand.Rand, n int, off float64) pace {
	t.Helper()
	spacing := float64(s.spacing) * (1 + off) * (1 + s.drift*math.Sin(2*math.Pi*float64(n)/season))
	edges := make([]edge, 26)
	bits := card(t, format(t, "H10301"), uint64(rng.IntN(65536)))
	for i := range edges {
		late := rng.ExpFloat64() * float64(3*us)
		if rng.IntN(100) == 0 {
			late = rng.Float64() * float64(100*us)
		}
		at := float64(i)*spacing + rng.NormFloat64()*float64(s.jitter) + late
		edges[i] = edge{Line: bits[i] - '0', Seq: uint32(i + 1), At: time.Second + time.Duration(at)}
	}
	frames := decodeAll(readerOf(formats(t, "H10301"), Device{}), edges)
	if len(frames) != 1 {
		t.Fatalf("%d frames came of one", len(frames))
	}
	return frames[0].pace // a very uneven frame is refused for its spacing: it is foreign all the more
}

var senders = []sender{
	{"1 ms, by a crystal", 1 * ms, 2 * us, 0.0001},
	{"2 ms, by an RC clock", 2 * ms, 5 * us, 0.015},
	{"880 µs, uneven", 880 * us, 20 * us, 0.02},
	{"200 µs", 200 * us, 2 * us, 0.005},
	{"5 ms, uneven", 5 * ms, 60 * us, 0.02},
}

// learned is a fingerprint that has seen a season of its reader.
func learned(t testing.TB, rng *rand.Rand, s *sender, frames int) (p *fingerprint, alarms int) {
	p = &fingerprint{}
	for n := range frames {
		if p.foreign(26, s.pace(t, rng, n, 0)) {
			alarms++
		}
	}
	return p, alarms
}

func TestTimingsOfTheReaderPassAndThoseOfOthersDoNot(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const tries = 200
	for i := range senders {
		s := &senders[i]
		p, alarms := learned(t, rng, s, 2*season)
		rate := float64(alarms) / (2 * season)
		t.Logf("%-22s learned %v ± %v, spread up to %v; %d false alarms in %d frames (%.3f %%)",
			s.name, p.timing.Learned, p.timing.Slack, p.timing.Spread, alarms, 2*season, 100*rate)
		if rate > 0.001 {
			t.Errorf("%s: %.2f %% false alarms", s.name, 100*rate)
		}
		find := func(off float64, jitter time.Duration) float64 {
			other := *s
			other.jitter, other.drift = jitter, 0
			found := 0
			for range tries {
				q := *p // one look at it: the device does not replay often
				if q.foreign(26, other.pace(t, rng, 0, off)) {
					found++
				}
			}
			return 100 * float64(found) / tries
		}
		for _, off := range []float64{-0.2, -0.1, -0.05, -0.02, -0.01, 0.01, 0.02, 0.05, 0.1, 0.2} {
			got := find(off, 3*us)
			t.Logf("    a device %+3.0f %% off: %5.1f %% found", 100*off, got)
			outside := math.Abs(off)*float64(s.spacing) > float64(p.timing.Slack)+0.03*float64(s.spacing)
			if outside && got < 99 {
				t.Errorf("%s: only %.1f %% of a device that is %+.0f %% off are found", s.name, got, 100*off)
			}
		}
		got := find(0, max(p.timing.Spread, 10*us))
		t.Logf("    a device as uneven as %v: %5.1f %% found", max(p.timing.Spread, 10*us), got)
		if s.spacing >= ms && got < 50 {
			t.Errorf("%s: only %.1f %% of an uneven device are found", s.name, got)
		}
	}
}

func TestATimingCannotBeLedAwayStepByStep(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	reader := &sender{"", 1 * ms, 5 * us, 0}
	for _, direction := range []float64{1, -1} {
		p, _ := learned(t, rng, reader, 100)
		from := p.timing.Learned
		found := false
		for step := range 50 {
			off := direction * float64(step) * 0.004
			for range 64 {
				found = p.foreign(26, reader.pace(t, rng, 0, off))
			}
			if math.Abs(off) > 0.075 && !found {
				t.Fatalf("a device that went slowly to %+.1f %% is taken for the reader", 100*off)
			}
		}
		if off := float64(p.timing.Spacing-from) / float64(from); math.Abs(off) > driftPart+1e-9 {
			t.Errorf("the timing was led away by %+.1f %%", 100*off)
		}
		if p.foreign(26, reader.pace(t, rng, 0, 0.005*direction)) {
			t.Error("the reader itself is now foreign")
		}
	}
}

func TestAFewFramesOfAnotherWhileLearningDoNotCount(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	reader := &sender{"", 1 * ms, 5 * us, 0}
	p := &fingerprint{}
	for n := range learnFrames {
		off := 0.0
		if n%3 == 1 { // five of sixteen
			off = 0.2
		}
		if p.foreign(26, reader.pace(t, rng, 0, off)) {
			t.Fatal("a frame is foreign while the timing is learned")
		}
	}
	if p.foreign(26, reader.pace(t, rng, 0, 0)) || !p.foreign(26, reader.pace(t, rng, 0, 0.2)) {
		t.Errorf("learned %+v of a reader of %v", p.timing, reader.spacing)
	}
}

func TestFramesTooShortToTellAPaceAreNotHeldAgainstIt(t *testing.T) {
	p := &fingerprint{timing: Timing{Learned: ms, Spacing: ms, Slack: slackLeast, Spread: spreadLeast}}
	if p.foreign(learnBits-1, pace{2 * ms, 0}) {
		t.Error("a short frame is foreign")
	}
	if !p.foreign(learnBits, pace{2 * ms, 0}) {
		t.Error("a long frame is not foreign")
	}
}

func TestATimingIsKeptAndCheckedWhenItComesBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range senders {
		p, _ := learned(t, rng, &senders[i], 500)
		doc, err := json.Marshal(p.timing)
		if err != nil {
			t.Fatal(err)
		}
		var back Timing
		if err := json.Unmarshal(doc, &back); err != nil {
			t.Fatal(err)
		}
		if back != p.timing {
			t.Errorf("%+v came back as %+v", p.timing, back)
		}
		if err := back.Validate(); err != nil {
			t.Errorf("%s: %v", senders[i].name, err)
		}
	}
	good := Timing{Learned: ms, Spacing: ms, Slack: 30 * us, Spread: 60 * us}
	for name, spoil := range map[string]func(*Timing){
		"no spacing":          func(t *Timing) { t.Learned = 0 },
		"a spacing of hours":  func(t *Timing) { t.Learned = time.Hour },
		"a drift of 10 %":     func(t *Timing) { t.Spacing = 1100 * us },
		"no slack":            func(t *Timing) { t.Slack = 0 },
		"slack for anything":  func(t *Timing) { t.Slack = ms },
		"no spread":           func(t *Timing) { t.Spread = 0 },
		"spread for anything": func(t *Timing) { t.Spread = time.Second },
	} {
		bad := good
		spoil(&bad)
		if bad.Validate() == nil {
			t.Errorf("%s: %+v is taken", name, bad)
		}
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
