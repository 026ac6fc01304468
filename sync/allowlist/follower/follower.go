// Package follower is the controller's end of the allowlist from the CRM: it hears
// which version there is, verifies that, fetches what is missing, and has it put in
// force.
//
// What is heard comes through a broker that may be anybody's. So nothing counts but
// what the policy key signed, for this controller, that is not older than what was
// used here before. All else is refused: counted by its reason, and recorded.
package follower

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// Source is the list that the doors use; *allowlist.Source is one.
type Source interface {
	// Newest is the version that is served and the generation of its pepper; 0: none
	// is served.
	Newest() (version uint64, generation string)
	// Apply puts an update in force, or nothing of it. An error that is an
	// allowlist.ErrUnfit, or one of the update's own, says that it never will be.
	Apply(ctx context.Context, u allowlist.Update) error
	// Confirm says when a version was the newest; see allowlist.Source.
	Confirm(version uint64, at, floor time.Time)
	// Raise says that a version was used here before.
	Raise(floor uint64)
}

// Publisher publishes an MQTT message. It returns when the broker has taken it, or
// an error at once if there is no connection.
type Publisher interface {
	Publish(ctx context.Context, topic string, payload []byte, retained bool) error
}

// Clock is the controller's clock.
type Clock interface {
	// Passed is a time that has certainly passed, or is now by a clock that
	// something vouches for: what ended before it has ended. Zero: none is known.
	Passed() time.Time
	// Floor is the latest time that the CRM has vouched for; zero: none.
	Floor() time.Time
}

// Refusal is why something was refused.
type Refusal string

// The reasons to refuse something.
const (
	Malformed       Refusal = "malformed"        // it cannot be read
	TooLarge        Refusal = "too_large"        // beyond the limits of the wire
	WrongController Refusal = "wrong_controller" // it is addressed to another one
	WrongSignature  Refusal = "wrong_signature"  // the chain does not lead from the pinned root to it
	WrongPepper     Refusal = "wrong_pepper"     // made for another pepper than this controller's
	Downgrade       Refusal = "downgrade"        // older than what was used here
	Replayed        Refusal = "replayed"         // older than what was heard before
	Expired         Refusal = "expired"          // not to be begun with any more
	WrongPart       Refusal = "wrong_part"       // bytes that are not those that were signed
	Unfit           Refusal = "unfit"            // signed, and yet it cannot be applied
)

// Refusals are all reasons, in the order in which they are looked for.
func Refusals() []Refusal {
	return []Refusal{Malformed, TooLarge, WrongController, WrongSignature, WrongPepper, Downgrade, Replayed, Expired, WrongPart, Unfit}
}

// Options is what a Follower needs from outside. Zero durations mean the defaults.
type Options struct {
	Controller string
	// Authority verifies the chain from the pinned policy root to the policy key:
	// keys.OpenPolicyKey with that root.
	Authority func(authority []string) (*keys.PolicyKey, error)
	// Serial is the highest serial of a policy key's certificate that was seen
	// before. Certified is called when a higher one was verified, so that it is not
	// forgotten, nor a new root; it may be nil.
	Serial    uint64
	Certified func(*keys.PolicyKey) error
	// Generation names this controller's pepper, and Blobs opens what is sealed with
	// it.
	Generation string
	Blobs      wire.Sealer
	Source     Source
	Publisher  Publisher
	Clock      Clock
	// Applied is called when a version is in use that was not before, so that the CRM
	// is told. It must not block. It may be nil.
	Applied func()
	// Spool is the folder in which parts of blobs wait until all are there. It holds
	// nothing else.
	Spool string
	// Refused records what was refused, not more often than once in RecordEvery for
	// each reason: more says how many others of that reason there were since. It may
	// be nil.
	Refused func(ctx context.Context, why Refusal, detail string, more uint64) error
	Logger  *slog.Logger

	Patience    time.Duration // for parts that were asked for; doubles while none comes; default 5 s
	MaxPatience time.Duration // default 2 min
	RetryEvery  time.Duration // after a fault of this machine, such as a full disk; default 15 s
	RecordEvery time.Duration // default 1 h
}

const (
	defaultPatience    = 5 * time.Second
	defaultMaxPatience = 2 * time.Minute
	defaultRetryEvery  = 15 * time.Second
	defaultRecordEvery = time.Hour

	partsPerSecond = 32 // that are asked for, in the long run
	partBurst      = 48 // and at once

	partQueue  = 2 * wire.MaxFetchParts // parts not yet looked at; more are dropped
	pushQueue  = 8                      // the same of pushed deltas
	maxPushed  = 8                      // pushed deltas of which no manifest was heard yet
	maxCount   = 5_000_000              // rows of a list
	maxOnePart = 64 << 10               // bytes of a blob that does not go through the spool
)

