package door

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const (
	lateAfter  = time.Second // a record that is written so long after its event says so
	maxPending = 4096        // records that wait while the log cannot be written
)

// pending is a record that is to be written.
type pending struct {
	draft    visitorlog.Draft
	cause    *Grant          // whose decision the record follows from
	decides  *Grant          // the record is the late one of this decision
	with     *Grant          // and of this one, that is decided with it
	result   <-chan appended // of an append of this record that has not ended
	reserved bool            // may use the space that is kept
	at       time.Time       // of the event, monotonic
	wall     time.Time       // of the event, as the controller knew it
	key      string          // of its like, which are coalesced; empty: never
	// also is what changes with the record, and a text for it; nil: nothing.
	also func(*visitorlog.Tx) (detail string, err error)
}

// recorder writes the records that follow from something, in order, and keeps
// trying while the log cannot be written. Nobody waits for it.
type recorder struct {
	door   string
	log    Log
	logger *slog.Logger
	wake   chan struct{}

	mu       sync.Mutex
	queue    []*pending
	lost     int // since the last record: queue was full
	lostEver int
	like     coalescer
}

func newRecorder(door string, log Log, logger *slog.Logger) *recorder {
	return &recorder{door: door, log: log, logger: logger, wake: make(chan struct{}, 1)}
}

// offer asks whether a record may be written now. If not, it is counted with
// its like and written by the recorder when its turn comes. The text says what
// was counted before.
func (r *recorder) offer(p *pending) (more string, ok bool) {
	r.mu.Lock()
	more, ok = r.like.offer(p)
	r.mu.Unlock()
	if !ok {
		r.poke() // to wait for its turn
	}
	return more, ok
}

// add queues a record.
func (r *recorder) add(p *pending) {
	r.mu.Lock()
	more, ok := "", true
	if p.key != "" {
		more, ok = r.like.offer(p)
	}
	if ok {
		p.draft.Data.Detail = sentences(p.draft.Data.Detail, more)
		r.push(p)
	}
	r.mu.Unlock()
	r.poke()
}

// push queues a record; r.mu is held.
func (r *recorder) push(p *pending) {
	if len(r.queue) >= maxPending {
		r.lost++
		r.lostEver++
		r.logger.Error("record lost", "type", string(p.draft.Type), "reason", "too many records wait")
		return
	}
	r.queue = append(r.queue, p)
}

func (r *recorder) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// waiting is how many records wait, and how many were lost since the start.
func (r *recorder) waiting() (n, lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue), r.lostEver
}

// head is the next record, which stays in the queue; nil: there is none, and
// next is when one may come of those that were coalesced.
func (r *recorder) head(now time.Time) (p *pending, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.like.due(now) {
		r.push(p)
	}
	if len(r.queue) == 0 {
		return nil, r.like.next()
	}
	// What may use the space that is kept does not wait on a full disk for
	// what may not.
	if i := slices.IndexFunc(r.queue, func(p *pending) bool { return p.reserved }); i > 0 {
		first := r.queue[i]
		copy(r.queue[1:], r.queue[:i])
		r.queue[0] = first
	}
	return r.queue[0], time.Time{}
}

// written takes the head off the queue; it is there no more, or lost.
func (r *recorder) written(lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue[0] = nil
	r.queue = r.queue[1:]
	if lost {
		r.lost++
		r.lostEver++
	}
	if r.lost > 0 && len(r.queue) < maxPending {
		now := time.Now()
		r.queue = append(r.queue, &pending{at: now, wall: now, draft: visitorlog.Draft{
			Type: visitorlog.Gap,
			Data: visitorlog.Data{Door: r.door, Detail: fmt.Sprintf("%d records could not be written and were lost", r.lost)},
		}})
		r.lost = 0
	}
}

// run writes until ctx ends. It reports when the log begins to fail, and nil
// whenever it worked.
func (r *recorder) run(ctx context.Context, report func(error)) {
	var wait time.Duration
	for ctx.Err() == nil {
		p, next := r.head(time.Now())
		if p == nil {
			var turn <-chan time.Time
			if !next.IsZero() {
				turn = time.After(time.Until(next))
			}
			select {
			case <-ctx.Done():
			case <-r.wake:
			case <-turn:
			}
			continue
		}
		err := r.write(ctx, p)
		switch {
		case err == nil:
			r.written(false)
			report(nil)
			wait = 0
		case errors.Is(err, visitorlog.ErrDraft):
			// It would be refused again, and those behind it must not wait.
			r.logger.Error("record lost", "type", string(p.draft.Type), "error", err)
			r.written(p.draft.Type != visitorlog.Gap) // one gap tells of all that are lost
		case ctx.Err() != nil:
		default:
			if wait == 0 {
				report(err)
			}
			wait = longer(wait)
			sleep(ctx, wait)
		}
	}
}

