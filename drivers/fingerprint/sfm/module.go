package sfm

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

// Bauds are the module's rates, the likeliest first.
var Bauds = []int{115200, 57600, 38400, 19200, 9600, 230400, 460800, 921600}

// byParameter are the rates in the order of the parameter Baudrate, from 0x31.
var byParameter = []int{9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600}

// Config says how to reach a module.
type Config struct {
	// Open opens the line at a rate.
	Open func(baud int) (fingerprint.Line, error)
	// Baud is the module's rate; 0: it is looked for among Bauds.
	Baud int
	// Terminal is the module's number on RS-485, the low 16 bits of its module ID;
	// 0: it is not on RS-485.
	Terminal uint16
	// FingerWait is how long a finger is waited for, if the module itself does not
	// give up before. 0: 10 s.
	FingerWait time.Duration
	// Wait is how long an answer to a simple command is waited for. 0: 1 s.
	Wait time.Duration
}

const (
	// tries is how often a command is sent whose answer did not come. Each of those
	// that are tried again does the same when it is done twice.
	tries = 3
	// maxTemplate bounds a template, and maxTemplates how many of them an ID has.
	maxTemplate, maxTemplates = 4 << 10, 10
	// maxFrame is how much of an answer is looked at before more has to come.
	maxFrame = 1 << 10
	// off is a parameter's value.
	off = 0x30
	// busyPause is how long a busy module is left alone.
	busyPause = 100 * time.Millisecond
)

// Module is a connected module.
type Module struct {
	config Config
	info   fingerprint.Info

	turn     fingerprint.Turn
	wire     *fingerprint.Wire
	unsure   bool          // an answer may still come, or a scan goes on
	sent     Packet        // the last one
	matching time.Duration // how long the module may take to judge a finger
}

var _ fingerprint.Module = (*Module)(nil)

// Open finds the module and asks what it is.
func Open(ctx context.Context, c Config) (*Module, error) {
	c.FingerWait = cmp.Or(c.FingerWait, 10*time.Second)
	c.Wait = cmp.Or(c.Wait, time.Second)
	m := &Module{config: c, turn: fingerprint.NewTurn()}
	wire, baud, err := fingerprint.Find(c.Open, c.Baud, Bauds, maxFrame, func(w *fingerprint.Wire) error {
		m.wire = w
		return m.settle(ctx)
	})
	if err != nil {
		return nil, err
	}
	m.info.Baud = baud
	if err := m.describe(ctx); err != nil {
		return nil, errors.Join(err, wire.Line.Close())
	}
	return m, nil
}

// describe reads what the module is.
func (m *Module) describe(ctx context.Context) error {
	read := func(p Parameter, err *error) uint32 {
		if *err != nil {
			return 0
		}
		var v uint32
		v, *err = m.parameter(ctx, p)
		return v
	}
	var err error
	serial, firmware := read(SerialNumber, &err), read(FirmwareVersion, &err)
	enrolled, available := read(EnrolledFinger, &err), read(AvailableFinger, &err)
	size := read(TemplateSize, &err)
	if err != nil {
		return err
	}
	const most = 1 << 20 // of fingers, which no module has
	if enrolled > most || available > most || size == 0 || size > maxTemplate {
		return fmt.Errorf("%w: %d fingers, room for %d, templates of %d bytes", fingerprint.ErrGarbled, enrolled, available, size)
	}
	m.info.Family = "sfm"
	m.info.Serial = serialNumber(serial)
	for b := firmware; b != 0; b >>= 8 {
		if c := byte(b); c > ' ' && c <= '~' {
			m.info.Firmware += string(rune(c))
		}
	}
	m.info.Capacity = int(enrolled + available)
	m.info.TemplateSize = int(size)
	// Scans that nobody asked for give answers that could be taken for others'.
	free, err := m.parameter(ctx, FreeScan)
	if err == nil && free != off {
		err = m.setParameter(ctx, FreeScan, off)
	}
	if err != nil && !fingerprint.IsRefusal(err) {
		return err
	}
	timeout, err := m.parameter(ctx, MatchingTimeout)
	if err != nil && !fingerprint.IsRefusal(err) {
		return err
	}
	m.matching = 20 * time.Second // the longest that it can be set to
	if timeout > 0x30 && timeout <= 0x44 {
		m.matching = time.Duration(timeout-0x30) * time.Second
	}
	return nil
}

