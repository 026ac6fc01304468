package publisher

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

const (
	// pushUpTo is how large a delta is that is sent before anybody asks for it.
	pushUpTo = 64 << 10
	// sendWithin is how long the broker may take for a message.
	sendWithin = 10 * time.Second
	// tryAgain is how long is waited after a fault.
	tryAgain = 3 * time.Second
	// listAgain is how often the controllers are listed.
	listAgain = time.Second
	// sweepAgain is how often old blobs are deleted.
	sweepAgain = 5 * time.Minute
	// anewAgain is how often everything is made anew for a controller that says that
	// it uses a version which was never made: it may say so of ever higher ones.
	anewAgain = time.Minute
	// mostHurried is for how many people who were changed at once those controllers
	// go first that let them in.
	mostHurried = 8
)

// desk is where the running Publisher keeps what is to be done for each
// controller.
type desk struct {
	p *Publisher

	mu    sync.Mutex
	lanes map[string]*lane
	ready []*lane // to be worked for, first come first served
	wake  chan struct{}

	head   uint64    // of the registry, when it was last looked at
	looked time.Time // and when that was
	fault  string    // what keeps it from being looked at; "": nothing

	reports map[string]report // to be written
	fetches fetches
}

// lane is what is kept of one controller.
type lane struct {
	name  string
	known bool // it is approved
	busy  bool // on the ready list or with a worker
	again bool // there is more to do when the worker is done
	first bool // and before others

	begun    bool      // it was once looked at what there is to publish
	made     uint64    // the registry's head that was last published from
	doing    uint64    // the one that a worker publishes from now
	looked   time.Time // when that was the head
	revision uint64    // of the manifest that was last sent; 0: none on this connection
	version  uint64    // its version, also of an earlier connection
	renew    time.Time // the token
	unsent   bool      // the broker did not take it
	wait     time.Time // after a fault, until when nothing is tried
	fault    string
	reported uint64
	ahead    bool      // it has reported a version above the newest
	anew     time.Time // until when nothing more is made for that
}

func newDesk(p *Publisher) *desk {
	return &desk{p: p, lanes: make(map[string]*lane), wake: make(chan struct{}, 1), reports: make(map[string]report), fetches: newFetches()}
}

// Run publishes what the registry has to say, and answers who asks for parts,
// until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.watch(ctx) })
	for range p.o.Workers {
		g.Go(func() error { return p.work(ctx) })
	}
	for range fetchWorkers {
		g.Go(func() error { return p.answer(ctx) })
	}
	return g.Wait()
}

// Connected says that there is a new connection to the broker, which may have
// forgotten everything. It does not block.
func (p *Publisher) Connected() {
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	for _, l := range p.lanes {
		if l.known {
			l.revision, l.wait = 0, time.Time{}
			p.enqueue(l)
		}
	}
}

// enqueue puts a controller on the ready list. The desk is locked.
func (d *desk) enqueue(l *lane) {
	if l.busy {
		l.again = true
		return
	}
	l.busy = true
	d.ready = append(d.ready, l)
	d.rouse()
}

// hurry puts a controller before all others on the ready list. The desk is locked.
func (d *desk) hurry(l *lane) {
	l.first = true
	if l.busy {
		at := slices.Index(d.ready, l)
		if at < 0 { // with a worker
			l.again = true
			return
		}
		d.ready = slices.Delete(d.ready, at, at+1)
	}
	l.busy = true
	d.ready = slices.Insert(d.ready, 0, l)
	d.rouse()
}

