package rig

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
)

// The cards of every site.
const (
	Format   = "H10301"
	Facility = 123
)

// Controller is a controller with its doors. Door d has the reader d-in and
// the wires d.strike and d.contact.
type Controller struct {
	*Site
	Name  string
	Data  string // its folder
	Doors []string

	// To be changed before the daemon starts.
	Broker string      // URL of the way to the CRM; "": it works alone
	Env    []string    // of the daemon
	Args   []string    // of the daemon
	More   string      // of its configuration
	Heard  func(Event) // gets each line of the daemon's log; may be nil

	Process *Process // nil: never started
	// Wires find each new daemon by themselves.
	Wires *sim.Site

	http string // where the daemon's pages are

	mu      sync.Mutex
	state   map[string]string // of each strike
	unlocks []Unlock
	opened  map[string]chan struct{}
}

// Unlock is one movement of a strike, as it was seen at the wires.
type Unlock struct {
	Door string
	At   time.Time
}

// Controller is one with files in data.
func (s *Site) Controller(name, data string, doors ...string) *Controller {
	c := &Controller{Site: s, Name: name, Data: data, Doors: doors, Broker: s.URL(),
		state: make(map[string]string), opened: make(map[string]chan struct{})}
	for _, d := range doors {
		c.opened[d] = make(chan struct{}, 1)
	}
	s.Controllers = append(s.Controllers, c)
	return c
}

// Enrol makes a controller that the CRM knows.
func (s *Site) Enrol(name string, doors ...string) *Controller {
	s.T.Helper()
	c := s.Controller(name, filepath.Join(s.Dir, name), doors...)
	request := c.Init()
	bundle := c.Data + ".bundle"
	approve := []string{"controllers", "approve", request, "--data", s.CRMDir(), "--out", bundle, "--yes"}
	if s.Policy != "" {
		approve = append(approve, "--policy", s.Policy)
	}
	Tool(s.T, "gatehouse-crm", approve...)
	c.Join(bundle)
	return c
}

// Init makes the controller's keys, and returns the path of its request.
func (c *Controller) Init() string {
	c.T.Helper()
	Tool(c.T, "gatehouse", "init", "--data", c.Data, "--controller", c.Name)
	return filepath.Join(c.Data, "request.json")
}

// Join has the controller join the CRM by a bundle.
func (c *Controller) Join(bundle string) {
	c.T.Helper()
	Tool(c.T, "gatehouse", "join", bundle, "--data", c.Data, "--fingerprint", c.Fingerprint)
}

// Import makes a policy the controller's allowlist.
func (c *Controller) Import(policy string) {
	c.T.Helper()
	path := filepath.Join(c.Dir, "policy.toml")
	Write(c.T, path, policy)
	Tool(c.T, "gatehouse", "allowlist", "import", path, "--data", c.Data, "--timezone", Zone)
}

// Start starts the daemon, waits until it is ready, and connects its wires.
func (c *Controller) Start() {
	c.T.Helper()
	c.Launch()
	c.Await()
	c.connect()
}

// Launch starts the daemon.
func (c *Controller) Launch() {
	c.T.Helper()
	config := c.Data + ".toml"
	Write(c.T, config, c.configuration())
	c.Process = Start(c.T, Options{c.Env, c.Heard}, "gatehouse", append([]string{"run", "--demo", "--config", config}, c.Args...)...)
}

func (c *Controller) configuration() string {
	var b strings.Builder
	fmt.Fprintf(&b, "controller = %q\ndata = %q\ntimezone = %q\n[http]\nlisten = \"127.0.0.1:0\"\n[drivers.sim]\nsocket = \"s\"\n", c.Name, c.Data, Zone)
	if c.Broker != "" {
		fmt.Fprintf(&b, "[crm]\nbroker = %q\n", c.Broker)
	}
	b.WriteString(c.More)
	for _, d := range c.Doors {
		fmt.Fprintf(&b, `[[door]]
name = %[1]q
unlock = "1s"
unlock_extended = "1s"
strike = { driver = "sim", line = "%[1]s.strike" }
contact = { driver = "sim", line = "%[1]s.contact" }
[[door.reader]]
name = "%[1]s-in"
direction = "in"
formats = [%[2]q]
device = { driver = "sim", line = "%[1]s-in" }
`, d, Format)
	}
	return b.String()
}

// Await waits until the daemon is ready.
func (c *Controller) Await() {
	c.T.Helper()
	c.http, _ = c.Process.Ready(c.T)
}

// AwaitOrRefuses waits until the daemon is ready, with its wires, or has ended.
func (c *Controller) AwaitOrRefuses() (ok bool) {
	c.T.Helper()
	if c.http, ok = c.Process.ReadyOrRefuses(c.T); ok {
		c.connect()
	}
	return ok
}