// Status is a snapshot for people and for metrics.
type Status struct {
	// Version is the newest version that was heard of and verified; 0: none was.
	Version uint64 `json:"version"`
	// Missing and Parts are of the blobs that lead to it: 0 of 0 if it is in use.
	Missing int       `json:"missing"`
	Parts   int       `json:"parts"`
	Fresh   time.Time `json:"fresh,omitzero"` // the CRM's time in the newest token; zero: none was heard

	Manifests uint64             `json:"manifests"` // verified
	Stale     uint64             `json:"stale"`     // of them with a token that had ended: the CRM is not there, or cut off
	Fetches   uint64             `json:"fetches"`   // requests for parts
	Received  uint64             `json:"received"`  // parts that were good
	Deltas    uint64             `json:"deltas"`    // applied
	Snapshots uint64             `json:"snapshots"` // applied
	Refused   map[Refusal]uint64 `json:"refused,omitempty"`

	LastRefusal string `json:"last_refusal,omitempty"`
	Fault       string `json:"fault,omitempty"` // of this machine, by which an update waits
}

// Follower follows one CRM.
type Follower struct {
	o     Options
	topic string // up/fetch
	spool spool

	wake      chan struct{} // a manifest, a floor or a connection is there
	manifest  atomic.Pointer[[]byte]
	floor     atomic.Uint64
	connected atomic.Bool
	parts     chan []byte
	pushes    chan []byte
	key       atomic.Pointer[keys.PolicyKey]

	mu     sync.Mutex
	status Status
}

// New checks the options and returns a Follower; Run sets it to work.
func New(o Options) (*Follower, error) {
	if o.Authority == nil || o.Blobs == nil || o.Source == nil || o.Publisher == nil || o.Clock == nil || o.Spool == "" || o.Generation == "" {
		return nil, errors.New("allowlist follower: an option is missing")
	}
	f := &Follower{
		o: o, spool: spool{dir: o.Spool}, wake: make(chan struct{}, 1),
		parts: make(chan []byte, partQueue), pushes: make(chan []byte, pushQueue),
		status: Status{Refused: make(map[Refusal]uint64)},
	}
	var err error
	if f.topic, err = wire.Topic(o.Controller, wire.KindFetch); err != nil {
		return nil, err
	}
	if f.o.Logger == nil {
		f.o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		d *time.Duration
		v time.Duration
	}{
		{&f.o.Patience, defaultPatience}, {&f.o.MaxPatience, defaultMaxPatience},
		{&f.o.RetryEvery, defaultRetryEvery}, {&f.o.RecordEvery, defaultRecordEvery},
	} {
		if *d.d <= 0 {
			*d.d = d.v
		}
	}
	return f, nil
}

// Handle takes the payload of a message on down/manifest, down/delta or down/chunk,
// and says whether it is one of these. It does not block: of manifests the newest
// counts, and parts that come too fast are dropped and asked for again.
func (f *Follower) Handle(kind wire.Kind, payload []byte) bool {
	switch kind {
	case wire.KindManifest:
		f.manifest.Store(&payload)
		f.awake()
	case wire.KindDelta:
		offer(f.pushes, payload)
	case wire.KindChunk:
		offer(f.parts, payload)
	default:
		return false
	}
	return true
}

func offer(queue chan []byte, payload []byte) {
	select {
	case queue <- payload:
	default:
	}
}

// Connected tells that a connection to the broker was made: what is missing is asked
// for at once. It does not block.
func (f *Follower) Connected() {
	f.connected.Store(true)
	f.awake()
}

// Raise tells of the highest version that the CRM has seen this controller use, by
// one of its receipts. It does not block.
func (f *Follower) Raise(version uint64) {
	for {
		floor := f.floor.Load()
		if version <= floor {
			return
		}
		if f.floor.CompareAndSwap(floor, version) {
			f.awake()
			return
		}
	}
}

func (f *Follower) awake() {
	select {
	case f.wake <- struct{}{}:
	default: // it is about to look
	}
}

// PolicyKey is the key that signed the newest manifest that was verified; nil: none
// was since the start.
func (f *Follower) PolicyKey() *keys.PolicyKey { return f.key.Load() }

// Status returns a snapshot.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.Refused = maps.Clone(s.Refused)
	return s
}

func (f *Follower) set(change func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}
