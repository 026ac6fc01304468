// Package publisher is the CRM's end of the allowlist: it makes of the registry
// what each controller's doors need, version after version, signs it, and sends
// it.
//
// Making and sending are apart. A version is made in one transaction of
// policy.db, by the daemon or by a command beside it, and the blobs that bring it
// lie in files. The daemon sends what is there: it announces each version with a
// manifest and answers who asks for parts. So two publishers at once never give
// one version twice, and what was made is never lost.
//
// A version goes out as a delta, a few rows that are other than before. A
// snapshot is made where there is none, and later from the one before and the
// deltas since, without asking the registry.
package publisher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// FileName is the name, in a CRM's folder, of what was published.
const FileName = "policy.db"

// Names beside it.
const (
	lockName  = "policy.lock"
	blobsName = "blobs"
)

// Registry is where rights are kept; *registry.Registry is one.
type Registry interface {
	// Changes is the audit's last line by which anything was changed. It is cheap.
	Changes(ctx context.Context) (head uint64, err error)
	// Mark names a line of the audit by all lines up to it; empty: there is none.
	Mark(ctx context.Context, line uint64) (mark string, err error)
	// Touched are people of whom something was changed after a line of the audit, no
	// more than most.
	Touched(ctx context.Context, since uint64, most int) (people []string, err error)
	// Publish visits those whom a controller's doors know, or of whom something was
	// changed after a line of the audit; see registry.Publish.
	Publish(ctx context.Context, controller string, since uint64, visit func(*allowlist.Holder) error) (words allowlist.Rules, head uint64, err error)
	// Rights are what sources of rights stand for now.
	Rights(ctx context.Context, controller string, sources []string) (map[string][]allowlist.Right, error)
}

// Pepper is the secret that the CRM shares with one controller; *keys.Pepper is one.
type Pepper interface {
	Index(canonical []byte) [16]byte
	Generation() string
}

// Secret is a Pepper with the sealer of its blobs.
type Secret struct {
	Pepper
	Blobs wire.Sealer
}

// Authority is the key that signs, and what certifies it.
type Authority struct {
	KeyID     string
	JWS       []string    // wire.Publication.Authority
	Manifests wire.Signer // with the typ wire.ManifestType
	Fresh     wire.Signer // with the typ wire.FreshType
}

// Sender publishes an MQTT message. It returns when the broker has taken it or ctx
// has ended.
type Sender interface {
	Publish(ctx context.Context, topic string, payload []byte, retained bool) error
}

// Options is what a Publisher needs from outside. Zero limits mean the defaults.
type Options struct {
	Dir      string // the CRM's folder
	Registry Registry
	// Unknown says whether an error of the registry is that it has no doors of a
	// controller, and Forgotten that it does not know any more what was changed
	// since then.
	Unknown, Forgotten error
	// Controllers are those that are approved and not revoked.
	Controllers func(context.Context) ([]string, error)
	// Secret is a controller's. The error is an fs.ErrNotExist where it has none.
	Secret func(controller string) (Secret, error)
	// Authority is asked before each signature. It fails where nothing may be
	// signed, with what is to be done.
	Authority func() (*Authority, error)
	Clock     func() time.Time
	Logger    *slog.Logger

	Sender Sender // only of Run
	// ByCommand makes Run publish at once only what takes something away. The rest
	// waits until somebody calls Make with Everything.
	ByCommand bool

	Workers int           // controllers worked for at one time; default 2 × GOMAXPROCS
	Look    time.Duration // how often the registry is looked at; default 100 ms
	Renew   time.Duration // how often a fresh token is signed; default 1 min
	Valid   time.Duration // how long a manifest may begin to be used; default 14 days
}

const (
	defaultLook  = 100 * time.Millisecond
	defaultRenew = time.Minute
	defaultValid = 14 * 24 * time.Hour

	// freshFor is how many renewals a fresh token outlasts.
	freshFor = 10
	// keepSuperseded is how long a blob can still be fetched that no manifest
	// names any more.
	keepSuperseded = 30 * time.Minute
)

