package faults

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	patience = 90 * time.Second // for what must happen; only a test that fails waits so long
	poll     = 20 * time.Millisecond
	keptTail = 40 // lines of a program's log, shown when a test fails
)

// programs builds gatehouse and gatehouse-crm, once for the whole package, and
// says where they are.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gatehouse-faults-")
	if err != nil {
		return "", err
	}
	built = dir
	out, err := exec.Command("go", "build", "-o", dir+"/", "../../cmd/gatehouse", "../../cmd/gatehouse-crm").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

var built string // the folder of programs, for TestMain to remove

func TestMain(m *testing.M) {
	// These tests mostly wait, for deadlines of the programs to pass.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	code := m.Run()
	if built != "" {
		if err := os.RemoveAll(built); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// tool runs one of the programs to its end, as a person would at a shell.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, name), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

// event is a line of a program's log.
type event struct {
	Msg      string
	HTTP     string
	Decision string
	Latency  *float64 `json:"latency_ms"`
	Error    string
}

// process is a running gatehouse or gatehouse-crm.
type process struct {
	name string
	cmd  *exec.Cmd
	http chan string   // the address of its pages, once it is ready
	done chan struct{} // closed when it has ended
	err  error         // of its end

	mu   sync.Mutex
	tail []string
}

// start starts a program. Each line of its log goes to heard, if that is not
// nil.
func start(t *testing.T, name string, heard func(event), args ...string) *process {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, cmd: exec.Command(filepath.Join(dir, name), args...), http: make(chan string, 1), done: make(chan struct{})}
	// A test that is itself killed leaves nothing running.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	logs, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(logs)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.hear(lines.Bytes(), heard)
		}
		_, _ = io.Copy(io.Discard, logs) // after a line too long to scan
		p.err = p.cmd.Wait()
	}()
	return p
}

func (p *process) hear(line []byte, heard func(event)) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		e = event{Msg: string(line)} // a panic, most likely
	}
	if e.Msg == "ready" {
		select {
		case p.http <- e.HTTP:
		default:
		}
	}
	p.mu.Lock()
	p.tail = append(p.tail, string(line))
	p.tail = p.tail[max(0, len(p.tail)-keptTail):]
	p.mu.Unlock()
	if heard != nil {
		heard(e)
	}
}

// ready waits until the program says that it is, and returns the address of
// its pages.
func (p *process) ready(t *testing.T) string {
	t.Helper()
	select {
	case addr := <-p.http:
		return addr
	case <-p.done:
		t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.last())
	case <-time.After(patience):
		t.Fatalf("%s does not get ready\n%s", p.name, p.last())
	}
	panic("unreachable")
}

// kill ends the program as a power cut would. It must not have ended before.
func (p *process) kill(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
		t.Fatalf("%s had ended by itself: %v\n%s", p.name, p.err, p.last())
	default:
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-p.done
	if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Fatalf("%s was not killed but ended: %v\n%s", p.name, p.err, p.last())
	}
}

// stop ends the program as systemd would.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s does not stop\n%s", p.name, p.last())
	}
	if p.err != nil {
		t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.last())
	}
}

// end ends the program whatever state it is in, when the test is over.
func (p *process) end() {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Kill() // it may have ended meanwhile
		<-p.done
	}
}

// last is the end of the program's log.
func (p *process) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "the end of its log:\n  " + strings.Join(p.tail, "\n  ")
}

// eventually waits for what must happen.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(poll) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}
