package state

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
)

const (
	zone     = "Etc/UTC"
	format   = "H10301"
	facility = 123
	door     = "server-room"
)

// The cards that are known to every controller; any other is unknown.
const (
	staff      = 1
	breakGlass = 2
	revoked    = 3
	weekday    = 4 // bound in time
)

const policy = `
[schedules.daily]
mon-sun = ["00:00-24:00"]
holiday = ["00:00-24:00"]

[[people]]
person = "p-staff"
name = "Ada Lovelace"
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 1 }, { format = "H10301", facility = 123, number = 5 }, { format = "H10301", facility = 123, number = 6 }]

[[people]]
person = "p-guard"
name = "Grace Hopper"
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 2, break_glass = true }]

[[people]]
person = "p-gone"
name = "Tony Hoare"
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 3, state = "revoked" }]

[[people]]
person = "p-daily"
name = "Barbara Liskov"
kind = "staff"
rights = [{ doors = ["*"], schedule = "daily" }]
credentials = [{ format = "H10301", facility = 123, number = 4 }]
`

// site is a CRM and its controllers, each a real process with files of its
// own, set up by the programs' own commands.
type site struct {
	t       *testing.T
	dir     string
	listen  string // where the broker inside listens
	crm     *process
	crmHTTP string
	all     []*controller
}