func (d *desk) rouse() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// watch looks at the registry, at what others publish and at the time, and says
// what is to be done.
func (p *Publisher) watch(ctx context.Context) error {
	tick := time.NewTicker(p.o.Look)
	defer tick.Stop()
	var listed, swept time.Time
	written := int64(-1)
	for ; ; p.fetches.rouse() {
		now := time.Now()
		var err error
		if now.Sub(listed) >= listAgain {
			err, listed = p.list(ctx), now
		}
		if err == nil {
			err = p.look(ctx, &written)
		}
		if err == nil {
			err = p.writeReports(ctx)
		}
		if err == nil && now.Sub(swept) >= sweepAgain {
			err, swept = p.sweep(ctx), now
		}
		if p.faulty(ctx, err); err == nil {
			p.due(now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// faulty keeps and logs what is wrong, once.
func (p *Publisher) faulty(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.desk.mu.Lock()
	same := text == p.desk.fault
	p.desk.fault = text
	p.desk.mu.Unlock()
	if !same && err != nil && ctx.Err() == nil {
		p.o.Logger.Error("publishing", "error", err)
	}
}

// look finds out whether anything was changed, in the registry or by another
// publisher.
func (p *Publisher) look(ctx context.Context, written *int64) error {
	if _, err := p.o.Authority(); err != nil && p.anybody() {
		return err // for everybody: it is said once
	}
	at := p.o.Clock()
	head, err := p.o.Registry.Changes(ctx)
	if err != nil {
		return err
	}
	first, err := p.concerned(ctx, head)
	if err != nil {
		return err
	}
	n, err := p.store.changed(ctx)
	if err != nil {
		return err
	}
	var revisions map[string]uint64
	if n != *written {
		if revisions, err = p.store.revisions(ctx); err != nil {
			return err
		}
		*written = n
	}
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	p.head, p.looked = head, at
	for name, n := range revisions {
		if l := p.lanes[name]; l != nil && l.known && l.begun && l.revision != n {
			p.enqueue(l)
		}
	}
	for _, name := range first {
		if l := p.lanes[name]; l != nil && l.known && l.begun && !time.Now().Before(l.wait) {
			p.hurry(l)
		}
	}
	return nil
}

// concerned are the controllers that let those in of whom something was changed
// since the registry was last looked at: somebody may have left.
func (p *Publisher) concerned(ctx context.Context, head uint64) (names []string, err error) {
	p.desk.mu.Lock()
	since := p.head
	p.desk.mu.Unlock()
	if since == 0 || head <= since {
		return nil, nil
	}
	people, err := p.o.Registry.Touched(ctx, since, mostHurried)
	if err != nil {
		return nil, err
	}
	for _, person := range people {
		more, err := p.store.admitting(ctx, person)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return names, nil
}

// anybody says whether there is a controller to publish for.
func (p *Publisher) anybody() bool {
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	for _, l := range p.lanes {
		if l.known {
			return true
		}
	}
	return false
}

// writeReports writes what controllers have reported since the last time.
func (p *Publisher) writeReports(ctx context.Context) error {
	p.desk.mu.Lock()
	all := p.reports
	p.reports = make(map[string]report)
	p.desk.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	err := p.store.report(ctx, all)
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	for name, v := range all {
		_, newer := p.reports[name]
		switch l := p.lanes[name]; {
		case err != nil && !newer:
			p.reports[name] = v
		case err == nil && l != nil && v.version > l.version:
			l.ahead = true // what was published is older than what the controller uses
		}
	}
	return err
}

// list learns which controllers there are.
func (p *Publisher) list(ctx context.Context) error {
	names, err := p.known(ctx)
	if err != nil {
		return err
	}
	reported, err := p.store.reported(ctx)
	if err != nil {
		return err
	}
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	for _, l := range p.lanes {
		l.known = false
	}
	for _, name := range names {
		l := p.lanes[name]
		if l == nil {
			l = &lane{name: name, reported: reported[name].version}
			p.lanes[name] = l
		}
		l.known = true
	}
	return nil
}

// due enqueues the controllers for which there is something to do.
func (p *Publisher) due(now time.Time) {
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	for _, l := range p.lanes {
		l.ahead = l.ahead && l.reported > l.version // of what was sent since
		switch {
		case !l.known || l.busy || now.Before(l.wait):
		case l.ahead && !now.Before(l.anew):
			l.ahead, l.begun, l.anew = false, false, now.Add(anewAgain)
			p.enqueue(l)
		case !l.begun, l.made != p.head, l.unsent, !now.Before(l.renew):
			p.enqueue(l)
		}
	}
}

// work works for one controller after the other.
func (p *Publisher) work(ctx context.Context) error {
	for {
		l := p.take()
		if l == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-p.wake:
			}
			continue
		}
		err := p.serve(ctx, l)
		p.release(ctx, l, err)
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (p *Publisher) take() *lane {
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	if len(p.ready) == 0 {
		return nil
	}
	l := p.ready[0]
	if p.ready = p.ready[1:]; len(p.ready) > 0 {
		p.rouse() // the next worker
	}
	l.again, l.first, l.doing, l.looked = false, false, p.head, p.looked
	return l
}

func (p *Publisher) release(ctx context.Context, l *lane, err error) {
	text := ""
	unsent := errors.Is(err, errNotSent)
	if err != nil && !unsent {
		text = err.Error()
	}
	p.desk.mu.Lock()
	said := l.fault
	l.fault, l.busy, l.unsent = text, false, unsent
	if err != nil {
		l.wait = time.Now().Add(tryAgain)
	} else if l.wait = (time.Time{}); l.again && l.first {
		p.hurry(l)
	} else if l.again {
		p.enqueue(l)
	}
	p.desk.mu.Unlock()
	if text != "" && said != text && ctx.Err() == nil {
		p.o.Logger.Error("publishing", "controller_name", l.name, "error", err)
	}
}

// serve does what there is to do for a controller.
func (p *Publisher) serve(ctx context.Context, l *lane) error {
	if _, err := p.o.Authority(); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err) // watch says why
	}
	p.desk.mu.Lock()
	stale := l.made != l.doing || !l.begun
	p.desk.mu.Unlock()
	if stale {
		scope := Everything
		if p.o.ByCommand {
			scope = Revocations
		}
		m, err := p.Make(ctx, l.name, scope, func() {
			// What is urgent goes out before the rest is made. If that fails it is
			// tried again below.
			if err := p.send(ctx, l); err != nil {
				p.o.Logger.Debug("publishing", "controller_name", l.name, "error", err)
			}
		})
		if err != nil {
			return err
		}
		p.desk.mu.Lock()
		l.begun, l.made = true, l.doing
		p.desk.mu.Unlock()
		if m.Versions > 0 {
			p.o.Logger.Info("published", "controller_name", l.name, "version", strconv.FormatUint(m.Version, 10), "rows", strconv.Itoa(m.Rows))
		}
	}
	if err := p.renew(ctx, l.name); err != nil {
		return err
	}
	if err := p.send(ctx, l); err != nil {
		return err
	}
	return p.compact(ctx, l.name)
}

// renew signs a manifest again whose key is another now, or that ends soon.
func (p *Publisher) renew(ctx context.Context, controller string) error {
	a, err := p.o.Authority()
	if err != nil {
		return err
	}
	v, err := readPublished(ctx, p.store.r, controller)
	if err != nil || v.version == 0 || v.key == a.KeyID && p.o.Clock().Before(v.expires.Add(-p.o.Valid/2)) {
		return err
	}
	err = p.store.transact(ctx, func(tx *sql.Tx) error {
		now, err := readPublished(ctx, tx, controller)
		if err != nil {
			return err
		}
		if err := p.sign(ctx, tx, &now); err != nil {
			return err
		}
		return writeController(ctx, tx, now.version, now)
	})
	if err != nil {
		return fmt.Errorf("sign the manifest of %s again: %w", controller, err)
	}
	return nil
}

// send announces the newest version of a controller, if that was not done on this
// connection or a fresh token is due.
func (p *Publisher) send(ctx context.Context, l *lane) error {
	v, err := readPublished(ctx, p.store.r, l.name)
	if err != nil {
		return err
	}
	p.desk.mu.Lock()
	sent, looked := *l, l.looked
	newest := l.made == p.head
	if newest {
		looked = p.looked
	}
	// Where the registry has more, a token would say too much.
	due := newest && !time.Now().Before(l.renew)
	if v.version == 0 {
		l.renew = time.Now().Add(p.o.Renew)
	}
	p.desk.mu.Unlock()
	if v.version == 0 || sent.revision == v.revision && !due {
		return nil
	}
	if err := p.push(ctx, v, sent); err != nil {
		return err
	}
	payload, err := p.publication(v, looked)
	if err != nil {
		return err
	}
	if err := p.publish(ctx, l.name, wire.KindManifest, payload); err != nil {
		return err
	}
	p.desk.mu.Lock()
	l.revision, l.version, l.renew = v.revision, v.version, time.Now().Add(p.o.Renew)
	p.desk.mu.Unlock()
	return nil
}

// publication is what announces a version, with a token that says that it was the
// newest when the registry was last looked at.
func (p *Publisher) publication(v published, looked time.Time) ([]byte, error) {
	a, err := p.o.Authority()
	if err != nil {
		return nil, err
	}
	looked = looked.UTC().Truncate(time.Second)
	fresh := wire.Fresh{V: wire.Version, Controller: v.name, Version: v.version, Time: looked, Until: looked.Add(freshFor * p.o.Renew)}
	token, err := fresh.Sign(a.Fresh)
	if err != nil {
		return nil, err
	}
	w := wire.Publication{V: wire.Version, Controller: v.name, Authority: a.JWS, Manifest: v.manifest, Fresh: token}
	return w.Marshal()
}

// push sends a small delta before the manifest that names it, to a controller that
// has the version before: it need not ask then.
func (p *Publisher) push(ctx context.Context, v published, sent lane) error {
	if v.version <= sent.version {
		return nil
	}
	all, err := current(ctx, p.store.r, v.name)
	if err != nil || len(all) == 0 {
		return err
	}
	b := all[len(all)-1]
	if b.From == 0 || len(b.Parts) > 1 || b.Bytes > pushUpTo || b.To != v.version || sent.reported != b.From && sent.version != b.From {
		return nil
	}
	return p.sendPart(ctx, v.name, wire.KindDelta, b, 0)
}

func (p *Publisher) publish(ctx context.Context, controller string, kind wire.Kind, payload []byte) error {
	topic, err := wire.Topic(controller, kind)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	if err := p.o.Sender.Publish(ctx, topic, payload, kind.Retained()); err != nil {
		return fmt.Errorf("%w: %s to %s: %w", errNotSent, kind, controller, err)
	}
	return nil
}

// Report takes what a controller says that it uses, now. It does not block.
func (p *Publisher) Report(controller string, version uint64) {
	p.fetches.received(controller)
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	l := p.lanes[controller]
	if l == nil || !l.known || l.reported == version {
		return
	}
	l.reported = version
	p.reports[controller] = report{version, p.o.Clock()}
}

// Faults are what keeps from publishing, by controller; "" is of all of them.
func (p *Publisher) Faults() map[string]string {
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	all := make(map[string]string)
	if p.desk.fault != "" {
		all[""] = p.desk.fault
	}
	for _, name := range slices.Sorted(maps.Keys(p.lanes)) {
		if l := p.lanes[name]; l.fault != "" && l.known {
			all[name] = l.fault
		}
	}
	return all
}

var (
	// errGone is that a controller asks for what is not there.
	errGone = errors.New("it is not there any more")
	// errNotSent is that the broker did not take a message. It is tried again, and
	// that there is no connection is said elsewhere.
	errNotSent = errors.New("not sent")
)
