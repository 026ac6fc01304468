package figures

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/keyring"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const osdpConfig = `controller = "` + controller + `"
data = %q
timezone = "Europe/Amsterdam"

[http]
listen = "127.0.0.1:0"

[drivers.sim]
socket = "site.sock"

[[drivers.osdp.line]]
name = "rs485"
port = %q
baud = %d

[[door]]
name = "` + door + `"
strike = { driver = "sim", line = "strike" }
contact = { driver = "sim", line = "contact" }

[[door.reader]]
name = "in"
direction = "in"
formats = ["H10302"]
device = { driver = "osdp", line = "rs485", address = 0 }
`

// What is on the line when a card is told, in bytes: a poll over the Secure
// Channel, and the answer with the 37 bits of an H10302 card.
const (
	pollBytes = 5 + 2 + 1 + 4 + 2
	cardBytes = 5 + 2 + 1 + 16 + 4 + 2
)

// BenchmarkOSDPSwipe is from a card that is held to a reader until the daemon
// has given the strike its command: over the Secure Channel, on a line as slow
// as a real one, the record of the decision durable in between. The card comes
// just as the reader is polled: who comes a moment later waits for the next
// poll, 50 ms at the most. The limit is what the two frames take on the line,
// and the same rows written bare.
func BenchmarkOSDPSwipe(b *testing.B) {
	for _, baud := range []int{9600, 115200} {
		benchmarkOSDPSwipe(b, baud)
	}
}

const (
	osdpSwipes = 120
	osdpCards  = 50
)

func benchmarkOSDPSwipe(b *testing.B, baud int) {
	parent, err := os.MkdirTemp("", "figures") // its path is short: that of a socket must be
	must(b, err)
	defer os.RemoveAll(parent)
	dir := filepath.Join(parent, "osdp")
	key := osdp.Key{0: 0xA1, 15: 0x5F}
	port := newPort(b)
	osdpSite(b, dir, port.slave.Name(), key, baud)
	far := pd.New(pd.Config{Key: key, Baud: baud})
	port.serve(far, baud)
	defer port.unplug()
	d, _ := startDaemon(b, nil, "gatehouse", "run", "--demo", "--config", dir+".toml")
	defer d.Stop(b) // before the line goes
	site, err := sim.Dial(filepath.Join(dir, "site.sock"))
	must(b, err)
	defer site.Close()
	for end := time.Now().Add(20 * time.Second); !far.Online(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("the reader has no Secure Channel:\n%s", d.Tail())
		}
	}
	made := openRecords(b, filepath.Join(dir, "records.db"))
	limit := newBare(b, dir, made)
	format, ok := badge.Builtin().Format("H10302")
	if !ok {
		b.Fatal("no format H10302")
	}
	frames := make([]badge.Frame, osdpCards) // in turn: one that is left on a reader is one presentation
	for i := range frames {
		frames[i], err = format.Encode(card(uint64(i)))
		must(b, err)
	}
	wire := time.Duration(pollBytes+cardBytes) * 10 * time.Second / time.Duration(baud)
	var ours, bare []time.Duration
	for i := range 10 + osdpSwipes {
		began := port.atPoll(func() { far.Present(frames[i%osdpCards].Bits()) })
		took := await(b, site, sim.Unlocked).Sub(began)
		must(b, site.Set("contact", true))
		must(b, site.Set("contact", false))
		await(b, site, sim.Locked)
		rows := made.next(b)
		same := limit.write(b, rows[:1])
		limit.write(b, rows[1:])
		if i >= 10 {
			ours, bare = append(ours, took), append(bare, wire+same)
		}
	}
	name := fmt.Sprintf("to strike, at %d, ", baud)
	figure(b, name+"p50", map[string]float64{"got-ns": percentile(ours, 50), "limit-ns": percentile(bare, 50), "max-ratio": 1.5})
	figure(b, name+"p99", map[string]float64{"got-ns": percentile(ours, 99), "limit-ns": percentile(bare, 99)})
}

// osdpSite makes a controller with a few cards, and the key of its reader.
func osdpSite(b *testing.B, dir, port string, key osdp.Key, baud int) {
	b.Helper()
	rig.Tool(b, "gatehouse", "init", "--data", dir, "--controller", controller)
	must(b, os.WriteFile(dir+".toml", fmt.Appendf(nil, osdpConfig, dir, port, baud), 0o600))
	people := []byte("person,name,kind,format,number,from,until,doors,schedule\n")
	for i := range osdpCards {
		people = fmt.Appendf(people, "p-%d,Person Number %d,staff,H10302,%d,2026-01-01,2099-12-31,%s,always\n", i, i, card(uint64(i)).Number, door)
	}
	must(b, os.WriteFile(dir+".csv", people, 0o600))
	rig.Tool(b, "gatehouse", "allowlist", "import", dir+".csv", "--config", dir+".toml")
	k, err := keys.LoadController(keys.File(pki.KeysDir(dir)))
	must(b, err)
	ring, err := keyring.Open(filepath.Join(dir, keyring.FileName), k.Readers)
	must(b, err)
	store := ring.For("rs485", 0)
	must(b, store.Begin(key))
	must(b, store.Commit(key))
	must(b, ring.Close())
}

// port is a pseudo-terminal with a simulated reader at its far end.
type port struct {
	master, slave *os.File
	served        chan struct{}
	atNext        chan func() // called when the next command arrives, before the reader sees it
	arrived       chan time.Time
}

func newPort(b *testing.B) *port {
	b.Helper()
	master, slave, err := pty.Open()
	must(b, err)
	return &port{master: master, slave: slave, served: make(chan struct{}), atNext: make(chan func(), 1), arrived: make(chan time.Time, 1)}
}

func (p *port) serve(far *pd.Peripheral, baud int) {
	go func() {
		defer close(p.served)
		pd.Serve(struct {
			io.Reader
			io.Writer
		}{p, p.master}, pd.Wire{Baud: baud, Sleep: nanosleep}, far)
	}()
}

// Read is the far end's.
func (p *port) Read(b []byte) (int, error) {
	n, err := p.master.Read(b)
	select {
	case f := <-p.atNext:
		at := time.Now()
		f()
		p.arrived <- at
	default:
	}
	return n, err
}

// atPoll does something as the reader is polled, and says when that was.
func (p *port) atPoll(f func()) time.Time {
	p.atNext <- f
	return <-p.arrived
}

// unplug ends the far end. Its read returns when nobody has the near end open.
func (p *port) unplug() {
	p.slave.Close()
	<-p.served
	p.master.Close()
}

// nanosleep is more precise than time.Sleep, which is off by a millisecond.
func nanosleep(d time.Duration) {
	left := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}
