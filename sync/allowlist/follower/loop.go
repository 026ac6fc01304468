package follower

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// loop is the follower's one goroutine.
type loop struct {
	f   *Follower
	ctx context.Context

	want   *wanted
	pushed []wire.Part // before a manifest named them, the oldest first
	heard  time.Time   // the newest token
	floor  uint64
	serial uint64
	unfit  string // the manifest of which nothing could be applied

	tokens   float64 // parts that may be asked for now
	filled   time.Time
	asked    map[int]bool // of the blob that is being fetched
	patience time.Duration
	deadline *time.Timer // for what was asked for
	retry    *time.Timer // after a fault of this machine, or when more may be asked for
	faulty   bool        // nothing is done until retry

	recorded map[Refusal]*recorded
}

// wanted is a verified manifest that is not in use yet.
type wanted struct {
	jws   string
	m     *wire.Manifest
	at    time.Time   // of its newest token
	fresh *wire.Fresh // nil: it had ended
	whole bool        // the deltas did not fit
	from  uint64      // the version that blobs were chosen for
	blobs []*incoming // that lead to it, in their order; nil: to be chosen
	known []*incoming // that were chosen before
}

// incoming is a blob of which parts are missing or wait to be applied.
type incoming struct {
	wire.Blob
	has     []bool
	missing int
	inHand  []byte // of a small blob: its only part
}

func (b *incoming) small() bool { return len(b.Parts) == 1 && b.Bytes <= maxOnePart }

// recorded is when a refusal was last recorded and logged, and how many there were
// since.
type recorded struct {
	at   time.Time
	more uint64
}

// Run follows the CRM until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	if err := os.MkdirAll(f.o.Spool, 0o700); err != nil {
		return fmt.Errorf("folder of the allowlist's parts: %w", err)
	}
	l := &loop{f: f, ctx: ctx, serial: f.o.Serial, tokens: partBurst, patience: f.o.Patience, deadline: stopped(), retry: stopped(), recorded: make(map[Refusal]*recorded)}
	defer l.deadline.Stop()
	defer l.retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
			// In the order in which they came: a delta comes before the manifest that
			// names it.
			l.drain()
			l.raise()
			if payload := f.manifest.Swap(nil); payload != nil {
				l.hear(*payload)
			}
			if f.connected.Swap(false) {
				l.forgetAsked()
			}
		case payload := <-f.pushes:
			l.push(payload)
		case payload := <-f.parts:
			l.part(payload)
		case <-l.deadline.C:
			l.patience = min(2*l.patience, f.o.MaxPatience)
			l.asked = nil
		case <-l.retry.C:
			l.faulty = false
		}
		l.follow()
		l.report()
	}
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// drain takes the parts that have come.
func (l *loop) drain() {
	for {
		select {
		case payload := <-l.f.pushes:
			l.push(payload)
		case payload := <-l.f.parts:
			l.part(payload)
		default:
			return
		}
	}
}

func (l *loop) raise() {
	if floor := l.f.floor.Load(); floor > l.floor {
		l.floor = floor
		l.f.o.Source.Raise(floor)
	}
}

func (l *loop) forgetAsked() {
	l.asked, l.patience = nil, l.f.o.Patience
	l.deadline.Stop()
}

// refused is an error that says why something was refused.
type refused struct {
	why Refusal
	err error
}

