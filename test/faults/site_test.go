package faults

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
)

const (
	zone     = "Etc/UTC"
	format   = "H10301"
	facility = 123
	people   = 64  // with a right to every door
	revoked  = 900 // the card of one more, who has none any longer
)

// site is a CRM and its controllers, each a real process with files of its
// own, set up by the programs' own commands.
type site struct {
	t           *testing.T
	dir         string
	listen      string // where the broker inside listens; "" if broker is set
	broker      string // URL of another broker for the CRM
	fingerprint string // the CRM's
	crm         *process
	crmHTTP     string
	controllers []*controller
}

// controller is one controller with its doors.
type controller struct {
	*site
	name  string
	doors int
	p     *process
	http  string
	wires *sim.Site
	heard func(event) // nil, or gets each line of the daemon's log

	mu       sync.Mutex
	unlocked []unlock
	state    map[string]string   // of each strike
	moved    map[string]chan any // poked when a strike is unlocked
}

// unlock is one movement of a strike, as it was seen at the socket.
type unlock struct {
	door string
	at   time.Time
}

// newSite makes a CRM's keys and certificates. Without a broker it will use
// the one inside.
func newSite(t *testing.T, broker string) *site {
	t.Helper()
	// Not t.TempDir: a socket's path has at most 107 bytes.
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: dir, broker: broker}
	t.Cleanup(func() {
		s.end()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if broker == "" {
		s.listen = freeAddress(t)
	}
	tool(t, "gatehouse-crm", "pki", "init", "--data", s.crmDir(), "--host", "localhost", "--timezone", zone)
	var shown struct{ Fingerprint string }
	if err := json.Unmarshal([]byte(tool(t, "gatehouse-crm", "pki", "show", "--data", s.crmDir(), "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	s.fingerprint = shown.Fingerprint
	return s
}

// freeAddress is one on which nobody listens, for a program that has to have
// the same after it was killed.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *site) crmDir() string       { return filepath.Join(s.dir, "crm") }
func (c *controller) data() string   { return filepath.Join(c.dir, c.name) }
func (c *controller) config() string { return c.data() + ".toml" }

// inside is the URL of the broker inside.
func (s *site) inside() string { return tlsURL(s.t, s.listen) }

// tlsURL names a loopback address as the certificates do.
func tlsURL(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return "tls://localhost:" + port
}

// enrol makes a controller with some doors that reaches the CRM by broker.
func (s *site) enrol(name string, doors int, broker string) *controller {
	t := s.t
	t.Helper()
	c := &controller{site: s, name: name, doors: doors, state: make(map[string]string), moved: make(map[string]chan any)}
	tool(t, "gatehouse", "init", "--data", c.data(), "--controller", name)
	bundle := filepath.Join(s.dir, name+".bundle")
	tool(t, "gatehouse-crm", "controllers", "approve", filepath.Join(c.data(), "request.json"), "--data", s.crmDir(), "--out", bundle, "--yes")
	tool(t, "gatehouse", "join", bundle, "--data", c.data(), "--fingerprint", s.fingerprint)
	policy := filepath.Join(s.dir, "policy.toml")
	write(t, policy, policyText())
	tool(t, "gatehouse", "allowlist", "import", policy, "--data", c.data(), "--timezone", zone)

	var b strings.Builder
	fmt.Fprintf(&b, "controller = %q\ndata = %q\ntimezone = %q\n[http]\nlisten = \"127.0.0.1:0\"\n[crm]\nbroker = %q\n[drivers.sim]\nsocket = \"s\"\n", name, c.data(), zone, broker)
	for i := range doors {
		d := doorName(i)
		c.moved[d] = make(chan any, 1)
		fmt.Fprintf(&b, "[[door]]\nname = %[1]q\nunlock = \"1s\"\nunlock_extended = \"1s\"\nstrike = { driver = \"sim\", line = \"%[1]s.strike\" }\ncontact = { driver = \"sim\", line = \"%[1]s.contact\" }\n"+
			"[[door.reader]]\nname = \"%[1]s-in\"\ndirection = \"in\"\nformats = [%[2]q]\ndevice = { driver = \"sim\", line = \"%[1]s-in\" }\n", d, format)
	}
	write(t, c.config(), b.String())
	s.controllers = append(s.controllers, c)
	return c
}

func doorName(i int) string { return "d" + strconv.Itoa(i) }

func policyText() string {
	var b strings.Builder
	person := func(id string, card int, more string) {
		fmt.Fprintf(&b, "[[people]]\nperson = %q\nname = \"Somebody\"\nkind = \"staff\"\nrights = [{ doors = [\"*\"], schedule = \"always\" }]\ncredentials = [{ format = %q, facility = %d, number = %d%s }]\n", id, format, facility, card, more)
	}
	for i := range people {
		person(fmt.Sprintf("p-%d", i), i+1, "")
	}
	person("p-revoked", revoked, `, state = "revoked"`)
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startCRM starts the CRM's program and waits until it is ready.
func (s *site) startCRM() {
	s.t.Helper()
	s.launchCRM()
	s.crmHTTP = s.crm.ready(s.t)
}

func (s *site) launchCRM() {
	s.t.Helper()
	way := fmt.Sprintf("broker = %q", s.broker)
	if s.broker == "" {
		way = fmt.Sprintf("listen = %q", s.listen)
	}
	config := filepath.Join(s.dir, "crm.toml")
	write(s.t, config, fmt.Sprintf("data = %q\ntimezone = %q\n[mqtt]\n%s\n[http]\nlisten = \"127.0.0.1:0\"\n", s.crmDir(), zone, way))
	s.crm = start(s.t, "gatehouse-crm", nil, "run", "--config", config, "--log-format", "json")
}

// start starts the daemon, waits until it is ready, and connects its wires.
func (c *controller) start() {
	c.t.Helper()
	c.launch()
	c.http = c.p.ready(c.t)
	if c.wires == nil {
		c.wire()
	}
}

func (c *controller) launch() {
	c.t.Helper()
	c.p = start(c.t, "gatehouse", c.heard, "run", "--demo", "--config", c.config(), "--log-format", "json")
}

// wire connects the wires, which from then on find each new daemon by
// themselves, and watches the strikes.
func (c *controller) wire() {
	c.t.Helper()
	var err error
	if c.wires, err = sim.Dial(filepath.Join(c.data(), "s")); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		for o := range c.wires.Outputs() {
			c.see(o)
		}
		if err := c.wires.Err(); err != nil {
			c.t.Errorf("%s: %v", c.name, err)
		}
	}()
}

func (c *controller) see(o sim.Output) {
	d, ok := strings.CutSuffix(o.Line, ".strike")
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.state[d]
	c.state[d] = o.State
	if o.State == sim.Unlocked && before != sim.Unlocked {
		c.unlocked = append(c.unlocked, unlock{d, o.At})
		select {
		case c.moved[d] <- nil:
		default:
		}
	}
}

// unlocks is how often strikes have moved.
func (c *controller) unlocks() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.unlocked)
}

func card(t *testing.T, number int) badge.Frame {
	t.Helper()
	f, ok := badge.Builtin().Format(format)
	if !ok {
		t.Fatalf("there is no format %s", format)
	}
	frame, err := f.Encode(badge.Credential{Format: format, Facility: facility, Number: uint64(number)})
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// crowd sends people through every door of the controller until the function
// that it returns is called: each presents a badge, walks through if the door
// unlocks, and makes place for the next. At a controller that is not there
// they try again. One in eight has a badge that was revoked.
func (c *controller) crowd() (leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var frames []badge.Frame
	for i := range people {
		frames = append(frames, card(c.t, i+1))
	}
	no := card(c.t, revoked)
	var wg sync.WaitGroup
	for i := range c.doors {
		wg.Go(func() {
			for n := rand.N(people); ctx.Err() == nil; n++ {
				frame := frames[n%people]
				if n%8 == 7 {
					frame = no
				}
				c.pass(ctx, doorName(i), frame)
			}
		})
	}
	return sync.OnceFunc(func() { cancel(); wg.Wait() })
}

// pass presents a badge, and walks through if the door unlocks.
func (c *controller) pass(ctx context.Context, d string, frame badge.Frame) {
	const hesitate = 25 * time.Millisecond
	if c.wires.Swipe(d+"-in", frame) != nil {
		sleep(ctx, hesitate/5) // nobody there: it was killed
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(hesitate):
		return
	case <-c.moved[d]:
	}
	// An error means that it was killed meanwhile.
	_ = errors.Join(c.wires.Set(d+".contact", true), c.wires.Set(d+".contact", false))
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// status is what the daemon says of itself, or nil if it says nothing.
func (c *controller) status() *status {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var s status
	if err := metrics.Status(ctx, c.http, &s); err != nil {
		return nil
	}
	return &s
}

// now is what the daemon says of itself. It must be running.
func (c *controller) now() (s *status) {
	c.t.Helper()
	eventually(c.t, c.name+" says how it is", func() bool {
		s = c.status()
		return s != nil
	})
	return s
}

type status struct {
	Records struct {
		Epoch              string
		Size, Acknowledged uint64
	}
	Link struct {
		Connected   bool
		LastError   string    `json:"last_error"`
		LastReceipt time.Time `json:"last_receipt"`
		Overdue     time.Time
	}
	Doors []struct {
		Door   string
		Locked bool
	}
	Faults []metrics.Fault
}

// records waits until the log has at least n records.
func (c *controller) records(n uint64) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%s has %d records", c.name, n), func() bool {
		s := c.status()
		return s != nil && s.Records.Size >= n
	})
}

// acknowledged is how many records the CRM has countersigned.
func (c *controller) acknowledged() uint64 {
	if s := c.status(); s != nil {
		return s.Records.Acknowledged
	}
	return 0
}

// lastReceipt is when the newest receipt came.
func (c *controller) lastReceipt() time.Time {
	if s := c.status(); s != nil {
		return s.Link.LastReceipt
	}
	return time.Time{}
}

// metric adds up the CRM's metrics whose line begins so.
func (s *site) metric(prefix string) float64 { return metric(s.crmHTTP, prefix) }

func metric(addr, prefix string) (sum float64) {
	client := http.Client{Timeout: 5 * time.Second}
	r, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			value := rest[strings.LastIndexByte(rest, ' ')+1:]
			if v, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				sum += v
			}
		}
	}
	return sum
}

