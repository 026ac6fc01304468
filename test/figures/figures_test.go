package figures

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// TestMain removes what the benchmarks share.
func TestMain(m *testing.M) {
	code := rig.Main(m)
	if million.parent != "" {
		os.RemoveAll(million.parent)
	}
	os.Exit(code)
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// figure is one row of the table; see internal/benchtable for the units.
func figure(b *testing.B, name string, metrics map[string]float64) {
	b.Run(strings.ReplaceAll(name, " ", "_"), func(b *testing.B) {
		for unit, v := range metrics {
			b.ReportMetric(v, unit)
		}
		b.ReportMetric(0, "ns/op") // of reporting
	})
}

// percentile of durations, which it sorts, in nanoseconds.
func percentile(d []time.Duration, p int) float64 {
	slices.Sort(d)
	return float64(d[(len(d)-1)*p/100].Nanoseconds())
}

// startDaemon starts a program and waits until it says that it is ready. Each
// line of its log is shown to heard, if that is not nil.
func startDaemon(b *testing.B, heard func(rig.Event), name string, args ...string) (p *rig.Process, took time.Duration) {
	b.Helper()
	p = rig.Start(b, rig.Options{Heard: heard}, name, args...)
	b.Cleanup(p.End)
	_, took = p.Ready(b)
	return p, took
}

// memory is what a process has in memory now, in bytes.
func memory(b *testing.B, p *rig.Process) float64 { b.Helper(); return status(b, p, "VmRSS:") }

// status is a number of bytes in a process's status.
func status(b *testing.B, p *rig.Process, word string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.ID()))
	must(b, err)
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == word {
			kib, err := strconv.Atoi(f[1])
			must(b, err)
			return float64(kib) * 1024
		}
	}
	b.Fatalf("no %s in the process's status", word)
	return 0
}

const credentials = 1_000_000

// card is the one in row i of the allowlist. H10302 has 35 bits of number.
func card(i uint64) badge.Credential {
	return badge.Credential{Format: "H10302", Number: 1_000_000_007 + i*31}
}

const (
	door   = "server-room-a"
	config = `controller = "` + controller + `"
data = %q
timezone = "Europe/Amsterdam"

[http]
listen = "127.0.0.1:0"

[drivers.sim]
socket = "site.sock"

[[door]]
name = "` + door + `"
strike = { driver = "sim", line = "strike" }
contact = { driver = "sim", line = "contact" }

[[door.reader]]
name = "in"
direction = "in"
formats = ["H10302"]
device = { driver = "sim", line = "in" }
`
)

// million is a controller with a million credentials, made once.
var million struct {
	once   sync.Once
	parent string // of dir
	dir    string
	took   time.Duration // the import
	memory int64         // the most that it had, in bytes
}

// millionSite returns the folder of the controller and its configuration.
func millionSite(b *testing.B) (dir, file string) {
	b.Helper()
	million.once.Do(func() {
		// Its path is short: that of a socket must be.
		var err error
		million.parent, err = os.MkdirTemp("", "figures")
		must(b, err)
		dir := filepath.Join(million.parent, "million")
		rig.Tool(b, "gatehouse", "init", "--data", dir, "--controller", controller)
		must(b, os.WriteFile(dir+".toml", fmt.Appendf(nil, config, dir), 0o600))
		people := dir + ".csv"
		f, err := os.Create(people)
		must(b, err)
		w := bufio.NewWriter(f)
		fmt.Fprintln(w, "person,name,kind,format,number,from,until,doors,schedule")
		for i := range credentials {
			fmt.Fprintf(w, "p-%d,Person Number %d,staff,H10302,%d,2026-01-01,2099-12-31,%s;lab,always\n", i, i, card(uint64(i)).Number, door)
		}
		must(b, w.Flush())
		must(b, f.Close())
		cmd := exec.CommandContext(b.Context(), filepath.Join(rig.Programs(b), "gatehouse"), "allowlist", "import", people, "--config", dir+".toml")
		began := time.Now()
		out, err := cmd.CombinedOutput()
		million.took = time.Since(began)
		if err != nil {
			b.Fatalf("import: %v\n%s", err, out)
		}
		million.memory = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
		must(b, os.Remove(people))
		million.dir = dir
	})
	if million.dir == "" {
		b.Fatal("there is no allowlist")
	}
	return million.dir, million.dir + ".toml"
}
