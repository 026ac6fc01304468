package guest_test

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/test/guest"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// TestFramesOnTheWiresMoveTheStrike plays cards to readers of every length and
// pace. In order nothing disturbs the guest, and each card opens.
func TestFramesOnTheWiresMoveTheStrike(t *testing.T) {
	t.Parallel()
	got := playFrames(t, hardware{mode: inOrder}, 40, five(0)...)
	if got.decoded != got.frames || got.opened != got.frames {
		t.Errorf("of %d cards %d were read, and %d opened", got.frames, got.decoded, got.opened)
	}
}

// five are readers of every length, each with another pace. Each has the
// format of one length, so that what is split or merged has none.
func five(turn int) (readers []reader) {
	formats := []string{"H10301", "H10306", "H10302", "C1k48s", "Avig56"} // 26, 34, 37, 48 and 56 bits
	spacings := []time.Duration{200 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 6 * time.Millisecond, 20 * time.Millisecond}
	for i, format := range formats {
		readers = append(readers, reader{format, spacings[(i+turn)%len(spacings)]})
	}
	return readers
}

// tally is what came of the frames of a run.
type tally struct {
	frames  int
	decoded int            // as the card that was shown, and recorded so
	opened  int            // the strike has moved
	wrong   int            // recorded as anything else
	refused map[string]int // by the reader's reason

	latency []time.Duration // from the last bit to the strike
	spacing time.Duration   // the largest error of what was played
	busy    time.Duration   // of the daemon's processor time,
	passed  time.Duration   // in this time
}

func (a *tally) add(b *tally) {
	a.frames += b.frames
	a.decoded += b.decoded
	a.opened += b.opened
	a.wrong += b.wrong
	for reason, n := range b.refused {
		if a.refused == nil {
			a.refused = make(map[string]int)
		}
		a.refused[reason] += n
	}
	a.latency = append(a.latency, b.latency...)
	a.spacing = max(a.spacing, b.spacing)
	a.busy += b.busy
	a.passed += b.passed
}

func (a *tally) String() string {
	slices.Sort(a.latency)
	at := func(share float64) time.Duration {
		if len(a.latency) == 0 {
			return 0
		}
		return a.latency[int(share*float64(len(a.latency)-1))].Round(10 * time.Microsecond)
	}
	refused := "none"
	if len(a.refused) > 0 {
		refused = strings.TrimPrefix(fmt.Sprint(a.refused), "map")
	}
	return fmt.Sprintf("%d frames: %d decoded, refused %s, %d wrong; last bit to strike p50 %v, p99 %v, max %v; the daemon took %.1f%% of a processor; spacing was played to within %v",
		a.frames, a.decoded, refused, a.wrong, at(0.5), at(0.99), at(1), 100*a.busy.Seconds()/a.passed.Seconds(), a.spacing)
}

// playFrames plays so many cards to each reader. Everybody shows a card, walks
// through if the door unlocks, and leaves it closed. It fails the test for
// each card that was read as another.
func playFrames(t *testing.T, h hardware, cards int, readers ...reader) *tally {
	t.Helper()
	c := newController(t, cards, "", readers...)
	c.admit()
	if h.mode == free {
		h.disk = c.newDisk()
	}
	m := boot(t, c.hardware(h))
	m.synchronised()
	m.startDaemon(c)

	var steps []guest.Step
	order := make(map[string]int) // of the people
	each := len(c.enter(0, 0))    // steps
	for n := range cards {
		for i := range readers {
			order[c.person(i, n)] = len(order)
			steps = append(steps, c.enter(i, n)...)
		}
	}
	busy := m.busy()
	done := m.play(20*time.Minute, steps...)
	got := &tally{frames: len(order), busy: m.busy() - busy, passed: done[len(done)-1].At - done[0].At, refused: m.refused()}
	for i := 0; i < len(done); i += each {
		frame, opened := done[i], done[i+1]
		got.spacing = max(got.spacing, frame.Worst)
		if opened.OK {
			got.opened++
			got.latency = append(got.latency, opened.At-frame.At)
		}
		if !done[i+5].OK {
			t.Errorf("card %d: the door is not locked again", i/each)
		}
	}
	last := -1
	records := m.records()
	for _, r := range records {
		if r.Data.Decision == "" || r.Data.Reason == access.ReasonUnreadable {
			continue
		}
		if at, ok := order[r.Subject]; ok && at > last {
			got.decoded++
			last = at
		} else {
			got.wrong++
			t.Errorf("record %d says that %q was %s (%s): nobody showed that card then", r.Data.Sequence, r.Subject, r.Data.Decision, r.Data.Reason)
		}
	}
	if n := len(grants(records)); got.opened > n {
		t.Errorf("the strike moved %d times, and %d grants are recorded", got.opened, n)
	}
	m.verifies()
	t.Logf("%s: %s", h.mode, got)
	return got
}

func (m mode) String() string {
	if m == inOrder {
		return "in order"
	}
	return "two processors running free"
}

// busy is the processor time that the daemon has had.
func (m *machine) busy() time.Duration {
	m.t.Helper()
	stat := m.ask(guest.Request{Read: fmt.Sprintf("/proc/%d/stat", m.pid)}).Output
	// After the name in brackets: state is field 3, utime 14 and stime 15, in
	// hundredths of a second.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var ticks int64
	for _, f := range fields[14-3 : 15-3+1] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			m.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

var refusal = regexp.MustCompile(`^gatehouse_reader_refused_total\{.*reason="([^"]*)".*\} ([0-9]+)`)

// refused is how many frames the daemon's readers have refused, by reason.
func (m *machine) refused() map[string]int {
	m.t.Helper()
	refused := make(map[string]int)
	for _, line := range m.metrics("gatehouse_reader_refused_total") {
		f := refusal.FindStringSubmatch(line)
		if f == nil {
			m.t.Fatalf("a metric of another form: %s", line)
		}
		n, err := strconv.Atoi(f[2])
		if err != nil {
			m.t.Fatal(err)
		}
		if n > 0 {
			refused[f[1]] += n
		}
	}
	return refused
}

// grants are the records of who was let in.
func grants(records []visitorlog.Record) (granted []visitorlog.Record) {
	for _, r := range records {
		if r.Data.Decision == "granted" {
			granted = append(granted, r)
		}
	}
	return granted
}
