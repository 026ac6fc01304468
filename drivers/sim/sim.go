package sim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// Faults of a device.
var (
	ErrNobody = errors.New("no site is connected")
	ErrClosed = errors.New("the driver is closed")
)

const (
	maxPath      = 107 // bytes in a sockaddr_un, without its zero byte
	queuedReads  = 64  // frames and keys that wait while nobody calls Read
	queuedWrites = 1024
	ioTimeout    = 2 * time.Second // for a first line and for each write
)

// Settings are the driver's own table in the configuration.
type Settings struct {
	Socket string `toml:"socket" json:"socket"` // path; relative: to the controller's data directory
}

// DefaultSettings is a socket in the data directory.
func DefaultSettings() *Settings { return &Settings{Socket: "site.sock"} }

// Validate refuses a path that no socket can have.
func (s *Settings) Validate() error {
	switch {
	case s.Socket == "":
		return fmt.Errorf("socket: a path is needed")
	case len(s.Socket) > maxPath:
		return fmt.Errorf("socket: %q has more than %d bytes, the most that a socket's path can have", s.Socket, maxPath)
	}
	return nil
}

// Resolve makes a relative path relative to dir.
func (s *Settings) Resolve(dir string) {
	if s.Socket != "" && !filepath.IsAbs(s.Socket) {
		s.Socket = filepath.Join(dir, s.Socket)
	}
}

// Device is one wire of the site.
type Device struct {
	Line string `toml:"line" json:"line"`
}

// Validate refuses what cannot be the name of a wire.
func (d *Device) Validate() error { return checkName(d.Line) }

// Keys is how the keypad that every reader of the site has sends what is typed.
func (d *Device) Keys() (encoding badge.KeypadEncoding, facility uint64) { return badge.Keypad4Bit, 0 }

// Lines is the one wire that the device takes.
func (d *Device) Lines() []string { return []string{"sim/" + d.Line} }

// Bus is the controller's end of the socket.
type Bus struct {
	log      *slog.Logger
	listener *net.UnixListener
	serving  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	used    bool          // somebody reads or watches: all devices were given out
	site    *session      // nil: nobody is connected
	changed chan struct{} // closed and replaced when anything below or above changes
	conns   map[net.Conn]bool
	active  map[string]bool
	faults  map[string]string
	readers map[string]*Reader
	inputs  map[string]*Input
	outputs map[string]*output
	order   []string // of outputs, as they were given out
}

// Open creates the socket and listens on it. A socket that a dead process
// left behind is replaced; one on which somebody answers is an error.
func Open(s *Settings, log *slog.Logger) (*Bus, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	listener, err := listen(s.Socket)
	if err != nil {
		return nil, err
	}
	b := &Bus{
		log:      log,
		listener: listener,
		changed:  make(chan struct{}),
		conns:    make(map[net.Conn]bool),
		active:   make(map[string]bool),
		faults:   make(map[string]string),
		readers:  make(map[string]*Reader),
		inputs:   make(map[string]*Input),
		outputs:  make(map[string]*output),
	}
	b.serving.Go(b.accept)
	return b, nil
}

func listen(path string) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	// Whoever can reach the socket can open every door of the site.
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("socket: others can look into %q (mode %04o): run chmod 700 on it", dir, info.Mode().Perm())
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l, nil
}