// connect waits until nothing is wrong with the wires.
func (c *Controller) connect() {
	c.T.Helper()
	if c.Wires == nil {
		wires, err := sim.Dial(filepath.Join(c.Data, "s"))
		if err != nil {
			c.T.Fatal(err)
		}
		c.Wires = wires
		go func() {
			for o := range wires.Outputs() {
				c.see(o)
			}
			if err := wires.Err(); err != nil {
				c.T.Errorf("%s: %v", c.Name, err)
			}
		}()
	}
	Eventually(c.T, "the wires of "+c.Name+" are connected", func() bool {
		s := c.Status()
		return s != nil && !slices.ContainsFunc(s.Faults, func(f metrics.Fault) bool {
			return strings.Contains(f.Part, "reader") || strings.Contains(f.Part, "strike")
		})
	})
}

func (c *Controller) see(o sim.Output) {
	d, ok := strings.CutSuffix(o.Line, ".strike")
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.state[d]
	c.state[d] = o.State
	if o.State == sim.Unlocked && before != sim.Unlocked {
		c.unlocks = append(c.unlocks, Unlock{d, o.At})
		select {
		case c.opened[d] <- struct{}{}:
		default:
		}
	}
}

// Opened is poked when a door's strike is unlocked.
func (c *Controller) Opened(door string) <-chan struct{} { return c.opened[door] }

// Unlocked reports whether a door's strike was last seen to be unlocked.
func (c *Controller) Unlocked(door string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state[door] == sim.Unlocked
}

// Unlocks are all movements of the strikes, in order.
func (c *Controller) Unlocks() []Unlock {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.unlocks)
}

// Locked reports whether every strike was last seen to be locked.
func (c *Controller) Locked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.Doors {
		if c.state[d] != sim.Locked {
			return false
		}
	}
	return true
}

// Card is what a reader sends for a card.
func Card(t testing.TB, number uint64) badge.Frame {
	t.Helper()
	f, ok := badge.Builtin().Format(Format)
	if !ok {
		t.Fatalf("there is no format %s", Format)
	}
	frame, err := f.Encode(badge.Credential{Format: Format, Facility: Facility, Number: number})
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// Status is what a daemon says of itself.
type Status struct {
	Records struct {
		Epoch              string
		Size, Acknowledged uint64
	}
	Clock     struct{ State access.ClockState }
	Allowlist struct {
		Freshness  access.Freshness
		AgeSeconds int64 `json:"age_seconds"`
		Fault      string
	}
	Link *struct {
		Connected   bool
		LastError   string    `json:"last_error"`
		LastReceipt time.Time `json:"last_receipt"`
		Overdue     time.Time
	}
	Doors []struct {
		Locked bool
		Counts struct {
			Pending int `json:"records_pending"`
		}
	}
	Faults []metrics.Fault
}

// Status is what the daemon says of itself, or nil if it says nothing.
func (c *Controller) Status() *Status {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var s Status
	if err := metrics.Status(ctx, c.http, &s); err != nil {
		return nil
	}
	return &s
}

// Now is what the daemon says of itself. It must be running.
func (c *Controller) Now() (s *Status) {
	c.T.Helper()
	Eventually(c.T, c.Name+" says how it is", func() bool {
		s = c.Status()
		return s != nil
	})
	return s
}

// Metric adds up those of the daemon whose line begins so.
func (c *Controller) Metric(prefix string) float64 { return metric(c.http, prefix) }

// Acknowledged is how many records the CRM has countersigned, as far as the
// daemon knows; 0 if it says nothing.
func (c *Controller) Acknowledged() uint64 {
	if s := c.Status(); s != nil {
		return s.Records.Acknowledged
	}
	return 0
}

// Settled waits until every door is locked, nothing is wrong, the CRM has
// countersigned every record of the present epoch, and no more have come for a
// moment. It returns how many there are.
func (c *Controller) Settled() (size uint64) {
	c.T.Helper()
	var last *Status
	defer func() {
		if c.T.Failed() && last != nil {
			c.T.Logf("%s: %+v", c.Name, *last)
		}
	}()
	var since time.Time
	Eventually(c.T, c.Name+" is locked and all its records are countersigned", func() bool {
		last = c.Status()
		if last == nil || !last.atRest(len(c.Doors)) || !c.Locked() {
			since = time.Time{}
			return false
		}
		if n := last.Records.Size; n != size || since.IsZero() {
			size, since = n, time.Now()
		}
		return time.Since(since) > door.Grace+Poll
	})
	return size
}

func (s *Status) atRest(doors int) bool {
	if !s.Countersigned() || len(s.Faults) > 0 || len(s.Doors) != doors {
		return false
	}
	for _, d := range s.Doors {
		if !d.Locked {
			return false
		}
	}
	return true
}

// Countersigned reports whether there are records, all are durable, and the
// CRM has countersigned them.
func (s *Status) Countersigned() bool {
	for _, d := range s.Doors {
		if d.Counts.Pending > 0 {
			return false
		}
	}
	return s.Records.Size > 0 && s.Records.Size == s.Records.Acknowledged
}