// newSite makes a CRM and a controller named north-1.
func newSite(t *testing.T) (*site, *controller) {
	t.Helper()
	// Not t.TempDir: a socket's path has at most 107 bytes.
	dir, err := os.MkdirTemp("", "state-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: dir, listen: l.Addr().String()}
	l.Close() // the CRM has to have the same after each start
	t.Cleanup(func() {
		s.end()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	tool(t, "gatehouse-crm", "pki", "init", "--data", s.crmDir(), "--host", "localhost", "--timezone", zone)
	return s, s.enrol("north-1")
}

func (s *site) crmDir() string { return filepath.Join(s.dir, "crm") }

func (s *site) fingerprint() string {
	s.t.Helper()
	var shown struct{ Fingerprint string }
	if err := json.Unmarshal([]byte(tool(s.t, "gatehouse-crm", "pki", "show", "--data", s.crmDir(), "--json")), &shown); err != nil {
		s.t.Fatal(err)
	}
	return shown.Fingerprint
}

// enrol makes a controller that the CRM knows.
func (s *site) enrol(name string) *controller {
	t := s.t
	t.Helper()
	c := s.controller(name, filepath.Join(s.dir, name))
	tool(t, "gatehouse", "init", "--data", c.data, "--controller", name)
	bundle := filepath.Join(s.dir, name+".bundle")
	tool(t, "gatehouse-crm", "controllers", "approve", filepath.Join(c.data, "request.json"), "--data", s.crmDir(), "--out", bundle, "--yes")
	tool(t, "gatehouse", "join", bundle, "--data", c.data, "--fingerprint", s.fingerprint())
	c.importPolicy(policy)
	return c
}

// controller wires up a controller whose files are in data.
func (s *site) controller(name, data string) *controller {
	c := &controller{site: s, name: name, data: data}
	s.all = append(s.all, c)
	return c
}

// clone is another machine with a copy of all that the controller has.
func (c *controller) clone(name string) *controller {
	c.t.Helper()
	data := filepath.Join(c.dir, name)
	copyTree(c.t, c.data, data)
	return c.controller(c.name, data)
}

// copyTree copies a folder with its permissions and without what only a
// running process has use for.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_ = os.Remove(filepath.Join(to, "s"))
}

// controller is one controller with its door.
type controller struct {
	*site
	name, data string
	alone      bool     // without a CRM
	more       string   // of the configuration
	env        []string // of the daemon
	p          *process
	http       string
	wires      *sim.Site

	card      uint64 // that was presented last
	presented time.Time
	person    int // which of the staff's cards is next

	mu        sync.Mutex
	unlocks   int
	locked    bool
	decisions []event
}

func (c *controller) config() string { return c.data + ".toml" }

func (c *controller) importPolicy(text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, "policy.toml")
	write(c.t, path, text)
	tool(c.t, "gatehouse", "allowlist", "import", path, "--data", c.data, "--timezone", zone)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *site) startCRM() {
	s.t.Helper()
	s.launchCRM()
	s.crmHTTP = s.crm.ready(s.t)
}

func (s *site) launchCRM() {
	s.t.Helper()
	config := filepath.Join(s.dir, "crm.toml")
	write(s.t, config, fmt.Sprintf("data = %q\ntimezone = %q\n[mqtt]\nlisten = %q\n[http]\nlisten = \"127.0.0.1:0\"\n", s.crmDir(), zone, s.listen))
	s.crm = start(s.t, nil, nil, "gatehouse-crm", "run", "--config", config, "--log-format", "json")
}

func (s *site) stopCRM() {
	s.t.Helper()
	s.crm.stop(s.t)
	s.crm = nil
}

// start starts the daemon, waits until its door works, and connects its wires.
func (c *controller) start() {
	c.t.Helper()
	c.launch()
	c.http = c.p.ready(c.t)
	c.connect()
}

func (c *controller) launch() {
	c.t.Helper()
	_, port, err := net.SplitHostPort(c.listen)
	if err != nil {
		c.t.Fatal(err)
	}
	crm := fmt.Sprintf("[crm]\nbroker = \"tls://localhost:%s\"\n", port)
	if c.alone {
		crm = ""
	}
	write(c.t, c.config(), fmt.Sprintf(`controller = %q
data = %q
timezone = %q
[http]
listen = "127.0.0.1:0"
%s%s
[drivers.sim]
socket = "s"
[[door]]
name = %q
unlock = "1s"
strike = { driver = "sim", line = "strike" }
contact = { driver = "sim", line = "contact" }
[[door.reader]]
name = "in"
direction = "in"
formats = [%q]
device = { driver = "sim", line = "in" }
`, c.name, c.data, zone, crm, c.more, door, format))
	c.p = start(c.t, c.env, c.hear, "gatehouse", "run", "--demo", "--config", c.config(), "--log-format", "json", "--log-level", "debug")
}

func (c *controller) hear(e event) {
	if e.Msg != "decision" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.decisions = append(c.decisions, e)
}

// connect connects the wires, which from then on find each new daemon by
// themselves, and waits until nothing is wrong with them.
func (c *controller) connect() {
	c.t.Helper()
	if c.wires == nil {
		var err error
		if c.wires, err = sim.Dial(filepath.Join(c.data, "s")); err != nil {
			c.t.Fatal(err)
		}
		outputs := c.wires.Outputs()
		go func() {
			for o := range outputs {
				c.see(o)
			}
		}()
	}
	eventually(c.t, "the wires are connected", func() bool {
		s, err := c.status()
		return err == nil && !slices.ContainsFunc(s.Faults, func(f metrics.Fault) bool {
			return strings.Contains(f.Part, "reader") || strings.Contains(f.Part, "strike")
		})
	})
}

func (c *controller) see(o sim.Output) {
	if o.Line != "strike" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.locked = o.State == sim.Locked
	if !c.locked {
		c.unlocks++
	}
}

func (c *controller) stop() {
	c.t.Helper()
	c.p.stop(c.t)
	c.disconnect()
}

func (c *controller) kill() {
	c.t.Helper()
	c.p.kill(c.t)
	c.disconnect()
}

func (c *controller) disconnect() {
	if c.wires != nil {
		c.wires.Close()
		c.wires = nil
	}
}

// unlocked is how often the strike was unlocked.
func (c *controller) unlocked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unlocks
}

func (c *controller) decided() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.decisions)
}

func (c *controller) isLocked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.locked
}

