package guest_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/test/guest"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// The lines of the door. Readers have two each, from GPIO0 on.
const (
	strikeLine  = 17
	contactLine = 22 // low: the door is closed
	rexLine     = 27 // low: pressed
)

const (
	doorName = "server-room"
	data     = guest.DataDir + "/gatehouse"
	pages    = "http://127.0.0.1:9180"
	debounce = 5 * time.Millisecond
	held     = 2 * time.Second
)

// reader is one of the door's.
type reader struct {
	format  string
	spacing time.Duration // of its bits
}

func (r reader) d0(i int) int { return 2 * i }
func (r reader) d1(i int) int { return 2*i + 1 }

// typical is the reader that is met most; patient is one whose pace a busy
// host disturbs least.
var (
	typical = reader{"H10301", 2 * time.Millisecond}
	patient = reader{"H10301", 15 * time.Millisecond}
)

// controller is what goes into a guest: the daemon's own files, made by its
// own commands, and its configuration.
type controller struct {
	t       *testing.T
	dir     string
	readers []reader
	cards   int    // for each reader
	more    string // of the configuration
}

// newController makes a controller at whose door everybody may enter who has
// one of so many cards for each reader.
func newController(t *testing.T, cards int, more string, readers ...reader) *controller {
	t.Helper()
	c := &controller{t: t, dir: t.TempDir(), readers: readers, cards: cards, more: more}
	tool(t, "gatehouse", "init", "--data", c.data(), "--controller", "north-1")
	return c
}

func (c *controller) data() string { return filepath.Join(c.dir, "data", "gatehouse") }

// admit imports the allowlist, by which people may enter at any time.
func (c *controller) admit() {
	c.t.Helper()
	var people strings.Builder
	people.WriteString("person,kind,format,facility,number,doors,schedule\n")
	for i := range c.readers {
		for n := range c.cards {
			card := c.card(i, n)
			facility := ""
			if card.Facility != 0 {
				facility = fmt.Sprint(card.Facility)
			}
			fmt.Fprintf(&people, "%s,staff,%s,%s,%d,*,always\n", c.person(i, n), card.Format, facility, card.Number)
		}
	}
	path := c.write("people.csv", people.String())
	tool(c.t, "gatehouse", "allowlist", "import", path, "--data", c.data(), "--timezone", "UTC")
}