// end ends all programs whatever state they are in.
func (s *site) end() {
	for _, c := range s.controllers {
		if c.p != nil {
			c.p.end()
		}
		if c.wires != nil {
			c.wires.Close()
		}
	}
	if s.crm != nil {
		s.crm.end()
	}
	if s.t.Failed() {
		for _, c := range s.controllers {
			if c.p != nil {
				s.t.Logf("%s, %s", c.name, c.p.last())
			}
		}
		if s.crm != nil {
			s.t.Logf("gatehouse-crm, %s", s.crm.last())
		}
	}
}

// settled waits until every door of the controller is locked and the CRM has
// countersigned every record, and no more have come for a moment. It returns
// how many there are.
func (c *controller) settled() (size uint64) {
	c.t.Helper()
	var since time.Time
	eventually(c.t, c.name+" is locked and all its records are countersigned", func() bool {
		s := c.status()
		if s == nil || s.Records.Acknowledged != s.Records.Size || len(s.Faults) > 0 || len(s.Doors) != c.doors {
			since = time.Time{}
			return false
		}
		for _, d := range s.Doors {
			if !d.Locked {
				return false
			}
		}
		if s.Records.Size != size || since.IsZero() {
			size, since = s.Records.Size, time.Now()
		}
		return time.Since(since) > door.Grace+poll
	})
	return size
}