// present presents a card. The same one has to be away for a while, or the
// door takes it for one that was left on the reader.
func (c *controller) present(number uint64) {
	c.t.Helper()
	if wait := time.Until(c.presented.Add(1100 * time.Millisecond)); number == c.card && wait > 0 {
		time.Sleep(wait)
	}
	c.card, c.presented = number, time.Now()
	f, ok := badge.Builtin().Format(format)
	if !ok {
		c.t.Fatalf("there is no format %s", format)
	}
	frame, err := f.Encode(badge.Credential{Format: format, Facility: facility, Number: number})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.wires.Swipe("in", frame); err != nil {
		c.t.Fatal(err)
	}
}

// enters presents a card that must open the door, and walks through.
func (c *controller) enters(number uint64) {
	c.t.Helper()
	eventually(c.t, "the door is locked", c.isLocked)
	before := c.unlocked()
	if number == staff {
		number = []uint64{staff, 5, 6}[c.person%3]
		c.person++
	}
	c.present(number)
	eventually(c.t, fmt.Sprintf("card %d opens the door", number), func() bool { return c.unlocked() > before })
	if err := errors.Join(c.wires.Set("contact", true), c.wires.Set("contact", false)); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, "the door is locked again", c.isLocked)
}

// denied presents a card that must not open the door.
func (c *controller) denied(number uint64, reason string) {
	c.t.Helper()
	decided, unlocked := c.decided(), c.unlocked()
	c.present(number)
	eventually(c.t, "there is a decision", func() bool { return c.decided() > decided })
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.decisions[decided]; e.Decision != "denied" || e.Reason != reason || c.unlocks != unlocked {
		c.t.Fatalf("card %d: %+v, %d unlocks; want it denied because %s", number, e, c.unlocks-unlocked, reason)
	}
}

// status is what the daemon says of itself.
func (c *controller) status() (status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var s status
	return s, metrics.Status(ctx, c.http, &s)
}

type status struct {
	Records struct {
		Epoch              string
		Size, Acknowledged uint64
	}
	Clock     struct{ State string }
	Allowlist struct {
		Version   uint64
		Freshness string
		Fault     string
	}
	Link *struct {
		Connected bool
		LastError string `json:"last_error"`
	}
	Doors []struct {
		Counts struct {
			Pending int `json:"records_pending"`
		}
	}
	Faults []metrics.Fault
}

// pending is how many records are not durable yet.
func (s *status) pending() (n int) {
	for _, d := range s.Doors {
		n += d.Counts.Pending
	}
	return n
}

func (c *controller) epoch() string {
	c.t.Helper()
	s, err := c.status()
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Records.Epoch
}

// settled waits until the door is locked, nothing is wrong, and the CRM has
// countersigned all of the present epoch.
func (c *controller) settled() {
	c.t.Helper()
	var before uint64
	var last status
	defer func() {
		if c.t.Failed() {
			c.t.Logf("%+v", last)
		}
	}()
	eventually(c.t, "all records are countersigned", func() bool {
		s, err := c.status()
		if err != nil || s.Records.Size != s.Records.Acknowledged || len(s.Faults) > 0 || s.pending() > 0 || !c.isLocked() {
			last = s
			return false
		}
		still := s.Records.Size == before // what follows from the last swipe, too
		before = s.Records.Size
		return still
	})
}

// end ends all programs whatever state they are in.
func (s *site) end() {
	for _, c := range s.all {
		if c.p != nil {
			if s.t.Failed() {
				_ = c.p.cmd.Process.Signal(syscall.SIGQUIT) // it tells what it was about
				time.Sleep(time.Second)
			}
			c.p.end()
		}
		c.disconnect()
	}
	if s.crm != nil {
		s.crm.end()
	}
	if s.t.Failed() {
		for _, c := range s.all {
			if c.p != nil {
				s.t.Log(c.p.tail())
			}
		}
		if s.crm != nil {
			s.t.Log(s.crm.tail())
		}
	}
}