func (c *controller) write(name, text string) (path string) {
	c.t.Helper()
	path = filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// person is who has the n-th card for the i-th reader.
func (c *controller) person(i, n int) string { return fmt.Sprintf("p-%d-%d", i, n) }

func (c *controller) card(i, n int) badge.Credential {
	// Numbers with many bits that differ.
	card := badge.Credential{Format: c.readers[i].format, Number: uint64(n*40503+12345) & 0xffff}
	if card.Format != "H10302" { // which has no such field
		card.Facility = uint64(101 + i)
	}
	return card
}

// swipe is what a reader sends for a card.
func (c *controller) swipe(i, n int) guest.Step {
	c.t.Helper()
	r := c.readers[i]
	f, ok := badge.Builtin().Format(r.format)
	if !ok {
		c.t.Fatalf("there is no format %s", r.format)
	}
	frame, err := f.Encode(c.card(i, n))
	if err != nil {
		c.t.Fatal(err)
	}
	return guest.Step{Frame: &guest.Frame{D0: r.d0(i), D1: r.d1(i), Bits: frame.Bits(), Spacing: r.spacing, Pulse: min(50*time.Microsecond, r.spacing/4)}}
}

// hardware puts the controller into a guest.
func (c *controller) hardware(h hardware) hardware {
	c.t.Helper()
	var config strings.Builder
	fmt.Fprintf(&config, `controller = "north-1"
data = %q
timezone = "UTC"
[http]
listen = %q
[drivers.gpio]
chip = %[3]q
[drivers.wiegand]
chip = %[3]q
%[4]s
[[door]]
name = %[5]q
unlock = "1s"
held_after = %[6]q
strike = { driver = "gpio", line = "GPIO%[7]d", wiring = "fail-secure" }
contact = { driver = "gpio", line = "GPIO%[8]d", normally = "closed", bias = "none", debounce = %[10]q }
rex = { driver = "gpio", line = "GPIO%[9]d", normally = "open", bias = "none", debounce = %[10]q }
`, data, strings.TrimPrefix(pages, "http://"), guest.Chip, c.more, doorName, held, strikeLine, contactLine, rexLine, debounce)
	for i, r := range c.readers {
		fmt.Fprintf(&config, "[[door.reader]]\nname = \"in-%d\"\ndirection = \"in\"\nformats = [%q]\ndevice = { driver = \"wiegand\", d0 = \"GPIO%d\", d1 = \"GPIO%d\" }\n",
			i, r.format, r.d0(i), r.d1(i))
	}
	h.files = map[string]string{
		"/bin/gatehouse":      filepath.Join(needed(c.t).arm64, "gatehouse"),
		"/etc/gatehouse.toml": c.write("gatehouse.toml", config.String()),
		"/etc/hosts":          c.write("hosts", "127.0.0.1 localhost\n"+guest.Host+" crm.example\n"),
	}
	if h.disk == "" {
		h.files[guest.DataDir] = filepath.Dir(c.data())
	}
	return h
}

// newDisk makes the image of a disk with the controller's files.
func (c *controller) newDisk() string {
	c.t.Helper()
	path := filepath.Join(c.dir, "disk.img")
	cmd := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", filepath.Dir(c.data()), path, "64M")
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if _, err := output(cmd); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// idle is how the world is while nobody is there.
func (c *controller) idle() (steps []guest.Step) {
	for i, r := range c.readers {
		steps = append(steps, pull(r.d0(i), true), pull(r.d1(i), true))
	}
	return append(steps, pull(rexLine, true), pull(contactLine, false), sleep(4*debounce))
}

// synchronised sets the guest's clock as a time service would.
func (m *machine) synchronised() {
	m.t.Helper()
	m.ask(guest.Request{Clock: &guest.Clock{Set: time.Now(), Synchronised: true}})
}

// launch starts the daemon in a world where nobody is at the door.
func (m *machine) launch(c *controller) {
	m.t.Helper()
	m.play(patience, c.idle()...)
	reply := m.ask(guest.Request{Start: &guest.Command{Name: "gatehouse", Args: []string{
		"/bin/gatehouse", "run", "--config", "/etc/gatehouse.toml", "--log-format", "json",
	}}})
	m.pid = reply.PID
}

// startDaemon launches the daemon, and waits until it is ready.
func (m *machine) startDaemon(c *controller) {
	m.t.Helper()
	m.mu.Lock()
	next := len(m.said)
	m.mu.Unlock()
	m.launch(c)
	m.until("the daemon is ready", func() bool {
		if state, ended := m.ended["gatehouse"]; ended {
			m.t.Fatalf("gatehouse: %s", state)
		}
		for ; next < len(m.said); next++ {
			if strings.Contains(m.said[next].Line, `"msg":"ready"`) {
				return true
			}
		}
		return false
	})
	// Readers count what they send only after a silence.
	m.play(patience, sleep(300*time.Millisecond))
}

// records are all that the daemon has recorded.
func (m *machine) records() (records []visitorlog.Record) {
	m.t.Helper()
	const path = "/tmp/export.ndjson"
	m.run("/bin/gatehouse", "log", "export", "--data", data, "--out", path)
	lines := bufio.NewScanner(bytes.NewReader(m.ask(guest.Request{Read: path}).Output))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct{ JWS string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			m.t.Fatal(err)
		}
		if line.JWS == "" {
			continue
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(line.JWS, ".")[1])
		if err != nil {
			m.t.Fatal(err)
		}
		var r visitorlog.Record
		if err := json.Unmarshal(payload, &r); err != nil {
			m.t.Fatal(err)
		}
		records = append(records, r)
	}
	if err := lines.Err(); err != nil {
		m.t.Fatal(err)
	}
	return records
}

// verifies fails the test unless the daemon's log is whole.
func (m *machine) verifies() {
	m.t.Helper()
	if said := m.run("/bin/gatehouse", "log", "verify", "--data", data); !strings.HasPrefix(said, "ok:") {
		m.t.Errorf("gatehouse log verify: %s", said)
	}
}

// metrics are the daemon's, those whose line begins so.
func (m *machine) metrics(prefix string) (lines []string) {
	m.t.Helper()
	for line := range strings.Lines(string(m.ask(guest.Request{Read: pages + "/metrics"}).Output)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// enter is somebody who shows a card, walks through when the door unlocks, and
// leaves it closed.
func (c *controller) enter(i, n int) []guest.Step {
	return []guest.Step{
		c.swipe(i, n),
		// A reader of long and slow frames is waited for half a second.
		{Await: &guest.Await{Line: strikeLine, High: true, Within: 500 * time.Millisecond}},
		pull(contactLine, true), sleep(4 * debounce),
		pull(contactLine, false), await(strikeLine, false, 10*time.Second), sleep(4 * debounce),
	}
}

// entered plays what people do who must all get in.
func (m *machine) entered(steps []guest.Step) {
	m.t.Helper()
	for i, d := range m.play(patience, steps...) {
		if a := steps[i].Await; a != nil && !d.OK {
			m.t.Errorf("step %d: the strike's line does not get as it should be: high %t", i, a.High)
		}
	}
}

// getsIn is somebody who shows a card until the door unlocks. Where the
// guest's time is a busy host's, that may take a few times.
func (m *machine) getsIn(c *controller, i, n int) {
	m.t.Helper()
	const shown = 100 // times
	for range shown {
		if m.play(patience, c.swipe(i, n), await(strikeLine, true, time.Second))[1].OK {
			m.entered(c.enter(i, n)[2:])
			return
		}
	}
	m.t.Fatalf("the door does not unlock for a card that was shown %d times", shown)
}

func pull(line int, up bool) guest.Step { return guest.Step{Pull: &guest.Pull{Line: line, Up: up}} }
func sleep(d time.Duration) guest.Step  { return guest.Step{Sleep: d} }
func await(line int, high bool, within time.Duration) guest.Step {
	return guest.Step{Await: &guest.Await{Line: line, High: high, Within: within}}
}
