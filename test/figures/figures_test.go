package figures

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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
)

// TestMain removes what the benchmarks share.
func TestMain(m *testing.M) {
	code := m.Run()
	if work.dir != "" {
		os.RemoveAll(work.dir)
	}
	os.Exit(code)
}

// work is a folder that lives as long as the process. Its path is short: that
// of a socket must be.
var work struct {
	once sync.Once
	dir  string
	err  error
}

func folder(b *testing.B) string {
	b.Helper()
	work.once.Do(func() { work.dir, work.err = os.MkdirTemp("", "figures") })
	must(b, work.err)
	return work.dir
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

// built is the folder of the programs.
var built struct {
	once sync.Once
	err  error
}

// program builds the programs as `make build` does and returns the path of
// one.
func program(b *testing.B, name string) string {
	b.Helper()
	bin := filepath.Join(folder(b), "bin")
	built.once.Do(func() {
		cmd := exec.Command("go", "build", "-trimpath", "-o", bin+"/", "../../cmd/...")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	must(b, built.err)
	return filepath.Join(bin, name)
}

// tool runs a program to its end. It returns what it printed and the most
// memory that it had, in bytes.
func tool(b *testing.B, name string, args ...string) (stdout []byte, memory int64) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), program(b, name), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s %q: %v\n%s", name, args, err, errs.String())
	}
	return out.Bytes(), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
}

// daemon is a program that runs until it is stopped.
type daemon struct {
	cmd   *exec.Cmd
	began time.Time
	ready time.Time
	ended chan error

	mu   sync.Mutex
	tail []string // its last lines
}

// line is what is read of a line of a program's log.
type line struct {
	Msg  string `json:"msg"`
	Size uint64 `json:"size"`
	HTTP string `json:"http"`
}

// startDaemon starts a program and waits until it says that it is ready. Each
// line of its log is shown to seen, if that is not nil.
func startDaemon(b *testing.B, seen func(line), name string, args ...string) *daemon {
	b.Helper()
	d := &daemon{cmd: exec.Command(program(b, name), append(args, "--log-format", "json")...), ended: make(chan error, 1)}
	out, err := d.cmd.StderrPipe()
	must(b, err)
	ready := make(chan time.Time, 1)
	d.began = time.Now()
	must(b, d.cmd.Start())
	go func() {
		d.read(out, ready, seen)
		d.ended <- d.cmd.Wait()
	}()
	b.Cleanup(func() { d.stop(b) })
	select {
	case d.ready = <-ready:
	case err := <-d.ended:
		d.ended <- err
		b.Fatalf("%s ended: %v\n%s", name, err, d.said())
	case <-time.After(time.Minute):
		b.Fatalf("%s does not become ready:\n%s", name, d.said())
	}
	return d
}

func (d *daemon) read(out io.Reader, ready chan<- time.Time, seen func(line)) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		now := time.Now()
		var l line
		if json.Unmarshal(lines.Bytes(), &l) == nil {
			if l.Msg == "ready" {
				ready <- now
			}
			if seen != nil {
				seen(l)
			}
		}
		d.mu.Lock()
		if d.tail = append(d.tail, lines.Text()); len(d.tail) > 20 {
			d.tail = d.tail[1:]
		}
		d.mu.Unlock()
	}
	io.Copy(io.Discard, out) // a line beyond the limit must not block the program
}

func (d *daemon) said() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.tail, "\n")
}

// stop ends the program as a service manager does. A second call does nothing.
func (d *daemon) stop(b *testing.B) {
	if d.cmd == nil {
		return
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Error(err)
	}
	select {
	case err := <-d.ended:
		if err != nil {
			b.Errorf("%s: %v\n%s", d.cmd.Path, err, d.said())
		}
	case <-time.After(30 * time.Second):
		b.Errorf("%s does not end:\n%s", d.cmd.Path, d.said())
		d.cmd.Process.Kill()
		<-d.ended
	}
	d.cmd = nil
}

// memory is what the process has in memory now, in bytes.
func (d *daemon) memory(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	must(b, err)
	for l := range strings.Lines(string(status)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			must(b, err)
			return float64(kib) * 1024
		}
	}
	b.Fatal("no VmRSS in the process's status")
	return 0
}

const credentials = 1_000_000

// card is the one in row i of the allowlist. H10302 has 35 bits of number.
func card(i uint64) badge.Credential {
	return badge.Credential{Format: "H10302", Number: 1_000_000_007 + i*31}
}

const (
	door   = "server-room-a"
	config = `controller = "north-1"
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
	dir    string
	took   time.Duration // the import
	memory int64         // that it had
}

// millionSite returns the folder of the controller and its configuration.
func millionSite(b *testing.B) (dir, file string) {
	b.Helper()
	million.once.Do(func() {
		dir := filepath.Join(folder(b), "million")
		tool(b, "gatehouse", "init", "--data", dir, "--controller", "north-1")
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
		began := time.Now()
		_, million.memory = tool(b, "gatehouse", "allowlist", "import", people, "--config", dir+".toml")
		million.took = time.Since(began)
		must(b, os.Remove(people))
		million.dir = dir
	})
	if million.dir == "" {
		b.Fatal("there is no allowlist")
	}
	return million.dir, million.dir + ".toml"
}
