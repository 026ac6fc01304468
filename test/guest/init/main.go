// The program init is the whole user land of the test guest: it prepares the
// machine, and then does what the test asks for. See package guest.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/guest"
	"golang.org/x/sys/unix"
)

func main() {
	var err error
	switch {
	case os.Getpid() == 1:
		err = serve() // returning from it is the kernel's panic, which ends the guest
	case len(os.Args) == 2 && os.Args[1] == outside:
		err = play(os.Stdin, os.Stdout)
	default:
		err = errors.New("this is the first program of a test guest, and nothing else")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		os.Exit(1)
	}
}

// serve does what the test asks for.
func serve() error {
	if err := prepare(); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	m := &machine{out: json.NewEncoder(port), started: make(map[string]*exec.Cmd)}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	m.tell(guest.Message{Booted: &guest.Booted{ID: strings.TrimSpace(string(boot))}})
	in := json.NewDecoder(port)
	for {
		var r guest.Request
		if err := in.Decode(&r); err != nil {
			return fmt.Errorf("a request: %w", err)
		}
		go func() {
			reply := m.do(&r)
			reply.ID = r.ID
			m.tell(guest.Message{Reply: reply})
		}()
	}
}

// port is the way to the host. Nothing to read means that the host is not
// there yet.
type port struct{ *os.File }

func openPort() (port, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return port{}, err
	}
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == guest.PortName {
			f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
			return port{f}, err
		}
	}
	return port{}, fmt.Errorf("there is no virtio port %s", guest.PortName)
}

func (p port) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		time.Sleep(time.Millisecond)
	}
}

// machine does what the test asks for.
type machine struct {
	mu      sync.Mutex
	out     *json.Encoder
	started map[string]*exec.Cmd
}

func (m *machine) tell(msg guest.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.out.Encode(msg); err != nil {
		panic(err) // the guest ends, and with it the test
	}
}

func (m *machine) do(r *guest.Request) *guest.Reply {
	var reply guest.Reply
	var err error
	switch {
	case r.Run != nil:
		err = m.run(r.Run, &reply)
	case r.Start != nil:
		err = m.start(r.Start, &reply)
	case r.Kill != nil:
		err = m.kill(r.Kill)
	case r.Play != nil:
		reply.Played, err = playOutside(r.Play)
	case r.Watch != nil:
		err = watch(r.Watch, func(moved guest.Moved) { m.tell(guest.Message{Moved: &moved}) })
	case r.Clock != nil:
		err = setClock(r.Clock)
	case r.Read != "":
		reply.Output, err = read(r.Read)
	default:
		err = errors.New("an empty request")
	}
	if err != nil {
		reply.Error = err.Error()
	}
	return &reply
}

func command(c *guest.Command) *exec.Cmd {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Dir = guest.DataDir
	cmd.Env = append(os.Environ(), c.Env...)
	return cmd
}

func (m *machine) run(c *guest.Command, reply *guest.Reply) error {
	out, err := command(c).CombinedOutput()
	reply.Output = out
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		reply.Exit = exit.ExitCode()
		return nil
	}
	return err
}

func (m *machine) start(c *guest.Command, reply *guest.Reply) error {
	cmd := command(c)
	said := &lines{tell: func(line string) { m.tell(guest.Message{Said: &guest.Said{Name: c.Name, Line: line}}) }}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		return err
	}
	reply.PID = cmd.Process.Pid
	m.mu.Lock()
	m.started[c.Name] = cmd
	m.mu.Unlock()
	go func() {
		_ = cmd.Wait() // its state says all
		m.tell(guest.Message{Ended: &guest.Ended{Name: c.Name, State: cmd.ProcessState.String()}})
	}()
	return nil
}

func (m *machine) kill(s *guest.Signal) error {
	m.mu.Lock()
	cmd := m.started[s.Name]
	m.mu.Unlock()
	if cmd == nil {
		return fmt.Errorf("nothing was started as %q", s.Name)
	}
	return cmd.Process.Signal(syscall.Signal(s.Signal))
}

// lines tells what is written by the line. os/exec writes from one goroutine,
// since both outputs are the same.
type lines struct {
	tell func(string)
	rest []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		l.tell(string(line))
		l.rest = rest
	}
}

func read(what string) ([]byte, error) {
	if !strings.HasPrefix(what, "http://") {
		return os.ReadFile(what)
	}
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(what)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", what, answer.Status)
	}
	return text, err
}

func setClock(c *guest.Clock) error {
	ts := unix.NsecToTimespec(c.Set.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("setting the clock: %w", err)
	}
	if !c.Synchronised {
		return nil
	}
	// What a time service tells the kernel.
	tx := unix.Timex{Modes: unix.ADJ_STATUS | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR, Status: unix.STA_PLL}
	if _, err := unix.Adjtimex(&tx); err != nil {
		return fmt.Errorf("adjtimex: %w", err)
	}
	return nil
}