// alarms are the kinds of the CRM's open alarms, and what they say.
func (s *site) alarms() map[string]string {
	s.t.Helper()
	out, stderr, err := run("gatehouse-crm", "alarms", "list", "--data", s.crmDir(), "--json")
	kinds := make(map[string]string)
	lines := json.NewDecoder(strings.NewReader(out))
	for lines.More() {
		var a struct{ Kind, Detail string }
		if derr := lines.Decode(&a); derr != nil {
			s.t.Fatalf("alarms: %v, %v\n%s\n%s", derr, err, out, stderr)
		}
		kinds[a.Kind] += a.Detail + "\n"
	}
	return kinds
}

// alarmed waits for an alarm of a kind that says so.
func (s *site) alarmed(kind, says string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("there is an alarm %s that says %q", kind, says), func() bool {
		return strings.Contains(s.alarms()[kind], says) && s.alarms()[kind] != ""
	})
}

// quiet wants no alarms but of these kinds.
func (s *site) quiet(but ...string) {
	s.t.Helper()
	for kind, detail := range s.alarms() {
		if !slices.Contains(but, kind) {
			s.t.Errorf("alarm %s: %s", kind, detail)
		}
	}
}

// record is one line of an export.
type record struct {
	Epoch   string
	Seq     uint64
	JWS     string
	Type    string
	Subject string
	Data    struct {
		Decision, Reason, Detail string
		Late                     bool
		Occurred                 *time.Time
		Clock                    struct{ State string }
		Former                   *struct {
			Epoch string
			Size  uint64
		}
	}
}

// export reads a log by the program that keeps it. A log that does not verify
// can be read all the same.
func export(t *testing.T, program string, args ...string) (records []record) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export.ndjson")
	tool(t, program, append(append([]string{"log", "export"}, args...), "--out", path)...)
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
		_ = json.Unmarshal(payload, &r) // a record may be invalid
		records = append(records, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}

// stored are the CRM's records, by epoch. Within each they must be all, once.
func (s *site) stored(controller string) map[string][]record {
	s.t.Helper()
	epochs := make(map[string][]record)
	for _, r := range export(s.t, "gatehouse-crm", "--data", s.crmDir(), "--controller", controller) {
		if r.Seq != uint64(len(epochs[r.Epoch])) {
			s.t.Fatalf("the CRM's records of epoch %s: after %d comes %d", r.Epoch, len(epochs[r.Epoch]), r.Seq)
		}
		epochs[r.Epoch] = append(epochs[r.Epoch], r)
	}
	return epochs
}

// own are the controller's records of the present epoch.
func (c *controller) own() []record {
	c.t.Helper()
	return export(c.t, "gatehouse", "--data", c.data)
}

// same wants one list of records to begin with the other.
func same(t *testing.T, what string, got, want []record) {
	t.Helper()
	if len(got) < len(want) {
		t.Errorf("%s: %d records, want %d", what, len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i].JWS != want[i].JWS {
			t.Fatalf("%s: record %d is another one", what, i)
		}
	}
}

// verified wants both logs to verify and the CRM to have the present epoch.
func (c *controller) verified() {
	c.t.Helper()
	if said := tool(c.t, "gatehouse-crm", "log", "verify", "--data", c.crmDir()); !strings.HasPrefix(said, "ok:") {
		c.t.Errorf("gatehouse-crm log verify: %s", said)
	}
	if said := tool(c.t, "gatehouse", "log", "verify", "--data", c.data); !strings.HasPrefix(said, "ok:") {
		c.t.Errorf("gatehouse log verify: %s", said)
	}
	own := c.own()
	stored := c.stored(c.name)[own[0].Epoch]
	same(c.t, "the CRM", stored, own)
	if len(stored) != len(own) {
		c.t.Errorf("the CRM has %d records of the present epoch, the controller %d", len(stored), len(own))
	}
}

// granted counts decisions that let somebody in.
func granted(records []record) (n int) {
	for _, r := range records {
		if r.Data.Decision == "granted" {
			n++
		}
	}
	return n
}
