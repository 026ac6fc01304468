package rig

import (
	"bufio"
	"encoding/json"
	"errors"
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

const tailLines = 60 // of a program's log, shown when a test fails

// Process is a running gatehouse or gatehouse-crm.
type Process struct {
	name  string
	cmd   *exec.Cmd
	began time.Time
	ready chan ready    // what it says once
	done  chan struct{} // closed when it has ended
	err   error         // of its end

	mu   sync.Mutex
	said []string
}

// ready is the word of a program that it is.
type ready struct {
	http  string
	after time.Duration
}

// Event is what is read of a line of a program's log. What is no JSON, such as
// a panic, has the line as its message.
type Event struct {
	Msg      string
	HTTP     string
	Decision string
	Reason   string
	Latency  *float64 `json:"latency_ms"`
	Size     uint64
}

// Options say how a Process is started.
type Options struct {
	Env   []string    // beside this process's own
	Heard func(Event) // gets each line of its log; may be nil
}

// Start starts a program, which ends with this process at the latest.
func Start(t testing.TB, o Options, name string, args ...string) *Process {
	t.Helper()
	p := &Process{
		name: name, cmd: exec.Command(filepath.Join(Programs(t), name), append(args, "--log-format", "json")...),
		ready: make(chan ready, 1), done: make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), o.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	logs, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(logs)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.hear(lines.Bytes(), o.Heard)
		}
		_, _ = io.Copy(io.Discard, logs) // after a line too long to scan
		p.err = p.cmd.Wait()
	}()
	return p
}

func (p *Process) hear(line []byte, heard func(Event)) {
	var e Event
	if json.Unmarshal(line, &e) != nil && e.Msg == "" {
		e.Msg = string(line)
	}
	if e.Msg == "ready" {
		select {
		case p.ready <- ready{e.HTTP, time.Since(p.began)}:
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

// Log is all that the program has said.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

// Tail is the end of what it has said.
func (p *Process) Tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.name + ", the end of its log:\n  " + strings.Join(p.said[max(0, len(p.said)-tailLines):], "\n  ")
}

// ID is the process's id.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Ready waits until the program says that it is, and returns the address of
// its pages and how long that took from its start.
func (p *Process) Ready(t testing.TB) (http string, after time.Duration) {
	t.Helper()
	r, ok := p.readyOrEnded(t)
	if !ok {
		t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.Tail())
	}
	return r.http, r.after
}

// ReadyOrRefuses waits until the program is ready, or has ended.
func (p *Process) ReadyOrRefuses(t testing.TB) (http string, ok bool) {
	t.Helper()
	r, ok := p.readyOrEnded(t)
	return r.http, ok
}

func (p *Process) readyOrEnded(t testing.TB) (r ready, ok bool) {
	t.Helper()
	select {
	case r = <-p.ready:
		return r, true
	case <-p.done:
		return r, false
	case <-time.After(Patience):
		t.Fatalf("%s neither gets ready nor ends\n%s", p.name, p.Tail())
	}
	panic("unreachable")
}

// Kill ends the program as a power cut would. It must not have ended before.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	select {
	case <-p.done:
		t.Fatalf("%s had ended by itself: %v\n%s", p.name, p.err, p.Tail())
	default:
	}
	p.End()
	if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Fatalf("%s was not killed but ended: %v\n%s", p.name, p.err, p.Tail())
	}
}

// Stop ends the program as systemd would, in good order.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(Patience):
		t.Fatalf("%s does not stop\n%s", p.name, p.Tail())
	}
	if p.err != nil {
		t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.Tail())
	}
}

// End ends the program whatever state it is in, when the test is over.
func (p *Process) End() {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Kill() // it may have ended meanwhile
		<-p.done
	}
}

// Confess has a program that still runs tell where each of its goroutines is,
// and ends it.
func (p *Process) Confess() {
	if p.cmd.Process.Signal(syscall.SIGQUIT) == nil {
		select {
		case <-p.done:
		case <-time.After(time.Second):
		}
	}
	p.End()
}