// stop ends the daemon in good order, when nothing is left to be sent. What it
// writes at its end, such as how many more were denied of a kind, is sent by
// the next.
func (c *controller) stop() (records []record) {
	c.t.Helper()
	for range 3 {
		size := c.settled()
		c.p.stop(c.t)
		records = export(c.t, "gatehouse", "log", "export", "--data", c.data())
		if uint64(len(records)) == size {
			return records
		}
		c.start()
	}
	c.p.stop(c.t)
	return export(c.t, "gatehouse", "log", "export", "--data", c.data())
}

// nothingLost ends everything in good order and holds the site to what it
// promises: no strike moved without its durable record, the CRM has each
// record once and as it was signed, both logs verify, and every door is
// locked. The fault must be over. It returns the records of each controller.
func (s *site) nothingLost() map[string][]record {
	t := s.t
	t.Helper()
	all := make(map[string][]record)
	for _, c := range s.controllers {
		if c.p == nil {
			continue
		}
		all[c.name] = c.stop()
		c.mu.Lock()
		for d, state := range c.state {
			if state != sim.Locked {
				t.Errorf("%s: the door %s is %s", c.name, d, state)
			}
		}
		c.mu.Unlock()
	}
	s.crm.stop(t)
	for _, c := range s.controllers {
		if c.p == nil {
			continue
		}
		if said := tool(t, "gatehouse", "log", "verify", "--data", c.data()); !strings.HasPrefix(said, "ok:") {
			t.Errorf("%s: gatehouse log verify: %s", c.name, said)
		}
		if said := tool(t, "gatehouse-crm", "log", "verify", "--data", s.crmDir(), "--controller", c.name); !strings.HasPrefix(said, "ok:") {
			t.Errorf("%s: gatehouse-crm log verify: %s", c.name, said)
		}
		own := all[c.name]
		central := export(t, "gatehouse-crm", "log", "export", "--data", s.crmDir(), "--controller", c.name)
		same(t, c.name, own, central)
		c.accounted(own)
		t.Logf("%s: %d records, %d unlocks", c.name, len(own), c.unlocks())
	}
	return all
}