// Publisher makes versions and sends them. Its methods may be used from several
// goroutines, and several processes may have one on the same folder; only one of
// them may Run.
type Publisher struct {
	o     Options
	store *store
	lock  *os.File

	mostChanged, urgentAlone int // the constants, but for tests

	mu      sync.Mutex
	working map[string]*sync.Mutex // one version at a time of each controller

	*desk // of Run
}

// Open opens what was published, in the CRM's folder, and makes it the first time.
func Open(ctx context.Context, o Options) (_ *Publisher, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Workers <= 0 {
		o.Workers = 2 * runtime.GOMAXPROCS(0)
	}
	for d, v := range map[*time.Duration]time.Duration{&o.Look: defaultLook, &o.Renew: defaultRenew, &o.Valid: defaultValid} {
		if *d <= 0 {
			*d = v
		}
	}
	p := &Publisher{o: o, mostChanged: mostChanged, urgentAlone: urgentAlone, working: make(map[string]*sync.Mutex)}
	p.desk = newDesk(p)
	if err := os.Mkdir(p.blobs(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if p.store, err = openStore(ctx, filepath.Join(o.Dir, FileName)); err != nil {
		return nil, err
	}
	if err := p.begin(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// begin takes the lock that says that somebody is publishing. Who is the first
// clears away what others left unfinished.
func (p *Publisher) begin(ctx context.Context) (err error) {
	if p.lock, err = os.OpenFile(filepath.Join(p.o.Dir, lockName), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	switch err := unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
	case err != nil:
		return fmt.Errorf("lock %s: %w", p.lock.Name(), err)
	default:
		if err := p.clear(ctx); err != nil {
			return err
		}
	}
	if err := unix.Flock(int(p.lock.Fd()), unix.LOCK_SH); err != nil {
		return fmt.Errorf("lock %s: %w", p.lock.Name(), err)
	}
	return nil
}

// Close closes what was published. Run must have ended.
func (p *Publisher) Close() error {
	err := p.store.close()
	if p.lock != nil {
		err = errors.Join(err, p.lock.Close())
	}
	return err
}

func (p *Publisher) blobs() string { return filepath.Join(p.o.Dir, blobsName) }

func (p *Publisher) blobPath(id string) string { return filepath.Join(p.blobs(), id) }

// clear deletes lists and files that nothing names. Nobody else is at work.
func (p *Publisher) clear(ctx context.Context) error {
	lists, err := p.store.orphans(ctx)
	if err != nil {
		return err
	}
	for _, list := range lists {
		if err := p.store.dropList(ctx, list); err != nil {
			return err
		}
	}
	files, err := os.ReadDir(p.blobs())
	if err != nil {
		return err
	}
	for _, f := range files {
		is, err := p.store.isBlob(ctx, f.Name())
		if err != nil {
			return err
		}
		if !is {
			if err := os.Remove(p.blobPath(f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep deletes blobs that were superseded long enough ago.
func (p *Publisher) sweep(ctx context.Context) error {
	old, err := p.store.forgotten(ctx, p.o.Clock().Add(-keepSuperseded))
	if err != nil {
		return fmt.Errorf("delete old blobs: %w", err)
	}
	for _, b := range old {
		if err := os.Remove(p.blobPath(b.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete old blobs: %w", err)
		}
	}
	return nil
}

// one is the lock of a controller within this process. Between processes the
// store sees to it.
func (p *Publisher) one(controller string) *sync.Mutex {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.working[controller]
	if m == nil {
		m = new(sync.Mutex)
		p.working[controller] = m
	}
	return m
}

// known are the controllers, sorted.
func (p *Publisher) known(ctx context.Context) ([]string, error) {
	names, err := p.o.Controllers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the controllers: %w", err)
	}
	slices.Sort(names)
	return names, nil
}