// removeStale removes a socket on which nobody answers.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("socket: %q is there and is no socket", path)
	}
	c, err := net.DialTimeout("unix", path, ioTimeout)
	if err == nil {
		c.Close()
		return fmt.Errorf("socket: another program answers on %q", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("socket: %q may be in use: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	return nil
}

// Close locks every strike, tells the site, and makes every call that waits
// or comes later fail with ErrClosed.
func (b *Bus) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	for _, name := range b.order {
		if o := b.outputs[name]; o.state == Unlocked {
			b.command(o, Locked)
		}
	}
	for c := range b.conns {
		if b.site == nil || b.site.conn != c {
			c.Close()
		}
	}
	if b.site != nil {
		close(b.site.out) // what is queued is still sent; then the connection is closed
		b.site = nil
	}
	b.broadcast()
	b.mu.Unlock()

	err := b.listener.Close() // removes the socket too
	b.serving.Wait()
	return err
}

// Reader gives out the reader on a wire.
func (b *Bus) Reader(d *Device, _ []*badge.Format) (*Reader, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.take(d); err != nil {
		return nil, err
	}
	r := &Reader{bus: b, line: d.Line, reads: make(chan badge.Read, queuedReads)}
	b.readers[d.Line] = r
	return r, nil
}

// Input gives out the input on a wire.
func (b *Bus) Input(d *Device) (*Input, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.take(d); err != nil {
		return nil, err
	}
	in := &Input{bus: b, line: d.Line}
	b.inputs[d.Line] = in
	return in, nil
}

// Strike gives out the strike on a wire. It is locked.
func (b *Bus) Strike(d *Device) (*Strike, error) {
	o, err := b.output(d, Locked)
	if err != nil {
		return nil, err
	}
	return &Strike{o}, nil
}

// Indicator gives out the indicator on a wire. It is dark.
func (b *Bus) Indicator(d *Device) (*Indicator, error) {
	o, err := b.output(d, "")
	if err != nil {
		return nil, err
	}
	return &Indicator{o}, nil
}

func (b *Bus) output(d *Device, state string) (*output, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.take(d); err != nil {
		return nil, err
	}
	o := &output{bus: b, line: d.Line}
	b.outputs[d.Line] = o
	b.order = append(b.order, d.Line)
	if state != "" {
		b.command(o, state)
	}
	return o, nil
}

// take checks that a wire is free. b.mu is held.
func (b *Bus) take(d *Device) error {
	if err := d.Validate(); err != nil {
		return err
	}
	_, reader := b.readers[d.Line]
	_, input := b.inputs[d.Line]
	_, output := b.outputs[d.Line]
	switch {
	case b.closed:
		return ErrClosed
	case reader || input || output:
		return fmt.Errorf("line %q is already in use", d.Line)
	}
	return nil
}

// fault is why a wire cannot be read, or nil. b.mu is held.
func (b *Bus) fault(line string) error {
	switch why, broken := b.faults[line]; {
	case b.closed:
		return ErrClosed
	case b.site == nil:
		return ErrNobody
	case broken:
		return fmt.Errorf("line %q: %s", line, why)
	}
	return nil
}

// broadcast wakes everybody who waits for a change. b.mu is held.
func (b *Bus) broadcast() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Reader is a reader of the site.
type Reader struct {
	bus   *Bus
	line  string
	reads chan badge.Read
	lost  int // frames that came while reads was full; under bus.mu
}

// Read waits for the next frame. It fails while nobody is connected or the
// wire is broken, and once for frames that were lost because nobody read them.
func (r *Reader) Read(ctx context.Context) (badge.Read, error) {
	for {
		r.bus.mu.Lock()
		r.bus.used = true
		err, changed := r.bus.fault(r.line), r.bus.changed
		if len(r.reads) == 0 && r.lost > 0 && err == nil {
			err = fmt.Errorf("line %q: %d frames were lost", r.line, r.lost)
			r.lost = 0
		}
		r.bus.mu.Unlock()

		if ctx.Err() != nil {
			return badge.Read{}, ctx.Err()
		}
		select {
		case read := <-r.reads: // also what was read before the fault
			if errors.Is(err, ErrClosed) {
				return badge.Read{}, err
			}
			return read, nil
		default:
		}
		if err != nil {
			return badge.Read{}, err
		}
		select {
		case read := <-r.reads:
			return read, nil
		case <-ctx.Done():
			return badge.Read{}, ctx.Err()
		case <-changed:
		}
	}
}

// deliver queues what was read. bus.mu is held.
func (r *Reader) deliver(read badge.Read) {
	select {
	case r.reads <- read:
	default:
		r.lost++
	}
}

// Input is an input of the site.
type Input struct {
	bus     *Bus
	line    string
	watched bool   // somebody is in Watch
	pending []bool // changes that Watch has not told yet
}

// Watch tells the present state and each change. It fails while nobody is
// connected or the wire is broken.
func (in *Input) Watch(ctx context.Context, changed func(active bool)) error {
	b := in.bus
	b.mu.Lock()
	if in.watched {
		b.mu.Unlock()
		return fmt.Errorf("line %q is already watched", in.line)
	}
	b.used, in.watched = true, true
	in.pending = nil
	err := b.fault(in.line)
	if err == nil {
		in.pending = []bool{b.active[in.line]}
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		in.watched, in.pending = false, nil
		b.mu.Unlock()
	}()

	for ctx.Err() == nil {
		b.mu.Lock()
		pending, err, wake := in.pending, b.fault(in.line), b.changed
		in.pending = nil
		b.mu.Unlock()
		for _, active := range pending {
			changed(active)
		}
		if err != nil {
			return err
		}
		if len(pending) > 0 {
			continue // changed may have taken long
		}
		select {
		case <-ctx.Done():
		case <-wake:
		}
	}
	return ctx.Err()
}

// output is a strike or an indicator; state is under bus.mu.
type output struct {
	bus   *Bus
	line  string
	state string
	at    time.Time
}

func (o *output) set(state string) error {
	defer runtime.Gosched() // the line goes out before the caller goes on
	o.bus.mu.Lock()
	defer o.bus.mu.Unlock()
	if o.bus.closed {
		return ErrClosed
	}
	if why, broken := o.bus.faults[o.line]; broken {
		return fmt.Errorf("line %q: %s", o.line, why)
	}
	if o.state != state {
		o.bus.command(o, state)
	}
	return nil
}

// command changes an output and tells the site. b.mu is held.
func (b *Bus) command(o *output, state string) {
	o.state, o.at = state, time.Now()
	if b.site != nil {
		b.site.send(fromBus{Line: o.line, State: o.state, At: o.at.UTC()})
	}
}

// Strike is a strike of the site.
type Strike struct{ out *output }

// Unlock lets the door be opened. It fails only when the wire is broken.
func (s *Strike) Unlock() error { return s.out.set(Unlocked) }

// Lock keeps the door shut. It fails only when the wire is broken.
func (s *Strike) Lock() error { return s.out.set(Locked) }

// Indicator is an indicator of the site.
type Indicator struct{ out *output }

// Show shows a pattern. It fails for one that does not exist and when the
// wire is broken.
func (i *Indicator) Show(pattern string) error {
	if !slices.Contains(patterns, pattern) {
		return fmt.Errorf("line %q: unknown pattern %q", i.out.line, pattern)
	}
	return i.out.set(pattern)
}

// session is the one connected site.
type session struct {
	conn net.Conn
	out  chan []byte
}

// send queues a line. A site that does not read is cut off rather than
// waited for: a strike never waits for it.
func (s *session) send(m fromBus) {
	select {
	case s.out <- append(m.marshal(), '\n'):
	default:
		s.conn.Close()
	}
}

func (b *Bus) accept() {
	for {
		conn, err := b.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, for one: it may pass
			b.log.Warn("virtual site", "fault", err.Error())
			time.Sleep(100 * time.Millisecond)
			continue
		}
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			conn.Close()
			return
		}
		b.conns[conn] = true
		b.serving.Go(func() { b.serve(conn) })
		b.mu.Unlock()
	}
}