func serialNumber(v uint32) string { return strconv.FormatUint(uint64(v), 10) }

// Ping asks whether the module is there, and still the one that it was.
func (m *Module) Ping(ctx context.Context) error {
	serial, err := m.Parameter(ctx, SerialNumber)
	if err != nil {
		return err
	}
	return fingerprint.CheckSerial(m.info.Serial, fingerprint.Info{Serial: serialNumber(serial)})
}

// ask sends a command until it is answered well, at most tries times.
func (m *Module) ask(ctx context.Context, p Packet) (Packet, error) {
	for try := 1; ; try++ {
		if err := m.makeSure(ctx); err != nil {
			return Packet{}, err
		}
		answer, err := m.once(ctx, p)
		if err == nil || try == tries || ctx.Err() != nil {
			return answer, err
		}
		switch {
		case fingerprint.NoAnswer(err), errors.Is(err, DataError):
		case errors.Is(err, Busy):
			if err := fingerprint.Pause(ctx, busyPause); err != nil {
				return Packet{}, err
			}
		default:
			return answer, err
		}
	}
}

// once sends a command and waits for its answer; one that is no success is an
// Error.
func (m *Module) once(ctx context.Context, p Packet) (Packet, error) {
	if err := m.makeSure(ctx); err != nil {
		return Packet{}, err
	}
	if err := m.send(p); err != nil {
		return Packet{}, err
	}
	return m.success(ctx, p.Command, m.config.Wait)
}

func (m *Module) send(p Packet) error {
	p.Terminal = m.config.Terminal
	b, err := p.AppendBinary(nil)
	if err != nil {
		return err
	}
	m.unsure, m.sent = true, p
	return m.wire.Ask(b)
}

// success waits for an answer that is Success.
func (m *Module) success(ctx context.Context, c Command, wait time.Duration) (Packet, error) {
	a, err := m.answer(ctx, c, wait)
	if err != nil {
		return Packet{}, err
	}
	m.unsure = false
	if e := Error(a.Flag); e != Success {
		return Packet{}, e
	}
	return a, nil
}

// answer waits for an answer to a command. Those to others are stepped over, and
// so is the command itself, which a converter to RS-485 may give back.
func (m *Module) answer(ctx context.Context, c Command, wait time.Duration) (Packet, error) {
	var a Packet
	err := m.wire.Receive(ctx, wait, func(b []byte) (int, bool) {
		return Next(b, func(p Packet) bool {
			a = p
			return p.Command == c && p.Terminal == m.config.Terminal && p != m.sent
		})
	})
	return a, err
}

// settle ends a scan that goes on and puts what was asked before behind us.
// Answers come in order, and only to this is one ID's.
func (m *Module) settle(ctx context.Context) error {
	if err := m.send(Packet{Command: CA}); err != nil {
		return err
	}
	if err := m.send(Packet{Command: ID}); err != nil {
		return err
	}
	if _, err := m.answer(ctx, ID, m.config.Wait); err != nil {
		return err
	}
	m.unsure = false
	return nil
}

// makeSure settles after an answer that did not come.
func (m *Module) makeSure(ctx context.Context) error {
	if !m.unsure {
		return nil
	}
	return fingerprint.Retry(tries, func() error { return m.settle(ctx) })
}

// data reads what follows a packet, into b, and the byte that ends it.
func (m *Module) data(ctx context.Context, b []byte) error {
	m.unsure = true
	n, ended := 0, false
	wait := m.config.Wait + time.Duration(len(b))*10*time.Second/time.Duration(m.info.Baud)
	err := m.wire.Receive(ctx, wait, func(come []byte) (int, bool) {
		took := copy(b[n:], come)
		if n += took; took == len(come) {
			return took, false
		}
		ended = come[took] == end
		return took + 1, true
	})
	if err == nil && !ended {
		err = fmt.Errorf("%w: data that do not end", fingerprint.ErrGarbled)
	}
	m.unsure = err != nil
	return err
}

