//go:build long

package figures

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const (
	passers         = 4000                 // people who come to the door: a card that comes again within a moment counts once
	presented       = 500                  // of them, while nothing else happens
	pause           = 5 * time.Millisecond // from one to the next
	publishPatience = 10 * time.Minute
)

// BenchmarkPublish is a very large list from the registry's import to the door, with
// the real CRM, Mosquitto and controller, while people come to that door.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{100_000, credentials} {
		b.Run(fmt.Sprintf("%dk_credentials", n/1000), func(b *testing.B) { publish(b, n) })
	}
}

func publish(b *testing.B, n int) {
	s := rig.New(b)
	s.Mosquitto()
	s.Policy = "crm"
	door := s.Enrol("north-1", "d0")
	line := newRelay(b, s.Broker)
	door.Broker = line.url(b)
	applied := make(chan time.Time, 8)
	decided := make(chan rig.Event, 1)
	door.Heard = func(e rig.Event) {
		switch e.Msg {
		case "allowlist":
			applied <- time.Now()
		case "decision":
			decided <- e
		}
	}
	s.Register("doors", "add", "d0", "--controller", "north-1")
	everywhere(b, s, passers)
	s.StartCRM()
	door.Start()
	rig.Eventually(b, "there is a list", func() bool { return door.Metric("gatehouse_allowlist_credentials ") == passers })

	turn := 0
	pass := func() time.Duration {
		turn++
		return present(b, door, decided, uint64(turn%passers+1))
	}
	for range presented { // until it is warm
		pass()
	}
	before := line.down.Load()
	var idle []time.Duration
	for range presented {
		idle = append(idle, pass())
	}
	perCard := float64(line.down.Load()-before) / presented // the CRM's receipts

	importMany(b, s, n)
	began, quiet := time.Now(), line.down.Load()
	var wire time.Time // when parts began to come
	var meanwhile []time.Duration
	passed := 0
	var done time.Time
	for done.IsZero() {
		took := pass()
		passed++
		switch {
		case !wire.IsZero():
			meanwhile = append(meanwhile, took)
		case float64(line.down.Load()-quiet) > perCard*float64(passed)+1<<20:
			wire = time.Now()
		}
		select {
		case at := <-applied:
			// There may have been another before.
			if door.Metric("gatehouse_allowlist_credentials ") == float64(n+passers) {
				done = at
			}
		default:
			if time.Since(began) > publishPatience {
				b.Fatalf("not applied after %v\n%s\n%s", publishPatience, s.CRM.Tail(), door.Process.Tail())
			}
		}
	}
	onWire := float64(line.down.Load()-quiet) - perCard*float64(passed)
	peak := status(b, door.Process, "VmHWM:")

	figure(b, "from the registry to the door", map[string]float64{"got-s": done.Sub(began).Seconds()})
	figure(b, "from the first part to the door", map[string]float64{"got-s": done.Sub(wire).Seconds()})
	figure(b, "bytes on the wire", map[string]float64{"got-MB": onWire / 1e6, "limit-MB": bareRows(b, s) / 1e6, "max-ratio": 1.3})
	figure(b, "the most memory of the daemon", map[string]float64{"got-MB": peak / 1e6, "max-MB": 64})
	b.Logf("%d cards meanwhile", len(meanwhile))
	figure(b, "a card to its record meanwhile, p50", map[string]float64{"got-ns": percentile(meanwhile, 50), "limit-ns": percentile(idle, 50)})
	figure(b, "a card to its record meanwhile, p99", map[string]float64{"got-ns": percentile(meanwhile, 99), "limit-ns": percentile(idle, 99), "max-ratio": 2})
}

// present has somebody present a card, and says how long it took until the daemon
// said what it had decided: the record of that is durable in between. Nobody goes
// through, so that no other record is written at the same time.
func present(b *testing.B, c *rig.Controller, decided <-chan rig.Event, card uint64) time.Duration {
	b.Helper()
	began := time.Now()
	must(b, c.Wires.Swipe("d0-in", rig.Card(b, card)))
	if e := within(b, "there is a decision", decided); e.Decision != "granted" {
		b.Fatalf("card %d is %s: %s", card, e.Decision, e.Reason)
	}
	took := time.Since(began)
	time.Sleep(pause)
	return took
}

// importMany has the registry import people, in one transaction.
func importMany(b *testing.B, s *rig.Site, n int) {
	b.Helper()
	path := filepath.Join(s.Dir, "many.csv")
	f, err := os.Create(path)
	must(b, err)
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "person,name,kind,groups,format,facility,number")
	for i := range n {
		fmt.Fprintf(w, "m-%d,Person Number %d,staff,all,%s,%d,%d\n", i, i, rig.Format, i>>15, i&0x7fff+1)
	}
	must(b, w.Flush())
	must(b, f.Close())
	cmd := exec.CommandContext(b.Context(), filepath.Join(rig.Programs(b), "gatehouse-crm"), "registry", "import", path,
		"--data", s.CRMDir(), "--by", by.By, "--why", by.Why)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("import: %v\n%s", err, out)
	}
	figure(b, "import into the registry", map[string]float64{"got-rows/s": float64(n) / time.Since(began).Seconds()})
}

// bareRows is how many bytes gzip makes of the list's rows, one after the other in
// the order of their keys.
func bareRows(b *testing.B, s *rig.Site) float64 {
	b.Helper()
	pepper, err := pki.ReadPepper(s.CRMDir(), "north-1")
	must(b, err)
	builder := allowlist.NewBuilder(pepper, nil)
	var all []allowlist.Row
	_, _, err = openRegistry(b, s).Publish(b.Context(), "north-1", 0, func(h *allowlist.Holder) error {
		rows, err := builder.Rows(h)
		all = append(all, rows...)
		return err
	})
	must(b, err)
	slices.SortFunc(all, func(x, y allowlist.Row) int { return bytes.Compare(x.Key[:], y.Key[:]) })
	var n counter
	z := gzip.NewWriter(&n)
	for _, r := range all {
		row := binary.AppendUvarint(slices.Clone(r.Key[:]), uint64(len(r.Entry)))
		_, err := z.Write(append(row, r.Entry...))
		must(b, err)
	}
	must(b, z.Close())
	return float64(n)
}

// counter counts bytes.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// relay is the line between a controller and the broker.
type relay struct {
	l    net.Listener
	down atomic.Int64 // bytes to the controller
}

func newRelay(b *testing.B, broker string) *relay {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	b.Cleanup(func() { l.Close() })
	r := &relay{l: l}
	to := strings.TrimPrefix(broker, "tls://")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(conn, to)
		}
	}()
	return r
}

func (r *relay) url(b *testing.B) string { return rig.TLS(b, r.l.Addr().String()) }

func (r *relay) serve(controller net.Conn, to string) {
	defer controller.Close()
	broker, err := net.Dial("tcp", to)
	if err != nil {
		return // it is tried again
	}
	defer broker.Close()
	go func() {
		_, _ = io.Copy(broker, controller)
		broker.Close()
	}()
	_, _ = io.Copy(controller, io.TeeReader(broker, r))
}

// Write counts what goes to the controller.
func (r *relay) Write(p []byte) (int, error) {
	r.down.Add(int64(len(p)))
	return len(p), nil
}
