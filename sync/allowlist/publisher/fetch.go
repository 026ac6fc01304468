package publisher

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

const (
	fetchWorkers = 8
	// fetchQueue is how many requests of one controller may wait.
	fetchQueue = 4
	// partsPerSecond and partsBurst bound the parts that one controller gets.
	partsPerSecond = 40
	partsBurst     = 4 * wire.MaxFetchParts
	// mostUnderway bounds the bytes that were sent and that nobody has asked beyond
	// yet: the broker holds them for controllers that are slow.
	mostUnderway = 64 << 20
	// forgetUnderway is how long a controller is waited for that asks no more.
	forgetUnderway = 5 * time.Second
)

// fetches are the requests for parts.
type fetches struct {
	mu       *sync.Mutex
	of       map[string]*fetching
	ready    []*fetching
	underway int64 // bytes
	wake     chan struct{}
	counts   *FetchStats
}

// fetching is what one controller asks for.
type fetching struct {
	controller string
	queue      []wire.Fetch
	busy       bool
	tokens     float64
	filled     time.Time
	underway   int64 // bytes
	sent       time.Time
}

// FetchStats count requests for parts.
type FetchStats struct {
	Requests, Parts, Bytes uint64
	Dropped                uint64 // requests: too many, of somebody unknown, or unreadable
	Gone                   uint64 // requests for what is not there
}

func newFetches() fetches {
	return fetches{mu: new(sync.Mutex), of: make(map[string]*fetching), wake: make(chan struct{}, 1), counts: new(FetchStats)}
}

func (f *fetches) rouse() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// FetchStats counts since the start.
func (p *Publisher) FetchStats() FetchStats {
	p.fetches.mu.Lock()
	defer p.fetches.mu.Unlock()
	return *p.fetches.counts
}

// Fetch takes a request for parts, or drops it: whoever gets nothing asks again.
// It does not block.
func (p *Publisher) Fetch(controller string, payload []byte) {
	request, err := wire.ParseFetch(payload)
	known := err == nil && request.Controller == controller && p.isKnown(controller)
	f := &p.fetches
	f.mu.Lock()
	defer f.mu.Unlock()
	if !known || !f.add(controller, *request, time.Now()) {
		f.counts.Dropped++
		p.o.Logger.Debug("request for parts dropped", "controller_name", controller, "error", err)
		return
	}
	f.counts.Requests++
	f.rouse()
}

func (p *Publisher) isKnown(controller string) bool {
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	l := p.lanes[controller]
	return l != nil && l.known
}

// add queues a request unless its controller asks too much.
func (f *fetches) add(controller string, request wire.Fetch, now time.Time) bool {
	c := f.of[controller]
	if c == nil {
		c = &fetching{controller: controller, tokens: partsBurst, filled: now}
		f.of[controller] = c
	}
	c.tokens = min(partsBurst, c.tokens+now.Sub(c.filled).Seconds()*partsPerSecond)
	c.filled = now
	if c.tokens < float64(len(request.Parts)) || len(c.queue) >= fetchQueue {
		return false
	}
	c.tokens -= float64(len(request.Parts))
	f.arrived(c)
	c.queue = append(c.queue, request)
	if !c.busy {
		c.busy = true
		f.ready = append(f.ready, c)
	}
	return true
}

// arrived notes that nothing is under way to a controller: who asks on, or says what
// it uses, has what it asked for before.
func (f *fetches) arrived(c *fetching) {
	f.underway -= c.underway
	c.underway = 0
}

func (f *fetches) received(controller string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.of[controller]; c != nil && !c.busy {
		f.arrived(c)
	}
}

// next takes the request whose turn it is, if the broker has room for its answer.
func (f *fetches) next(now time.Time) (*fetching, wire.Fetch, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ready) == 0 {
		return nil, wire.Fetch{}, false
	}
	if f.underway > mostUnderway {
		for _, c := range f.of {
			if c.underway > 0 && now.Sub(c.sent) > forgetUnderway {
				f.arrived(c)
			}
		}
		if f.underway > mostUnderway {
			return nil, wire.Fetch{}, false
		}
	}
	c := f.ready[0]
	if f.ready = f.ready[1:]; len(f.ready) > 0 {
		f.rouse() // the next worker
	}
	request := c.queue[0]
	c.queue = c.queue[1:]
	// Counted before they are sent, so that workers at once do not go beyond.
	bytes := int64(len(request.Parts)) * wire.MaxPart
	c.underway, c.sent, f.underway = c.underway+bytes, now, f.underway+bytes
	return c, request, true
}

func (f *fetches) done(c *fetching, asked, parts, bytes int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	over := min(int64(asked)*wire.MaxPart-int64(bytes), c.underway)
	c.underway, f.underway = c.underway-over, f.underway-over
	f.counts.Parts += uint64(parts)
	f.counts.Bytes += uint64(bytes)
	if errors.Is(err, errGone) {
		f.counts.Gone++
	}
	if c.busy = len(c.queue) > 0; c.busy {
		f.ready = append(f.ready, c)
		f.rouse()
	}
}

// answer sends parts to who asks for them.
func (p *Publisher) answer(ctx context.Context) error {
	for {
		c, request, ok := p.fetches.next(time.Now())
		if !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-p.fetches.wake:
			}
			continue
		}
		parts, bytes, err := p.sendParts(ctx, request)
		p.fetches.done(c, len(request.Parts), parts, bytes, err)
		if err != nil && ctx.Err() == nil {
			p.o.Logger.Debug("parts were not sent", "controller_name", request.Controller, "error", err)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (p *Publisher) sendParts(ctx context.Context, request wire.Fetch) (parts, bytes int, err error) {
	b, err := p.store.blob(ctx, request.Controller, request.Blob)
	if err != nil {
		return 0, 0, err
	}
	for _, n := range request.Parts {
		if n >= len(b.Parts) {
			return parts, bytes, errGone
		}
		if err := p.sendPart(ctx, request.Controller, wire.KindChunk, b.Blob, n); err != nil {
			return parts, bytes, err
		}
		parts, bytes = parts+1, bytes+b.PartSize(n)
	}
	return parts, bytes, nil
}

// sendPart sends a part of a blob.
func (p *Publisher) sendPart(ctx context.Context, controller string, kind wire.Kind, b wire.Blob, n int) (err error) {
	f, err := os.Open(p.blobPath(b.ID))
	if err != nil {
		return errors.Join(errGone, err)
	}
	sealed, err := readPart(f, b, n)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	part := wire.Part{Blob: b.ID, Number: n, Sealed: sealed}
	payload, err := part.Marshal()
	if err != nil {
		return err
	}
	return p.publish(ctx, controller, kind, payload)
}