// Info is what the module told of itself. It does not tell its model.
func (m *Module) Info() fingerprint.Info { return m.info }

// Close closes the line, which ends what goes on.
func (m *Module) Close() error {
	err := m.wire.Line.Close()
	m.turn.Take(context.Background())
	defer m.turn.Give()
	m.wire.Forget()
	return err
}

// Parameter reads one of the module's parameters.
func (m *Module) Parameter(ctx context.Context, p Parameter) (uint32, error) {
	if err := m.turn.Take(ctx); err != nil {
		return 0, err
	}
	defer m.turn.Give()
	return m.parameter(ctx, p)
}

func (m *Module) parameter(ctx context.Context, p Parameter) (uint32, error) {
	a, err := m.ask(ctx, Packet{Command: SR, Flag: byte(p)})
	if err != nil {
		return 0, fmt.Errorf("parameter %#02x: %w", byte(p), err)
	}
	return a.Size, nil
}

// SetParameter changes one of the module's parameters for good.
func (m *Module) SetParameter(ctx context.Context, p Parameter, value uint32) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	return m.setParameter(ctx, p, value)
}

func (m *Module) setParameter(ctx context.Context, p Parameter, value uint32) error {
	if _, err := m.ask(ctx, Packet{Command: SW, Size: value, Flag: byte(p)}); err != nil {
		return fmt.Errorf("parameter %#02x: %w", byte(p), err)
	}
	_, err := m.ask(ctx, Packet{Command: SF})
	return err
}

// scan sends a command that waits for a finger, and gives what came of it.
// Progress is told Continue and ScanSuccess, which may come or not.
func (m *Module) scan(ctx context.Context, p Packet, progress func(Error)) (Packet, error) {
	if err := m.makeSure(ctx); err != nil {
		return Packet{}, err
	}
	if err := m.send(p); err != nil {
		return Packet{}, err
	}
	wait, scanned := m.config.FingerWait, false
	for {
		a, err := m.answer(ctx, p.Command, wait)
		if errors.Is(err, fingerprint.ErrSilent) && !scanned {
			// It waits for a finger, or is gone: what cancels the scan tells.
			if err := m.makeSure(ctx); err != nil {
				return Packet{}, err
			}
			return Packet{}, TimeOut
		}
		if err != nil {
			// Nothing is to go on that nobody waits for; the next command makes sure.
			return Packet{}, errors.Join(err, m.send(Packet{Command: CA}))
		}
		switch e := Error(a.Flag); e {
		case ScanSuccess:
			progress(e)
			wait, scanned = m.matching+m.config.Wait, true
			if p.Command == ES { // the next scan may follow at once
				wait = max(wait, m.config.FingerWait)
			}
		case Continue:
			progress(e)
			wait = m.config.FingerWait
		case Success:
			m.unsure = false
			return a, nil
		default:
			m.unsure = false
			return a, e
		}
	}
}

// judge is scan for a comparison.
func (m *Module) judge(ctx context.Context, p Packet) (fingerprint.Match, error) {
	if err := m.turn.Take(ctx); err != nil {
		return fingerprint.Match{}, err
	}
	defer m.turn.Give()
	a, err := m.scan(ctx, p, func(Error) {})
	found := fingerprint.Match{Outcome: fingerprint.Matched, ID: fingerprint.ID(a.Param), Finger: int(a.Size)}
	e, _ := errors.AsType[Error](err)
	switch {
	case err == nil:
	case e == DuressFinger:
		found.Outcome = fingerprint.Duress
	case e == NotFound && p.Command == IS, e == NotMatch, e == TimeoutMatch:
		return fingerprint.Match{Outcome: fingerprint.NoMatch}, nil
	case e == TimeOut, e == Canceled:
		return fingerprint.Match{Outcome: fingerprint.NoFinger}, nil
	case e == ScanFail, e == TryAgain:
		return fingerprint.Match{Outcome: fingerprint.TryAgain}, nil
	case e == FakeDetected:
		return fingerprint.Match{Outcome: fingerprint.Fake}, nil
	default:
		return fingerprint.Match{}, err
	}
	if found.ID == 0 || p.Command == VS && found.ID != fingerprint.ID(p.Param) || a.Size >= maxTemplates {
		return fingerprint.Match{}, fmt.Errorf("%w: a match with finger %d of ID %d", fingerprint.ErrGarbled, a.Size, found.ID)
	}
	return found, nil
}

