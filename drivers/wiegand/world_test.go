package wiegand

import (
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/gpio"
)

var errUnplugged = errors.New("no such device")

// world is two lines and what pulls them: the kernel's side of a pair. Time is
// the real one, or a test's.
type world struct {
	base time.Time
	log  *slog.Logger

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when anything changes
	edges   []edge        // to come, in order
	queued  time.Duration // of the last edge
	seq     uint32
	low     [2]bool
	broken  error // the lines are gone

	unnumbered bool // edges come as gpio's fallback has them
	opened     int
	pairs      int // that are open
}

func newWorld() *world {
	return &world{base: time.Now().Add(-time.Hour), changed: make(chan struct{}), log: slog.New(slog.DiscardHandler)}
}

func (w *world) now() time.Duration { return time.Since(w.base) }

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// swipe sends bits, after a silence from now or from what was sent before.
// It gives the time of the last bit.
func (w *world) swipe(bits string, spacing time.Duration) (end time.Time) {
	w.change(func() {
		s := &script{now: max(w.queued, w.now()) + 130*ms}
		s.frame(bits, spacing)
		for _, e := range s.edges {
			if !w.unnumbered {
				w.seq++
				e.Seq = w.seq
			}
			w.edges = append(w.edges, e)
		}
		w.queued = s.now
		end = w.base.Add(s.now)
	})
	return end
}

func (w *world) open(*Device) (gpio.Pair, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return nil, w.broken
	}
	w.opened++
	w.pairs++
	w.seq, w.edges = 0, nil
	return &fakePair{w: w}, nil
}

type fakePair struct {
	w      *world
	closed bool
}

func (p *fakePair) fault() error {
	if p.closed {
		return gpio.ErrClosed
	}
	return p.w.broken
}

func (p *fakePair) Read(buf []edge, wait time.Duration) (int, error) {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		p.w.mu.Lock()
		err, changed, now := p.fault(), p.w.changed, p.w.now()
		n := 0
		for n < len(buf) && len(p.w.edges) > 0 && p.w.edges[0].At <= now {
			buf[n] = p.w.edges[0]
			p.w.edges = p.w.edges[1:]
			n++
		}
		next := time.Hour
		if len(p.w.edges) > 0 {
			next = p.w.edges[0].At - now
		}
		p.w.mu.Unlock()
		if err != nil || n > 0 {
			return n, err
		}
		edge := time.NewTimer(next)
		select {
		case <-changed:
		case <-edge.C:
		case <-timeout.C:
			edge.Stop()
			return 0, nil
		}
		edge.Stop()
	}
}

func (p *fakePair) Levels() ([2]bool, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.low, p.fault()
}

func (p *fakePair) Now() time.Duration { return p.w.now() }

func (p *fakePair) Close() error {
	p.w.change(func() {
		if !p.closed {
			p.w.pairs--
		}
		p.closed = true
	})
	return nil
}

// bus is a driver whose readers are on the world's lines.
func (w *world) bus() *Bus { return &Bus{log: w.log, open: w.open} }

// reader is a reader of H10301 cards on the world's lines.
func (w *world) reader(t testing.TB, d Device) *Reader {
	t.Helper()
	b := w.bus()
	d.D0, d.D1 = "D0", "D1"
	r, err := b.Reader(&d, formats(t, "H10301"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if w.pairs != 0 {
			t.Errorf("%d pairs of lines were not given back", w.pairs)
		}
	})
	return r
}