func (r *refused) Error() string { return r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

// hear looks at a publication.
func (l *loop) hear(payload []byte) {
	p, m, fresh, err := l.open(payload)
	if err != nil {
		l.refuse(err)
		return
	}
	have, generation := l.f.o.Source.Newest()
	switch floor := max(have, l.floor); {
	case m.Version < floor:
		l.refuse(&refused{Downgrade, fmt.Errorf("manifest of version %d, and version %d was used here", m.Version, floor)})
		return
	case l.want != nil && m.Version < l.want.m.Version && !fresh.Time.After(l.want.at):
		// By a newer token it is the newest: a CRM that was put back to an older state
		// has nothing any more of what was wanted, and was not used.
		l.refuse(&refused{Replayed, fmt.Errorf("manifest of version %d after one of version %d", m.Version, l.want.m.Version)})
		return
	}
	inUse := m.Version == have && generation == m.Generation
	if passed := l.f.o.Clock.Passed(); !inUse && !passed.Before(m.Expires) {
		l.refuse(&refused{Expired, fmt.Errorf("manifest of version %d was to be begun with until %s", m.Version, m.Expires.Format(time.RFC3339))})
		return
	}
	l.f.set(func(s *Status) { s.Manifests++; s.Version = m.Version })
	at := fresh.Time
	fresh = l.token(fresh)
	switch {
	case inUse:
		l.want = nil
		l.confirm(m, fresh)
	case p.Manifest == l.unfit:
	case l.want != nil && l.want.jws == p.Manifest:
		l.want.at = later(l.want.at, at)
		if fresh != nil {
			l.want.fresh = fresh
		}
	default:
		w := &wanted{jws: p.Manifest, m: m, at: at, fresh: fresh}
		if l.want != nil { // what has come of a blob that is named again still counts
			for _, b := range append(l.want.blobs, l.want.known...) {
				if b.inHand != nil && len(w.known) < wire.MaxDeltas {
					w.known = append(w.known, b)
				}
			}
		}
		l.want, l.faulty = w, false
		l.forgetAsked()
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// open verifies a publication: from the pinned root to the policy key, and by that
// the manifest and the token.
func (l *loop) open(payload []byte) (p *wire.Publication, m *wire.Manifest, fresh *wire.Fresh, err error) {
	fail := func(why Refusal, err error) (*wire.Publication, *wire.Manifest, *wire.Fresh, error) {
		if errors.Is(err, wire.ErrTooLarge) {
			why = TooLarge
		}
		return nil, nil, nil, &refused{why, err}
	}
	o := &l.f.o
	if p, err = wire.ParsePublication(payload); err != nil {
		return fail(Malformed, err)
	}
	if p.Controller != o.Controller {
		return fail(WrongController, fmt.Errorf("publication is for controller %q", p.Controller))
	}
	key, err := o.Authority(p.Authority)
	if err != nil {
		return fail(WrongSignature, err)
	}
	if err := key.Check(o.Clock.Passed(), l.serial); err != nil {
		if errors.Is(err, keys.ErrPolicyKeyEnded) {
			return fail(Expired, err)
		}
		return fail(Downgrade, err)
	}
	manifests, err := key.Verifier(keys.TypeManifest)
	if err != nil {
		return fail(WrongSignature, err)
	}
	tokens, err := key.Verifier(keys.TypeFresh)
	if err != nil {
		return fail(WrongSignature, err)
	}
	payload, err = manifests.Verify(p.Manifest)
	if err != nil {
		return fail(WrongSignature, fmt.Errorf("manifest: %w", err))
	}
	if m, err = wire.ParseManifest(payload); err != nil {
		return fail(Malformed, err)
	}
	if payload, err = tokens.Verify(p.Fresh); err != nil {
		return fail(WrongSignature, fmt.Errorf("fresh token: %w", err))
	}
	if fresh, err = wire.ParseFresh(payload); err != nil {
		return fail(Malformed, err)
	}
	switch {
	case m.Controller != o.Controller || fresh.Controller != o.Controller:
		return fail(WrongController, fmt.Errorf("manifest is for controller %q, its token for %q", m.Controller, fresh.Controller))
	case fresh.Version != m.Version:
		return fail(Malformed, fmt.Errorf("manifest of version %d with a token of version %d", m.Version, fresh.Version))
	case m.Count > maxCount:
		return fail(TooLarge, fmt.Errorf("manifest of %d credentials, more than %d", m.Count, maxCount))
	case m.Generation != o.Generation:
		return fail(WrongPepper, errors.New("manifest is for another pepper than this controller's: have the controller join the CRM again"))
	}
	l.certified(key)
	return p, m, fresh, nil
}

// certified keeps what must not be forgotten of the key that signs.
func (l *loop) certified(key *keys.PolicyKey) {
	l.f.key.Store(key)
	if key.Serial <= l.serial {
		return
	}
	if l.f.o.Certified != nil {
		if err := l.f.o.Certified(key); err != nil {
			l.f.o.Logger.Error("the policy key's certificate is not kept", "error", err)
			return // it is tried again with the next manifest
		}
	}
	l.serial = key.Serial
}

// token returns the token if it says something: it has not ended, and it is not
// older than another one that was heard.
func (l *loop) token(fresh *wire.Fresh) *wire.Fresh {
	switch passed := l.f.o.Clock.Passed(); {
	case !passed.Before(fresh.Until):
		// The broker keeps the last manifest also while the CRM is away.
		l.f.set(func(s *Status) { s.Stale++ })
		return nil
	case fresh.Time.Before(l.heard):
		l.refuse(&refused{Replayed, fmt.Errorf("token of %s after one of %s", fresh.Time.Format(time.RFC3339), l.heard.Format(time.RFC3339))})
		return nil
	}
	l.heard = fresh.Time
	l.f.set(func(s *Status) { s.Fresh = fresh.Time })
	return fresh
}

// confirm says that the version in use is the newest.
func (l *loop) confirm(m *wire.Manifest, fresh *wire.Fresh) {
	if fresh != nil {
		l.f.o.Source.Confirm(m.Version, fresh.Time, l.f.o.Clock.Floor())
	}
}

// refuse counts what was refused, and records it where that was not done a short
// time ago.
func (l *loop) refuse(err error) {
	r, ok := errors.AsType[*refused](err)
	if !ok {
		r = &refused{Malformed, err}
	}
	l.f.set(func(s *Status) { s.Refused[r.why]++; s.LastRefusal = r.Error() })
	last := l.recorded[r.why]
	if last != nil && time.Since(last.at) < l.f.o.RecordEvery {
		last.more++
		return
	}
	l.f.o.Logger.Warn("allowlist from the CRM refused", "why", string(r.why), "error", r.err)
	var more uint64
	if last != nil {
		more = last.more
	}
	if l.f.o.Refused != nil {
		if err := l.f.o.Refused(l.ctx, r.why, r.Error(), more); err != nil {
			l.f.o.Logger.Error("a refused allowlist is not recorded", "error", err)
			return
		}
	}
	l.recorded[r.why] = &recorded{at: time.Now()}
}

// push takes a delta that was sent without being asked for.
func (l *loop) push(payload []byte) {
	p, err := wire.ParsePart(payload)
	if err != nil {
		l.refusePart(err)
		return
	}
	if l.take(p) {
		return
	}
	if len(l.pushed) == maxPushed {
		l.pushed = slices.Delete(l.pushed, 0, 1)
	}
	l.pushed = append(l.pushed, p)
}

// part takes a part that was asked for.
func (l *loop) part(payload []byte) {
	p, err := wire.ParsePart(payload)
	if err != nil {
		l.refusePart(err)
		return
	}
	l.take(p) // one that nobody waits for any more is nothing new
}

func (l *loop) refusePart(err error) {
	why := Malformed
	if errors.Is(err, wire.ErrTooLarge) {
		why = TooLarge
	}
	l.refuse(&refused{why, err})
}

// take keeps a part of a blob that is wanted, and says whether it is of one.
func (l *loop) take(p wire.Part) bool {
	if l.want == nil {
		return false
	}
	at := slices.IndexFunc(l.want.blobs, func(b *incoming) bool { return b.ID == p.Blob })
	if at < 0 {
		return false
	}
	b := l.want.blobs[at]
	if err := b.CheckPart(p.Number, p.Sealed); err != nil {
		l.refuse(&refused{WrongPart, err})
		return true
	}
	delete(l.asked, p.Number)
	if b.has[p.Number] {
		return true
	}
	if b.small() {
		b.inHand = p.Sealed
	} else if err := l.f.spool.keep(&b.Blob, p.Number, p.Sealed); err != nil {
		l.fault(err)
		return true
	}
	b.has[p.Number] = true
	b.missing--
	l.patience = l.f.o.Patience
	if len(l.asked) > 0 {
		l.deadline.Reset(jitter(l.patience))
	}
	l.f.set(func(s *Status) { s.Received++ })
	return true
}

// fault is something wrong with this machine: it is tried again later.
func (l *loop) fault(err error) {
	if l.ctx.Err() != nil {
		return
	}
	l.f.set(func(s *Status) { s.Fault = err.Error() })
	l.f.o.Logger.Error("allowlist from the CRM", "error", err)
	l.faulty = true
	l.retry.Reset(l.f.o.RetryEvery)
}

// follow does what can be done to bring the version that is wanted into use.
func (l *loop) follow() {
	for l.want != nil && !l.faulty && l.ctx.Err() == nil {
		have, generation := l.f.o.Source.Newest()
		m := l.want.m
		if generation != m.Generation || l.want.whole && have < m.Version {
			have = 0
		}
		if have >= m.Version {
			l.done()
			return
		}
		if l.want.blobs == nil || l.want.from != have {
			if err := l.choose(have); err != nil {
				l.fault(err)
				return
			}
		}
		ready := l.ready()
		if ready == 0 {
			l.ask()
			return
		}
		if !l.apply(ready) {
			return
		}
	}
}

// done ends with a version that is in use.
func (l *loop) done() {
	l.confirm(l.want.m, l.want.fresh)
	l.want, l.unfit = nil, ""
	l.forgetAsked()
	l.f.set(func(s *Status) { s.Fault = "" })
	if err := l.f.spool.retain(nil); err != nil {
		l.f.o.Logger.Warn("allowlist: parts that were applied are not removed", "error", err)
	}
}

// choose finds the blobs that lead from a version to the one that is wanted, and
// what is there of them.
func (l *loop) choose(have uint64) error {
	path := l.want.m.Path(have)
	if err := l.f.spool.retain(path); err != nil {
		return err
	}
	blobs := make([]*incoming, len(path))
	for i := range path {
		b := &incoming{Blob: path[i], has: make([]bool, len(path[i].Parts))}
		if !b.small() {
			has, err := l.f.spool.has(&b.Blob)
			if err != nil {
				return err
			}
			b.has = has
		} else if sealed := l.inHand(&b.Blob); sealed != nil {
			b.has[0], b.inHand = true, sealed
		}
		for _, is := range b.has {
			if !is {
				b.missing++
			}
		}
		blobs[i] = b
	}
	l.want.from, l.want.blobs, l.want.known = have, blobs, nil
	l.asked = nil
	for _, p := range l.pushed {
		l.take(p)
	}
	return nil
}

// inHand is the part of a small blob that has come already; nil: it has not.
func (l *loop) inHand(b *wire.Blob) []byte {
	for _, k := range append(l.want.blobs, l.want.known...) {
		if k.ID == b.ID && b.CheckPart(0, k.inHand) == nil {
			return k.inHand
		}
	}
	return nil
}

// ready is how many of the blobs can be applied now: the first ones that are
// complete, but a snapshot only with all that follows it, since by itself it may be
// older than what is in use.
func (l *loop) ready() (n int) {
	blobs := l.want.blobs
	for n < len(blobs) && blobs[n].missing == 0 {
		n++
	}
	if n < len(blobs) && blobs[0].From == 0 {
		return 0
	}
	return n
}

// ask asks for parts of the first blob that is not complete, some at a time.
func (l *loop) ask() {
	if len(l.asked) > wire.MaxFetchParts/2 {
		return
	}
	at := slices.IndexFunc(l.want.blobs, func(b *incoming) bool { return b.missing > 0 })
	b := l.want.blobs[at]
	var next []int
	for n := range b.has {
		if !b.has[n] && !l.asked[n] {
			next = append(next, n)
		}
		if len(next)+len(l.asked) == wire.MaxFetchParts {
			break
		}
	}
	if next = next[:min(len(next), l.allowed())]; len(next) == 0 {
		return // all of them are on their way, or it is too soon
	}
	have, _ := l.f.o.Source.Newest()
	fetch := wire.Fetch{V: wire.Version, Controller: l.f.o.Controller, Blob: b.ID, Parts: next, Have: have}
	payload, err := fetch.Marshal()
	if err != nil {
		l.fault(err)
		return
	}
	l.deadline.Reset(jitter(l.patience))
	if l.asked == nil {
		l.asked = make(map[int]bool)
	}
	for _, n := range next {
		l.asked[n] = true
	}
	l.tokens -= float64(len(next))
	ctx, cancel := context.WithTimeout(l.ctx, l.patience)
	defer cancel()
	if err := l.f.o.Publisher.Publish(ctx, l.f.topic, payload, wire.KindFetch.Retained()); err != nil {
		return // a new connection, or the deadline, brings it again
	}
	l.f.set(func(s *Status) { s.Fetches++ })
}

// allowed is how many parts may be asked for now. The CRM gives a controller no more
// in a second, and drops what is beyond that.
func (l *loop) allowed() int {
	now := time.Now()
	l.tokens = min(partBurst, l.tokens+now.Sub(l.filled).Seconds()*partsPerSecond)
	l.filled = now
	if l.tokens < 1 {
		l.retry.Reset(time.Second / 4)
	}
	return int(l.tokens)
}

// jitter spreads the controllers that miss the same parts at the same time.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/4+1) }

// apply applies the first blobs, and says whether there is more to do.
func (l *loop) apply(n int) bool {
	w := l.want
	blobs := w.blobs[:n]
	u := allowlist.Update{Version: blobs[n-1].To, Created: w.m.Created, Generation: w.m.Generation, Count: -1, From: blobs[0].From}
	if n == len(w.blobs) {
		u.Version, u.Count = w.m.Version, int64(w.m.Count)
	}
	for _, b := range blobs {
		u.Changes = append(u.Changes, func() (allowlist.Changes, error) { return l.read(b) })
	}
	err := l.f.o.Source.Apply(l.ctx, u)
	spoiled, isSpoiled := errors.AsType[*errSpoiled](err)
	switch {
	case l.ctx.Err() != nil:
		return false
	case err == nil:
		l.f.set(func(s *Status) {
			s.Fault = ""
			if u.From == 0 {
				s.Snapshots++
				s.Deltas += uint64(n - 1)
			} else {
				s.Deltas += uint64(n)
			}
		})
		if l.f.o.Applied != nil {
			l.f.o.Applied()
		}
		return true
	case isSpoiled:
		l.f.o.Logger.Warn("allowlist: a part is fetched again", "error", spoiled)
		w.blobs = nil
		return true
	case errors.Is(err, allowlist.ErrUnfit) || errors.Is(err, wire.ErrBlob):
		l.refuse(&refused{Unfit, err})
		if u.From > 0 {
			w.whole, w.blobs = true, nil // what is here may be wrong, and not what came
			return true
		}
		l.unfit, l.want = w.jws, nil
		l.forgetAsked()
		return false
	default:
		l.fault(err)
		return false
	}
}

// errSpoiled is that a part is not as it was written to the spool.
type errSpoiled struct{ error }

func (e *errSpoiled) Unwrap() error { return e.error }

// read reads the rows of a blob that is complete.
func (l *loop) read(b *incoming) (allowlist.Changes, error) {
	r, err := wire.OpenBlob(b.Blob, l.f.o.Blobs, l.f.o.Controller, func(n int) ([]byte, error) {
		if b.inHand != nil {
			return b.inHand, nil
		}
		sealed, err := l.f.spool.read(&b.Blob, n)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &errSpoiled{err}
		}
		if err == nil {
			if err := b.CheckPart(n, sealed); err != nil {
				return nil, &errSpoiled{errors.New(err.Error())} // not a fault of what was signed
			}
		}
		return sealed, err
	})
	if err != nil {
		return nil, err
	}
	return rows{r}, nil
}

// rows are the rows of a blob.
type rows struct{ *wire.BlobReader }

// Next returns the next row.
func (r rows) Next() (allowlist.Row, error) {
	row, err := r.BlobReader.Next()
	return allowlist.Row(row), err
}

// report publishes the loop's view for Status.
func (l *loop) report() {
	var missing, parts int
	if l.want != nil {
		for _, b := range l.want.blobs {
			missing, parts = missing+b.missing, parts+len(b.Parts)
		}
	}
	l.f.set(func(s *Status) { s.Missing, s.Parts = missing, parts })
}
