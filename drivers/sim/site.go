package sim

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// redial is how long a site waits before it tries to reach a controller again.
const redial = 50 * time.Millisecond

// Output is a state that the controller gave to a strike or an indicator.
type Output struct {
	Line  string
	State string    // Locked or Unlocked; or an indicator's pattern
	At    time.Time // when the controller gave it
}

// Site is the virtual site's end of the socket, for tests and the demo. When
// the controller goes away it waits for the next one and tells it everything
// again. Its methods may be called from several goroutines.
type Site struct {
	path    string
	outputs chan Output
	done    chan struct{} // closed by Close
	running sync.WaitGroup

	mu     sync.Mutex
	conn   net.Conn // nil: not connected
	err    error
	active map[string]bool
	faults map[string]string
}

// Dial connects a site to the controller that listens on path. The wires
// named are active from the beginning.
func Dial(path string, active ...string) (*Site, error) {
	s := &Site{
		path:    path,
		outputs: make(chan Output, 256),
		done:    make(chan struct{}),
		active:  make(map[string]bool),
		faults:  make(map[string]string),
	}
	for _, line := range active {
		s.active[line] = true
	}
	lines, err := s.connect()
	if err != nil {
		return nil, err
	}
	s.running.Go(func() { s.run(lines) })
	return s, nil
}

// Swipe presents a card's frame at a reader. It fails while the site is not
// connected: a card that nobody read leaves no trace.
func (s *Site) Swipe(line string, f badge.Frame) error {
	if f.Len() == 0 {
		return fmt.Errorf("line %q: the frame is empty", line)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.say(fromSite{Line: line, Frame: &f})
}

// Type presses keys of a reader's keypad, such as "4711#": 0 to 9, * and #. It
// fails while the site is not connected.
func (s *Site) Type(line, text string) error {
	pressed, ok := typed(text)
	if !ok {
		return fmt.Errorf("line %q: a keypad has 0 to 9, * and #, and takes 1 to %d of them", line, maxKeys)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.say(fromSite{Line: line, Keys: pressed})
}

// Set makes an input active or inactive. While the site is not connected it
// is remembered.
func (s *Site) Set(line string, active bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[line] = active
	return s.tell(fromSite{Line: line, State: &active})
}

// Break makes a wire faulty until Mend is called.
func (s *Site) Break(line, why string) error {
	if why == "" {
		return fmt.Errorf("line %q: a fault needs a reason", line)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[line] = why
	return s.tell(fromSite{Line: line, Fault: &why})
}

// Mend ends a wire's fault.
func (s *Site) Mend(line string) error {
	whole := ""
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.faults, line)
	return s.tell(fromSite{Line: line, Fault: &whole})
}

// Outputs is every state that the controller gives, in order. It must be
// read: a controller cuts off a site that does not. It is closed when the
// site is closed or refused.
func (s *Site) Outputs() <-chan Output { return s.outputs }

// Err is why the controller refused the site, or nil.
func (s *Site) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close disconnects the site.
func (s *Site) Close() error {
	s.mu.Lock()
	select {
	case <-s.done:
	default:
		close(s.done)
	}
	if s.conn != nil {
		s.conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// tell says what the next first line would say too, so it may be lost. s.mu
// is held.
func (s *Site) tell(m fromSite) error {
	if err := checkName(m.Line); err != nil {
		return err
	}
	if err := s.say(m); err != nil && s.err != nil {
		return s.err
	}
	return nil
}

// say writes one line. s.mu is held.
func (s *Site) say(m fromSite) error {
	if s.err != nil {
		return s.err
	}
	if s.conn == nil {
		return fmt.Errorf("line %q: the site is not connected", m.Line)
	}
	s.conn.SetWriteDeadline(time.Now().Add(ioTimeout))
	if _, err := s.conn.Write(append(m.marshal(), '\n')); err != nil {
		s.conn.Close() // run notices and connects again
		return fmt.Errorf("line %q: %w", m.Line, err)
	}
	return nil
}

// connect dials, tells everything, and waits for the welcome.
func (s *Site) connect() (*bufio.Scanner, error) {
	conn, err := net.DialTimeout("unix", s.path, ioTimeout)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	hello := fromSite{Site: protocol, Faults: maps.Clone(s.faults)}
	for _, line := range slices.Sorted(maps.Keys(s.active)) {
		if s.active[line] {
			hello.Active = append(hello.Active, line)
		}
	}
	conn.SetDeadline(time.Now().Add(ioTimeout))
	_, err = conn.Write(append(hello.marshal(), '\n'))
	select {
	case <-s.done:
		err = net.ErrClosed
	default:
	}
	if err != nil {
		s.mu.Unlock()
		conn.Close()
		return nil, err
	}
	s.conn = conn // a change from here on follows the first line
	s.mu.Unlock()

	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 512), maxLine+1)
	lines.Split(wholeLines)
	if !lines.Scan() {
		err = errors.New("the controller closed the connection")
		if lines.Err() != nil {
			err = lines.Err()
		}
	} else if m, perr := parseBus(lines.Bytes()); perr != nil {
		err = &refusal{perr.Error()}
	} else if m.Error != "" {
		err = &refusal{m.Error}
	} else if m.Welcome == 0 {
		err = &refusal{"the controller did not welcome the site"}
	}
	if err != nil {
		s.drop()
		return nil, err
	}
	return lines, conn.SetReadDeadline(time.Time{})
}

// drop ends the connection.
func (s *Site) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// refusal is an error that connecting again does not cure.
type refusal struct{ why string }

func (r *refusal) Error() string { return "the site was refused: " + r.why }

// run passes on outputs and connects again until Close or a refusal.
func (s *Site) run(lines *bufio.Scanner) {
	defer close(s.outputs)
	defer s.drop()
	for {
		err := s.listen(lines)
		s.drop()
		for lines = nil; lines == nil && err == nil; {
			select {
			case <-s.done:
				return
			case <-time.After(redial):
			}
			l, derr := s.connect()
			var refused *refusal
			if errors.As(derr, &refused) {
				err = derr
			} else if derr == nil {
				lines = l
			}
		}
		if err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			return
		}
	}
}

// listen passes on outputs until the connection ends (nil) or the controller
// refuses the site. Strikes fall back to locked when it ends.
func (s *Site) listen(lines *bufio.Scanner) error {
	unlocked := make(map[string]bool)
	defer func() {
		for _, line := range slices.Sorted(maps.Keys(unlocked)) {
			s.pass(Output{line, Locked, time.Now()})
		}
	}()
	for lines.Scan() {
		m, err := parseBus(lines.Bytes())
		if err != nil {
			return &refusal{err.Error()}
		}
		switch {
		case m.Error != "":
			return &refusal{m.Error}
		case m.Welcome != 0:
			continue
		case m.State == Unlocked:
			unlocked[m.Line] = true
		case m.State == Locked:
			delete(unlocked, m.Line)
		}
		s.pass(Output{m.Line, m.State, m.At})
	}
	return nil
}

func (s *Site) pass(o Output) {
	select {
	case s.outputs <- o:
	case <-s.done:
	}
}