// record is one line of an export.
type record struct {
	Epoch string
	Seq   uint64
	JWS   string
	Type  string
	Time  time.Time
	Data  struct {
		Door, Decision, Reason, Detail string
		Late                           bool
	}
}

func export(t *testing.T, program string, args ...string) (records []record) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export.ndjson")
	tool(t, program, append(args, "--out", path)...)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	epoch := ""
	for lines.Scan() {
		var line struct {
			Epoch string
			Seq   *uint64
			JWS   string
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line.Epoch != "" {
			epoch = line.Epoch
		}
		if line.JWS == "" {
			continue
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(line.JWS, ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		r := record{Epoch: epoch, Seq: *line.Seq, JWS: line.JWS}
		if err := json.Unmarshal(payload, &r); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}

// same holds the CRM's records to the controller's.
func same(t *testing.T, name string, own, central []record) {
	t.Helper()
	if len(own) == 0 {
		t.Errorf("%s has no records", name)
	}
	if len(own) != len(central) {
		t.Errorf("%s has %d records, and the CRM %d of it", name, len(own), len(central))
	}
	seen := make(map[string]bool)
	for i := range min(len(own), len(central)) {
		a, b := own[i], central[i]
		if a.Seq != uint64(i) || b.Seq != a.Seq || a.Epoch != b.Epoch || a.JWS != b.JWS {
			t.Fatalf("%s: place %d has record %d of epoch %s, and at the CRM record %d of epoch %s; the same bytes: %t", name, i, a.Seq, a.Epoch, b.Seq, b.Epoch, a.JWS == b.JWS)
		}
		if seen[a.JWS] {
			t.Errorf("%s: record %d is there twice", name, i)
		}
		seen[a.JWS] = true
	}
}

// accounted finds for each movement of a strike a granted record of its own
// that is not younger.
func (c *controller) accounted(records []record) {
	c.t.Helper()
	grants := make(map[string][]time.Time)
	for _, r := range records {
		if r.Data.Decision == "granted" {
			if r.Data.Late {
				c.t.Errorf("%s: record %d came late: a grant's may only if it breaks the glass", c.name, r.Seq)
			}
			grants[r.Data.Door] = append(grants[r.Data.Door], r.Time)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for d := range grants {
		slices.SortFunc(grants[d], time.Time.Compare)
	}
	for _, u := range c.unlocked {
		// Nobody waits for longer than door.Patience. Those before that either
		// moved the strike already, or came while it was unlocked.
		left := grants[u.door]
		for len(left) > 0 && left[0].Before(u.at.Add(-door.Patience)) {
			left = left[1:]
		}
		if len(left) == 0 || left[0].After(u.at) {
			c.t.Errorf("%s: the door %s was unlocked at %v without a record", c.name, u.door, u.at)
			continue
		}
		grants[u.door] = left[1:]
	}
}