// serve talks to one site until it goes away or breaks the rules.
func (b *Bus) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		b.mu.Lock()
		delete(b.conns, conn)
		b.mu.Unlock()
	}()
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 512), maxLine+1)

	s, err := b.greet(conn, lines)
	if err == nil {
		b.log.Info("virtual site connected")
		var writing sync.WaitGroup
		writing.Go(func() { s.write() })
		err = b.follow(s, lines)
		b.leave(s)
		writing.Wait()
		b.log.Info("virtual site disconnected")
	}
	if err != nil {
		b.log.Warn("virtual site refused", "reason", err.Error())
		conn.SetWriteDeadline(time.Now().Add(ioTimeout))
		// The site may be gone already: then there is nobody to tell.
		_, _ = conn.Write(append(fromBus{Error: err.Error()}.marshal(), '\n'))
	}
}

// greet reads the first line and makes the site the connected one.
func (b *Bus) greet(conn net.Conn, lines *bufio.Scanner) (*session, error) {
	if err := conn.SetReadDeadline(time.Now().Add(ioTimeout)); err != nil {
		return nil, err
	}
	if !lines.Scan() {
		return nil, fmt.Errorf("no first line came: %w", scanError(lines))
	}
	m, err := parseSite(lines.Bytes())
	if err != nil {
		return nil, fmt.Errorf("first line: %w", err)
	}
	if m.Site == 0 {
		return nil, fmt.Errorf("first line: it must name the version of the site")
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, ErrClosed
	case b.site != nil:
		return nil, fmt.Errorf("another site is connected")
	}
	active := make(map[string]bool)
	for _, line := range m.Active {
		active[line] = true
	}
	b.active = active
	b.faults = make(map[string]string)
	for line, why := range m.Faults {
		b.faults[line] = why
	}
	s := &session{conn, make(chan []byte, queuedWrites)}
	b.site = s
	s.send(fromBus{Welcome: protocol})
	for _, line := range b.order {
		if o := b.outputs[line]; o.state != "" {
			s.send(fromBus{Line: o.line, State: o.state, At: o.at.UTC()})
		}
	}
	b.broadcast()
	return s, nil
}

