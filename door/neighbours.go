package door

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
)

// threatState is the key of the log's state under which the level of threat is
// kept, in decimal.
const threatState = "threat"

// undoneFor is longer than anybody's passage is awaited, and its record waits.
const undoneFor = time.Hour

// Neighbours are what the doors of one controller know of each other: the level
// of threat, which of them are closed and locked, and what of their grants came to
// nothing. Its methods may be used from several goroutines.
type Neighbours struct {
	orders sync.Mutex // one order at a time that changes what is kept here

	mu     sync.Mutex
	known  bool // what the log keeps was read
	threat access.Threat
	doors  map[string]*neighbour
	undone map[string]undone // by what was written
}

// undone is a trace that was to be taken back when another had come after it.
type undone struct {
	before []byte
	from   string
	at     time.Time
}

// neighbour is one door as the others see it.
type neighbour struct {
	secure  bool // closed and locked, as its machine and its strike last said
	opening int  // times that it was granted to open, of which its machine has not heard
	wake    func()
}

// NewNeighbours are the doors of a controller, of which there are none yet.
func NewNeighbours() *Neighbours {
	return &Neighbours{doors: make(map[string]*neighbour), undone: make(map[string]undone)}
}

// join adds a door, which counts as open until it says otherwise. Wake has the
// door look at what is kept here.
func (n *Neighbours) join(name string, wake func()) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.doors[name] != nil {
		return fmt.Errorf("there is another door %q", name)
	}
	n.doors[name] = &neighbour{wake: wake}
	return nil
}

// tell says whether a door is closed and locked.
func (n *Neighbours) tell(name string, secure bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doors[name].secure = secure
}

// inTheWay is the first of the doors that is not surely closed and locked, and
// about to stay so; "": none.
func (n *Neighbours) inTheWay(doors []string) string {
	if len(doors) == 0 {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range doors {
		if d := n.doors[name]; d == nil || !d.secure || d.opening > 0 {
			return name
		}
	}
	return ""
}

// open has a door count as open from a decision on, which is made in the order of
// the records, until its machine has heard of that and done is called.
func (n *Neighbours) open(name string) (done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doors[name].opening++
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.doors[name].opening--
	})
}

// undo notes what would have been taken back, for whatever came after it.
func (n *Neighbours) undo(t trace) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(n.undone, func(_ string, u undone) bool { return now.Sub(u.at) > undoneFor })
	n.undone[string(t.wrote)] = undone{t.before, t.from, now}
}

// wasUndone is what a trace that wrote this would have been taken back to; not
// ok: it stands, or was.
func (n *Neighbours) wasUndone(wrote []byte) (u undone, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	u, ok = n.undone[string(wrote)]
	return u, ok
}

// level is the level of threat. Before it is known, it is the highest.
func (n *Neighbours) level() access.Threat {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.known {
		return access.MaxThreat
	}
	return n.threat
}

// set makes another level known to all doors.
func (n *Neighbours) set(level access.Threat) {
	n.mu.Lock()
	n.known, n.threat = true, level
	all := make([]func(), 0, len(n.doors))
	for _, d := range n.doors {
		all = append(all, d.wake)
	}
	n.mu.Unlock()
	for _, wake := range all {
		wake()
	}
}

// read reads the level that the log keeps, unless it is known. One that is
// damaged is the highest.
func (n *Neighbours) read(ctx context.Context, log Log) error {
	n.orders.Lock()
	defer n.orders.Unlock()
	n.mu.Lock()
	known := n.known
	n.mu.Unlock()
	if known {
		return nil
	}
	b, err := log.State(ctx, threatState)
	if err != nil {
		return err
	}
	n.set(parseThreat(b))
	return nil
}

func parseThreat(b []byte) access.Threat {
	if len(b) == 0 {
		return 0
	}
	level, err := strconv.ParseUint(string(b), 10, 8)
	if err != nil {
		return access.MaxThreat
	}
	return min(access.Threat(level), access.MaxThreat)
}

func threatBytes(level access.Threat) []byte {
	if level == 0 {
		return nil
	}
	return strconv.AppendUint(nil, uint64(level), 10)
}
