package guest_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/guest"
)

// patience is for what must happen; only a test that fails waits so long. An
// emulated machine on a busy host takes its time.
const patience = 2 * time.Minute

// mode is how the guest's time passes.
type mode int

const (
	// inOrder has one processor, whose time is the number of instructions that
	// it has done: it does not matter what else the host does. While the guest
	// waits its time jumps to the next timer, so that nothing may be waited for
	// that is outside it: no network, no disk, no test.
	inOrder mode = iota
	// free has two processors that run side by side as fast as the host lets
	// them, and the host's time.
	free
)

// hardware is a guest to be.
type hardware struct {
	mode  mode
	disk  string            // the image of an ext4 file system at DataDir, or ""
	net   bool              // the host's loopback is guest.Host
	rtc   time.Time         // what the real-time clock reads; zero: the host's time
	files map[string]string // by path in the guest: a file or a folder here
}

// machine is a running guest.
type machine struct {
	t       *testing.T
	cmd     *exec.Cmd
	console string // what its kernel says
	in      io.WriteCloser
	booted  chan guest.Booted
	dead    chan struct{} // closed when it has ended
	bootID  string
	pid     int // the daemon's

	mu      sync.Mutex
	err     error // what QEMU said
	id      uint64
	replies map[uint64]chan *guest.Reply
	said    []guest.Said
	ended   map[string]string
	moved   []guest.Moved
	heard   chan struct{} // closed, and made anew, with each message
}

// boot starts a guest and waits until it has booted.
func boot(t *testing.T, h hardware) *machine {
	t.Helper()
	b := needed(t)
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	files := map[string]string{"/init": b.init}
	for to, from := range h.files {
		files[to] = from
	}
	if err := writeInitrd(initrd, files); err != nil {
		t.Fatal(err)
	}
	m := &machine{
		t: t, console: filepath.Join(dir, "console"), booted: make(chan guest.Booted, 1), dead: make(chan struct{}),
		replies: make(map[uint64]chan *guest.Reply), ended: make(map[string]string), heard: make(chan struct{}),
	}
	args := []string{
		"-machine", "virt", "-cpu", "cortex-a72", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot",
		"-kernel", b.kernel, "-initrd", initrd,
		"-append", "console=ttyAMA0 quiet panic=-1 random.trust_bootloader=on",
		"-chardev", "file,id=console,path=" + m.console, "-serial", "chardev:console",
		"-chardev", "stdio,id=test,signal=off", "-device", "virtio-serial-device", "-device", "virtserialport,chardev=test,name=" + guest.PortName,
	}
	switch h.mode {
	case inOrder:
		args = append(args, "-smp", "1", "-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off")
	case free:
		args = append(args, "-smp", "2", "-accel", "tcg,thread=multi")
	}
	if h.disk != "" {
		args = append(args, "-drive", "if=none,id=disk,format=raw,file="+h.disk, "-device", "virtio-blk-device,drive=disk")
	}
	if h.net {
		args = append(args, "-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net")
	}
	if !h.rtc.IsZero() {
		args = append(args, "-rtc", "base="+h.rtc.UTC().Format("2006-01-02T15:04:05"))
	}
	qemu := []string{"qemu-system-aarch64"}
	if h.mode == free {
		// Where it is allowed. What others take away from the guest's processors
		// shows on its wires.
		qemu = []string{"nice", "-n", "-20", qemu[0]}
	}
	m.cmd = exec.Command(qemu[0], append(qemu[1:], args...)...)
	// A test that is itself killed leaves nothing running.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	m.cmd.Stderr = &said
	var err error
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.powerCut()
		if t.Failed() {
			t.Log(m.tail())
		}
	})
	go func() {
		defer close(m.dead)
		err := m.listen(out)
		_ = m.cmd.Wait() // it never ends well: it is killed
		m.mu.Lock()
		defer m.mu.Unlock()
		m.err = fmt.Errorf("the guest has ended: %w; %s", err, bytes.TrimSpace(said.Bytes()))
	}()
	select {
	case b := <-m.booted:
		m.bootID = b.ID
	case <-m.dead:
		t.Fatalf("%v", m.err)
	case <-time.After(patience):
		t.Fatal("the guest does not boot")
	}
	return m
}

// listen takes what the guest says until it ends.
func (m *machine) listen(out io.Reader) error {
	in := json.NewDecoder(bufio.NewReader(out))
	for {
		var msg guest.Message
		if err := in.Decode(&msg); err != nil {
			return err
		}
		m.mu.Lock()
		switch {
		case msg.Booted != nil:
			m.booted <- *msg.Booted
		case msg.Reply != nil:
			m.replies[msg.Reply.ID] <- msg.Reply
			delete(m.replies, msg.Reply.ID)
		case msg.Said != nil:
			m.said = append(m.said, *msg.Said)
		case msg.Ended != nil:
			m.ended[msg.Ended.Name] = msg.Ended.State
		case msg.Moved != nil:
			m.moved = append(m.moved, *msg.Moved)
		}
		close(m.heard)
		m.heard = make(chan struct{})
		m.mu.Unlock()
	}
}