// Identify waits for a finger and finds out whose it is. Whether a finger that
// stays on counts again is the module's setting.
func (m *Module) Identify(ctx context.Context) (fingerprint.Match, error) {
	return m.judge(ctx, Packet{Command: IS})
}

// Verify waits for a finger and compares it with a user's.
func (m *Module) Verify(ctx context.Context, id fingerprint.ID) (fingerprint.Match, error) {
	if err := usable(id); err != nil {
		return fingerprint.Match{}, err
	}
	return m.judge(ctx, Packet{Command: VS, Param: uint32(id)})
}

func usable(id fingerprint.ID) error {
	if id == 0 {
		return fingerprint.Refuse(fingerprint.ErrNoSuchID, "0 is none")
	}
	return nil
}

// Enroll enrols a finger under an ID that is free; the module refuses one that
// it has. One for a threat is added to an ID that is in use. The module's
// enrol mode says of how many scans, and of one or two templates.
func (m *Module) Enroll(ctx context.Context, e fingerprint.Enrollment) (quality int, err error) {
	if err := m.turn.Take(ctx); err != nil {
		return 0, err
	}
	defer m.turn.Give()
	used, err := m.used(ctx, e.ID)
	switch {
	case err != nil:
		return 0, err
	case used && !e.Duress:
		return 0, fingerprint.Refuse(fingerprint.ErrInUse, "ID %d", e.ID)
	case !used && e.Duress:
		return 0, fingerprint.Refuse(fingerprint.ErrEmpty, "ID %d: enrol another finger first", e.ID)
	}
	mode, err := m.parameter(ctx, EnrollMode)
	if err != nil {
		return 0, err
	}
	step := fingerprint.Step{Capture: 1}
	switch mode {
	case 0x30:
		step.Captures = 1
	case 0x31, 0x41:
		step.Captures = 2
	default:
		return 0, fingerprint.Refuse(fingerprint.ErrUnsupported, "enrol mode %#02x: set 0x30, 0x31 or 0x41 (one scan, two, two templates)", mode)
	}
	p := Packet{Command: ES, Param: uint32(e.ID), Flag: checkFinger}
	if e.Duress {
		p.Flag = addDuress
	}
	e.Tell(step)
	a, err := m.scan(ctx, p, func(what Error) {
		if what == ScanSuccess && step.Capture < step.Captures {
			step.Action = fingerprint.Lift
			e.Tell(step)
			step.Action, step.Capture = fingerprint.Place, step.Capture+1
			e.Tell(step)
		}
	})
	switch {
	case err == nil && a.Size <= 100:
		return int(a.Size), nil
	case err == nil, fingerprint.IsRefusal(err) && !errors.Is(err, TimeOut):
		return 0, err
	}
	// TimeOut is ours too: the answer may have been lost.
	if e.Duress {
		return 0, fmt.Errorf("%w (ID %d may have the finger for a threat now)", err, e.ID)
	}
	return 0, fingerprint.Undo(ctx, 4*m.config.Wait, e.ID, err, m.remove)
}

func (m *Module) used(ctx context.Context, id fingerprint.ID) (bool, error) {
	if err := usable(id); err != nil {
		return false, err
	}
	_, err := m.ask(ctx, Packet{Command: CT, Param: uint32(id)})
	switch {
	case err == nil, errors.Is(err, ExistID):
		return true, nil
	case errors.Is(err, NotFound):
		return false, nil
	}
	return false, err
}

// List gives the users.
func (m *Module) List(ctx context.Context) ([]fingerprint.ID, error) {
	if err := m.turn.Take(ctx); err != nil {
		return nil, err
	}
	defer m.turn.Give()
	for try := 1; ; try++ {
		ids, err := m.list(ctx)
		if !fingerprint.NoAnswer(err) || try == tries || ctx.Err() != nil {
			return ids, err
		}
	}
}