// follow takes what happens at the site until it goes away (nil) or breaks
// the rules.
func (b *Bus) follow(s *session, lines *bufio.Scanner) error {
	for n := 2; lines.Scan(); n++ {
		m, err := parseSite(lines.Bytes())
		if err == nil {
			err = b.happen(m)
		}
		if err != nil {
			return fmt.Errorf("line %d from the site: %w", n, err)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line has more than %d bytes", maxLine)
	}
	return nil // end of file, or a connection that broke: both mean gone
}

// happen applies one line.
func (b *Bus) happen(m fromSite) error {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case m.Site != 0:
		return fmt.Errorf("the site's first line came twice")
	case m.Frame != nil, m.Keys != nil:
		r, ok := b.readers[m.Line]
		if !ok && !b.used {
			return nil // the controller is still starting: nobody reads the card
		}
		if !ok {
			return fmt.Errorf("line %q has no reader", m.Line)
		}
		if m.Frame != nil {
			r.deliver(badge.Read{Frame: *m.Frame, At: now})
		}
		for _, key := range m.Keys {
			r.deliver(badge.Read{Frame: key, At: now, Keypad: true})
		}
		return nil // Read waits for it there: nobody else is to be woken
	case m.State != nil:
		if len(b.active) >= maxWires && !b.active[m.Line] {
			return fmt.Errorf("more than %d wires", maxWires)
		}
		if b.active[m.Line] == *m.State {
			return nil
		}
		b.active[m.Line] = *m.State
		if in, ok := b.inputs[m.Line]; ok && in.watched {
			if len(in.pending) >= maxWires {
				return fmt.Errorf("line %q: more than %d changes wait", m.Line, maxWires)
			}
			in.pending = append(in.pending, *m.State)
		}
	case *m.Fault == "":
		delete(b.faults, m.Line)
	case len(b.faults) >= maxWires:
		return fmt.Errorf("more than %d wires", maxWires)
	default:
		b.faults[m.Line] = *m.Fault
	}
	b.broadcast()
	return nil
}

// leave makes s no longer the connected site.
func (b *Bus) leave(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.site == s {
		b.site = nil
		close(s.out)
		b.broadcast()
	}
}

// write sends what is queued until out is closed, then ends the connection's
// reading side.
func (s *session) write() {
	for line := range s.out {
		s.conn.SetWriteDeadline(time.Now().Add(ioTimeout))
		if _, err := s.conn.Write(line); err != nil {
			s.conn.Close() // ends follow, which closes out
		}
	}
	s.conn.SetReadDeadline(time.Unix(1, 0))
}

// scanError is why a scanner stopped: nil means the other end closed.
func scanError(lines *bufio.Scanner) error {
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the site closed the connection")
}