// try asks the guest for something that may fail.
func (m *machine) try(r guest.Request, wait time.Duration) (*guest.Reply, error) {
	answer := make(chan *guest.Reply, 1)
	m.mu.Lock()
	m.id++
	r.ID = m.id
	m.replies[r.ID] = answer
	text, err := json.Marshal(r)
	if err == nil {
		_, err = m.in.Write(append(text, '\n'))
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case reply := <-answer:
		if reply.Error != "" {
			return nil, errors.New(reply.Error)
		}
		return reply, nil
	case <-m.dead:
		return nil, m.err
	case <-time.After(wait):
		return nil, fmt.Errorf("no answer within %v", wait)
	}
}

// ask asks the guest for what must not fail.
func (m *machine) ask(r guest.Request) *guest.Reply {
	m.t.Helper()
	reply, err := m.try(r, patience)
	if err != nil {
		m.t.Fatalf("the guest: %v", err)
	}
	return reply
}

// run runs a program to its end, which must be good, and returns what it said.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	reply := m.ask(guest.Request{Run: &guest.Command{Args: args}})
	if reply.Exit != 0 {
		m.t.Fatalf("%s: exit status %d\n%s", strings.Join(args, " "), reply.Exit, reply.Output)
	}
	return string(reply.Output)
}

// play plays steps, which take so long at most.
func (m *machine) play(within time.Duration, steps ...guest.Step) []guest.Done {
	m.t.Helper()
	reply, err := m.try(guest.Request{Play: steps}, within)
	if err != nil {
		m.t.Fatalf("playing: %v", err)
	}
	return reply.Played
}

// until waits for something that a message of the guest brings about. done
// is called with m.mu held.
func (m *machine) until(what string, done func() bool) {
	m.t.Helper()
	late := time.After(patience)
	for {
		m.mu.Lock()
		ok, heard := done(), m.heard
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-heard:
		case <-m.dead:
			m.t.Fatalf("never: %s: %v", what, m.err)
		case <-late:
			m.t.Fatalf("never: %s", what)
		}
	}
}

// powerCut ends the guest as a cut of its power does.
func (m *machine) powerCut() {
	_ = m.cmd.Process.Kill() // it may have ended by itself
	<-m.dead
}

// tail is the end of what the guest's kernel and programs said.
func (m *machine) tail() string {
	const kept = 80
	console, err := os.ReadFile(m.console)
	if err != nil {
		return err.Error()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var text strings.Builder
	fmt.Fprintf(&text, "the guest's console:\n%s", console)
	for _, s := range m.said[max(0, len(m.said)-kept):] {
		fmt.Fprintf(&text, "%s: %s\n", s.Name, s.Line)
	}
	return text.String()
}

// writeInitrd writes what the guest's kernel unpacks into its memory: a cpio
// archive of files and folders, all root's and otherwise with the mode that
// they have here.
func writeInitrd(name string, files map[string]string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a := archive{w: bufio.NewWriter(f), made: make(map[string]bool)}
	for to, from := range files {
		err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(from, p)
			if err != nil {
				return err
			}
			return a.add(path.Join(to, filepath.ToSlash(rel)), p, d)
		})
		if err != nil {
			return err
		}
	}
	a.entry("TRAILER!!!", 0, nil)
	return errors.Join(a.err, a.w.Flush())
}

// archive writes cpio's "newc" form. The first error stays.
type archive struct {
	w    *bufio.Writer
	n    uint32
	made map[string]bool // folders
	err  error
}

func (a *archive) add(to, from string, d fs.DirEntry) error {
	a.parents(path.Dir(to))
	info, err := d.Info()
	if err != nil {
		return err
	}
	mode := uint32(info.Mode().Perm())
	switch {
	case d.IsDir():
		a.made[to] = true
		a.entry(to, mode|syscall.S_IFDIR, nil)
	case d.Type().IsRegular():
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		a.entry(to, mode|syscall.S_IFREG, text)
	}
	return a.err
}

func (a *archive) parents(dir string) {
	if dir == "/" || a.made[dir] {
		return
	}
	a.parents(path.Dir(dir))
	a.made[dir] = true
	a.entry(dir, 0o755|syscall.S_IFDIR, nil)
}

func (a *archive) entry(name string, mode uint32, text []byte) {
	name = strings.TrimPrefix(name, "/")
	a.n++
	// Magic, inode, mode, owner, group, links, time, size, device, special
	// file's device, length of the name with its zero, check.
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.n, mode, 0, 0, 1, 0, len(text), 0, 0, 0, 0, len(name)+1, 0, name)
	for _, part := range [][]byte{[]byte(header), text} {
		padded := append(part, make([]byte, -len(part)&3)...)
		if _, err := a.w.Write(padded); a.err == nil {
			a.err = err
		}
	}
}