// list reads the users: as many as param says, each the ID in 4 bytes, which
// newer modules follow with 4 more about it.
func (m *Module) list(ctx context.Context) ([]fingerprint.ID, error) {
	a, err := m.ask(ctx, Packet{Command: LT})
	if errors.Is(err, NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	count, size := int64(a.Param), int64(a.Size)
	if count == 0 && size == 0 {
		return nil, nil
	}
	if count > int64(m.info.Capacity) || size != 4*count && size != 8*count {
		m.unsure = true
		return nil, fmt.Errorf("%w: a list of %d users in %d bytes", fingerprint.ErrGarbled, count, size)
	}
	b := make([]byte, size)
	if err := m.data(ctx, b); err != nil {
		return nil, err
	}
	ids := make([]fingerprint.ID, count)
	for i := range ids {
		ids[i] = fingerprint.ID(binary.LittleEndian.Uint32(b[int64(i)*size/count:]))
	}
	slices.Sort(ids)
	if ids = slices.Compact(ids); ids[0] == 0 {
		return nil, fmt.Errorf("%w: a list with ID 0", fingerprint.ErrGarbled)
	}
	return ids, nil
}

// Delete removes a user and asks whether that is gone.
func (m *Module) Delete(ctx context.Context, id fingerprint.ID) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	used, err := m.used(ctx, id)
	if err != nil {
		return err
	}
	if !used {
		return fingerprint.Refuse(fingerprint.ErrEmpty, "ID %d", id)
	}
	return m.remove(ctx, id)
}

func (m *Module) remove(ctx context.Context, id fingerprint.ID) error {
	// NotFound is what a second try is told.
	if _, err := m.ask(ctx, Packet{Command: DT, Param: uint32(id)}); err != nil && !errors.Is(err, NotFound) {
		return err
	}
	used, err := m.used(ctx, id)
	if err == nil && used {
		err = fingerprint.Refuse(fingerprint.ErrFailed, "ID %d is still in use", id)
	}
	return err
}

// Wipe removes all users and asks whether they are gone.
func (m *Module) Wipe(ctx context.Context) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if _, err := m.ask(ctx, Packet{Command: DA}); err != nil {
		return err
	}
	left, err := m.parameter(ctx, EnrolledFinger)
	if err == nil && left != 0 {
		err = fingerprint.Refuse(fingerprint.ErrFailed, "%d fingers are still there", left)
	}
	return err
}

// ReadTemplates gives all templates of a user.
func (m *Module) ReadTemplates(ctx context.Context, id fingerprint.ID) ([]biometric.Template, error) {
	if err := m.turn.Take(ctx); err != nil {
		return nil, err
	}
	defer m.turn.Give()
	if err := usable(id); err != nil {
		return nil, err
	}
	return m.read(ctx, id)
}

func (m *Module) read(ctx context.Context, id fingerprint.ID) ([]biometric.Template, error) {
	for try := 1; ; try++ {
		templates, err := m.readOnce(ctx, id)
		if err == nil {
			return templates, nil
		}
		biometric.ClearAll(templates)
		if !fingerprint.NoAnswer(err) || try == tries || ctx.Err() != nil {
			return nil, err
		}
	}
}

func (m *Module) readOnce(ctx context.Context, id fingerprint.ID) (templates []biometric.Template, err error) {
	if err := m.makeSure(ctx); err != nil {
		return nil, err
	}
	if err := m.send(Packet{Command: RT, Param: uint32(id)}); err != nil {
		return nil, err
	}
	for {
		a, err := m.answer(ctx, RT, m.config.Wait)
		if err != nil {
			return templates, err
		}
		e := Error(a.Flag)
		if e != Success && e != Continue {
			m.unsure = false
			return templates, e
		}
		if a.Param != uint32(id) || a.Size == 0 || a.Size > maxTemplate || len(templates) == maxTemplates {
			return templates, fmt.Errorf("%w: template %d of ID %d, of %d bytes", fingerprint.ErrGarbled, len(templates), a.Param, a.Size)
		}
		t := make([]byte, a.Size)
		templates = append(templates, biometric.NewTemplate(t))
		if err := m.data(ctx, t); err != nil {
			return templates, err
		}
		if e == Success {
			return templates, nil
		}
		m.unsure = true
	}
}