// flush tries once more to write all that is left; what cannot be written is
// lost, and the program's own log says so.
func (r *recorder) flush(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	r.mu.Lock()
	for _, p := range r.like.drain() {
		r.push(p)
	}
	r.mu.Unlock()
	for {
		p, _ := r.head(time.Time{})
		if p == nil {
			return
		}
		if err := r.write(ctx, p); err != nil {
			attrs := append([]any{"type", string(p.draft.Type), "error", err}, grantAttrs(p.cause)...)
			r.logger.Error("record lost", attrs...)
		}
		r.written(false)
	}
}

// write makes one record durable.
func (r *recorder) write(ctx context.Context, p *pending) error {
	if p.result != nil {
		select {
		case a := <-p.result:
			p.result = nil
			if a.err == nil {
				if p.decides != nil {
					p.decides.lateTraces = a.traces()
				}
				r.done(p, a.entry)
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	appendRecord := r.log.Append
	if p.reserved {
		appendRecord = r.log.AppendReserved
	}
	var entry visitorlog.Entry
	err := guard(func() (err error) {
		entry, err = appendRecord(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
			draft := r.complete(p)
			if p.also == nil {
				return draft, nil
			}
			detail, err := p.also(tx)
			draft.Data.Detail = sentences(draft.Data.Detail, detail)
			return draft, err
		})
		return err
	})
	if err == nil {
		r.done(p, entry)
	}
	return err
}

// complete fills in what is known only when the record is written.
func (r *recorder) complete(p *pending) visitorlog.Draft {
	draft := p.draft
	if g := p.cause; g != nil {
		if seq := g.Sequence; g.Durable {
			draft.Data.Cause = &seq
		} else {
			draft.Data.Cause = g.late
		}
	}
	if time.Since(p.at) > lateAfter {
		wall := p.wall.UTC()
		draft.Data.Late, draft.Data.Occurred = true, &wall
	}
	return draft
}

// done says in the program's own log what stands in the record.
func (r *recorder) done(p *pending, e visitorlog.Entry) {
	for _, g := range []*Grant{p.decides, p.with} {
		if g != nil {
			g.late = &e.Seq
		}
	}
	d := e.Record.Data
	attrs := []any{"seq", e.Seq}
	if d.Late {
		attrs = append(attrs, "late", true)
	}
	message := "door"
	switch e.Record.Type {
	case visitorlog.DecisionGranted, visitorlog.DecisionDenied:
		message = "decision"
		attrs = append(attrs, "reader", d.Reader, "direction", string(d.Direction), "decision", d.Decision,
			"reason", string(d.Reason), "person", e.Record.Subject)
	case visitorlog.PassageEntered, visitorlog.PassageLeft, visitorlog.PassageNotEntered:
		message = "passage"
		attrs = append(attrs, "passage", eventName(e.Record.Type), "reader", d.Reader, "direction", string(d.Direction),
			"person", e.Record.Subject)
	default:
		attrs = append(attrs, "event", eventName(e.Record.Type))
		if e.Record.Subject != "" {
			attrs = append(attrs, "person", e.Record.Subject)
		}
		if d.Reader != "" {
			attrs = append(attrs, "reader", d.Reader)
		}
	}
	if d.Cause != nil {
		attrs = append(attrs, "cause", *d.Cause)
	}
	if d.Active != nil {
		attrs = append(attrs, "active", *d.Active)
	}
	if d.Detail != "" {
		attrs = append(attrs, "detail", d.Detail)
	}
	r.logger.Info(message, attrs...)
}

// reportLog makes the log's fault known to the loop.
func (d *Door) reportLog(ctx context.Context) func(error) {
	return func(err error) { d.post(ctx, func(l *loop) { l.fault("log", err) }) }
}

// eventName is the last part of a type's name, such as forced.
func eventName(t visitorlog.Type) string { return string(t)[strings.LastIndexByte(string(t), '.')+1:] }

// grantAttrs names a grant in the program's own log.
func grantAttrs(g *Grant) []any {
	if g == nil {
		return nil
	}
	attrs := []any{"reader", g.Reader, "person", g.Person, "latency_ms", milliseconds(time.Since(g.At))}
	if g.Durable {
		attrs = append(attrs, "seq", g.Sequence)
	}
	return attrs
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// sentences joins two texts of which either may be empty.
func sentences(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
