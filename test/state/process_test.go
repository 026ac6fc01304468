// Package state holds the real programs to their promises while what they keep
// on disk, their clock and their certificates go wrong: after each fault every
// opening has its record, what was recorded arrives once as far as it can be
// read, and nobody is let in wrongly.
package state

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	patience = 60 * time.Second // for what must happen; only a test that fails waits so long
	poll     = 20 * time.Millisecond
	keptTail = 60 // lines of a program's log, shown when a test fails
)

// programsEnv names the folder of the built programs to a test that runs again
// in a mount namespace of its own.
const programsEnv = "GATEHOUSE_TEST_PROGRAMS"

var built string // what TestMain removes

// programs builds gatehouse and gatehouse-crm once, and says where they are.
var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(programsEnv); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "gatehouse-state-")
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

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		if err := os.RemoveAll(built); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// run runs one of the programs to its end.
func run(name string, args ...string) (stdout, stderr string, err error) {
	dir, err := programs()
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, name), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// tool runs one of the programs, which must succeed, as a person would.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	stdout, stderr, err := run(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// event is a line of a program's log.
type event struct {
	Msg      string
	HTTP     string
	Decision string
	Reason   string
	Error    string
	Seq      *uint64
	Late     bool
	Event    string
}

// process is a running gatehouse or gatehouse-crm.
type process struct {
	name string
	cmd  *exec.Cmd
	http chan string   // the address of its pages, once it is ready
	done chan struct{} // closed when it has ended
	err  error         // of its end

	mu   sync.Mutex
	said []string
}

// start starts a program. Each line of its log goes to heard.
func start(t *testing.T, env []string, heard func(event), name string, args ...string) *process {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, cmd: exec.Command(filepath.Join(dir, name), args...), http: make(chan string, 1), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
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
	_ = json.Unmarshal(line, &e) // what is no JSON is kept as it is
	if e.Msg == "ready" {
		select {
		case p.http <- e.HTTP:
		default:
		}
	}
	p.mu.Lock()
	p.said = append(p.said, string(line))
	p.mu.Unlock()
	if heard != nil {
		heard(e)
	}
}

// log is all that the program has said.
func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

// tail is the end of the program's log.
func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.name + ", the end of its log:\n  " + strings.Join(p.said[max(0, len(p.said)-keptTail):], "\n  ")
}

// ready waits until the program says that it is, and returns the address of
// its pages.
func (p *process) ready(t *testing.T) string {
	t.Helper()
	select {
	case addr := <-p.http:
		return addr
	case <-p.done:
		t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.tail())
	case <-time.After(patience):
		t.Fatalf("%s does not get ready\n%s", p.name, p.tail())
	}
	panic("unreachable")
}

// readyOrRefuses waits until the program is ready, or has ended.
func (p *process) readyOrRefuses(t *testing.T) (addr string, ready bool) {
	t.Helper()
	select {
	case addr := <-p.http:
		return addr, true
	case <-p.done:
		return "", false
	case <-time.After(patience):
		t.Fatalf("%s neither gets ready nor ends\n%s", p.name, p.tail())
	}
	panic("unreachable")
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-p.done
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
		t.Fatalf("%s does not stop\n%s", p.name, p.tail())
	}
	if p.err != nil {
		t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.tail())
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