// WriteTemplates stores a user's templates under an ID that is free, and reads
// them back.
func (m *Module) WriteTemplates(ctx context.Context, id fingerprint.ID, templates []biometric.Template) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if len(templates) == 0 || len(templates) > maxTemplates {
		return fingerprint.Refuse(fingerprint.ErrTemplate, "an ID holds 1 to %d templates, not %d", maxTemplates, len(templates))
	}
	for _, t := range templates {
		if len(t.Bytes()) != m.info.TemplateSize {
			return fingerprint.Refuse(fingerprint.ErrTemplate, "%v, and the module's have %d", t, m.info.TemplateSize)
		}
	}
	used, err := m.used(ctx, id)
	if err != nil {
		return err
	}
	if used {
		return fingerprint.Refuse(fingerprint.ErrInUse, "ID %d", id)
	}
	if err := m.write(ctx, id, templates); err != nil {
		return fingerprint.Undo(ctx, 4*m.config.Wait, id, err, m.remove)
	}
	return nil
}

func (m *Module) write(ctx context.Context, id fingerprint.ID, templates []biometric.Template) error {
	for i, t := range templates {
		if err := m.makeSure(ctx); err != nil {
			return err
		}
		p := Packet{Command: ET, Param: uint32(id), Size: uint32(len(t.Bytes()))}
		if i > 0 {
			p.Flag = addNew
		}
		if err := m.send(p); err != nil {
			return err
		}
		data := append(make([]byte, 0, len(t.Bytes())+1), t.Bytes()...)
		if err := m.wire.Send(append(data, end)); err != nil {
			return err
		}
		if _, err := m.success(ctx, ET, m.config.Wait+time.Duration(len(data))*10*time.Second/time.Duration(m.info.Baud)); err != nil {
			return err
		}
	}
	back, err := m.read(ctx, id)
	defer biometric.ClearAll(back)
	if err != nil {
		return err
	}
	same := slices.EqualFunc(templates, back, func(a, b biometric.Template) bool {
		return subtle.ConstantTimeCompare(a.Bytes(), b.Bytes()) == 1
	})
	if !same {
		return fingerprint.Refuse(fingerprint.ErrFailed, "it did not keep the templates as they are")
	}
	return nil
}

// Security is the value of the parameter 66.
func (m *Module) Security(ctx context.Context) (int, error) {
	level, err := m.Parameter(ctx, Security)
	return int(level), err
}

// SetSecurity sets the parameter 66, to 0x33 to 0x37, 0x43 to 0x46, or 0x50 to
// 0x52.
func (m *Module) SetSecurity(ctx context.Context, level int) error {
	if err := CheckSecurity(level); err != nil {
		return err
	}
	return m.SetParameter(ctx, Security, uint32(level))
}

// CheckSecurity refuses what is no level of security, or too weak a one.
func CheckSecurity(level int) error {
	switch {
	case level >= 0x33 && level <= 0x37, level >= 0x43 && level <= 0x46, level >= 0x50 && level <= 0x52:
		return nil
	}
	return fingerprint.Refuse(fingerprint.ErrUnsupported, "security level %#02x: it is none, or takes one finger of 10,000 for another", level)
}

// SetBaud changes the rate for good, to one of Bauds. It restarts the module.
func (m *Module) SetBaud(ctx context.Context, baud int) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	i := slices.Index(byParameter, baud)
	if i < 0 {
		return fingerprint.Refuse(fingerprint.ErrUnsupported, "%d baud: the module's are %v", baud, byParameter)
	}
	if err := m.setParameter(ctx, Baudrate, uint32(0x31+i)); err != nil {
		return err
	}
	if _, err := m.once(ctx, Packet{Command: RS}); err != nil && !fingerprint.NoAnswer(err) {
		return err
	}
	if err := m.wire.Line.SetBaud(baud); err != nil {
		return err
	}
	m.unsure = true
	if err := m.makeSure(ctx); err != nil {
		return fmt.Errorf("sfm: at %d baud: %w", baud, err)
	}
	return nil
}

// Show is ErrUnsupported: what lights a module's outputs drive is a matter of
// its wiring.
func (m *Module) Show(context.Context, fingerprint.Light) error {
	return fingerprint.Refuse(fingerprint.ErrUnsupported, "it has no light of its own")
}
