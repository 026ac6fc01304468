package wiegand

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// How a reader's timing is learned. A reader's clock drifts with the weather
// by a percent or two, a device that replays cards keeps a pace of its own.
const (
	learnFrames   = 16
	learnBits     = 16   // that a frame must have to tell a pace
	slackPart     = 0.03 // of the spacing, that a frame may be off
	slackLeast    = 10 * time.Microsecond
	slackSpreads  = 6    // times the spread of what was learned
	driftPart     = 0.03 // that the pace may drift from where it was learned
	driftFrames   = 64   // to follow a drift by two thirds
	spreadTimes   = 4
	spreadLeast   = 40 * time.Microsecond
	maxLearnSlack = 0.2 // more says that there is no pace to learn
)

// Timing is what was learned of a reader's pace: that of its first 16 good
// card frames. A card's frame is foreign if the median of its spacings is off
// by more than Slack, or if the middle half of them is spread over more than Spread.
//
// It follows a slow drift, though never farther than 3 % from where it was
// learned: what replays cards on the wires cannot lead it away step by step.
//
// It finds a device whose pace differs by more than about 3 %, or that is much
// more uneven. It does not find one that measures the reader's pace and keeps
// it, one that answers in the reader's place while it is learned, and one that
// only listens. What a keypad sends is not held against it.
type Timing struct {
	Learned time.Duration `json:"learned"` // the spacing when it was learned
	Spacing time.Duration `json:"spacing"` // the same after the drift since
	Slack   time.Duration `json:"slack"`
	Spread  time.Duration `json:"spread"`
}

// Validate refuses what no reader's timing can be.
func (t Timing) Validate() error {
	var faults []error
	if t.Learned < minSpacing || t.Learned > maxSpacing {
		faults = append(faults, fmt.Errorf("learned: %v is not a spacing between %v and %v", t.Learned, minSpacing, maxSpacing))
	}
	if drift := part(t.Learned, driftPart); t.Spacing < t.Learned-drift || t.Spacing > t.Learned+drift {
		faults = append(faults, fmt.Errorf("spacing: %v is more than 3 %% from the %v that was learned", t.Spacing, t.Learned))
	}
	if t.Slack < slackLeast || t.Slack > max(slackLeast, part(t.Learned, maxLearnSlack)) {
		faults = append(faults, fmt.Errorf("slack: %v is not between %v and a fifth of the spacing", t.Slack, slackLeast))
	}
	if t.Spread < spreadLeast || t.Spread > maxSpacing {
		faults = append(faults, fmt.Errorf("spread: %v is not between %v and %v", t.Spread, spreadLeast, maxSpacing))
	}
	return errors.Join(faults...)
}

func part(t time.Duration, of float64) time.Duration { return time.Duration(float64(t) * of) }

// fingerprint learns a timing and holds frames against it.
type fingerprint struct {
	timing  Timing // zero: not learned yet
	samples []pace
}

// foreign looks at a good card's frame of so many bits.
func (p *fingerprint) foreign(bits int, f pace) bool {
	if bits < learnBits {
		return false
	}
	if p.timing == (Timing{}) {
		p.learn(f)
		return false
	}
	t := &p.timing
	if off := f.spacing - t.Spacing; max(off, -off) > t.Slack || f.spread > t.Spread {
		return true
	}
	drift := part(t.Learned, driftPart)
	t.Spacing = min(max(t.Spacing+(f.spacing-t.Spacing)/driftFrames, t.Learned-drift), t.Learned+drift)
	return false
}

// learn takes medians of all: a few frames of another pace do not count.
func (p *fingerprint) learn(f pace) {
	p.samples = append(p.samples, f)
	if len(p.samples) < learnFrames {
		return
	}
	var spacing, off, spread []time.Duration
	for _, s := range p.samples {
		spacing = append(spacing, s.spacing)
		spread = append(spread, s.spread)
	}
	p.samples = nil
	middle := median(spacing)
	for _, s := range spacing {
		off = append(off, max(s-middle, middle-s))
	}
	slack := max(part(middle, slackPart), slackLeast, slackSpreads*median(off))
	p.timing = Timing{
		Learned: middle, Spacing: middle,
		Slack:  min(slack, max(slackLeast, part(middle, maxLearnSlack))),
		Spread: min(spreadTimes*median(spread)+spreadLeast, maxSpacing),
	}
}

// median sorts s.
func median(s []time.Duration) time.Duration {
	slices.Sort(s)
	return s[len(s)/2]
}
