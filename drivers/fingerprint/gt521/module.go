package gt521

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

// Bauds are the module's rates, the likeliest first.
var Bauds = []int{9600, 19200, 38400, 57600, 115200}

// Config says how to reach a module.
type Config struct {
	// Open opens the line at a rate.
	Open func(baud int) (fingerprint.Line, error)
	// Baud is the module's rate; 0: it is looked for among Bauds.
	Baud int
	// FingerWait is how long a finger is waited for. 0: 10 s.
	FingerWait time.Duration
	// Wait is how long an answer to a simple command is waited for. An answer that
	// comes later than twice that could be taken for another's. 0: 1 s.
	Wait time.Duration
}

const (
	// tries is how often a command is sent whose answer did not come. Each of those
	// that are tried again does the same when it is done twice.
	tries = 3
	// poll is the pause between two looks for a finger.
	poll = 100 * time.Millisecond
	// touch is how long nobody has to look until a finger counts as a new one. It is
	// more than the second for which a door does not look after a wrong one.
	touch = 1500 * time.Millisecond
	// captures is of how many captures the module makes a template.
	captures = 3
	// poorCaptures is how many poor captures there may be for each good one.
	poorCaptures = 3
	// maxTemplate bounds a data packet, which does not say how long it is.
	maxTemplate = 16 << 10
	// maxFrame is how much of an answer is looked at before more has to come.
	maxFrame = 1 << 10
	// silence ends a data packet. USB converters pause for up to 16 ms.
	silence = 150 * time.Millisecond
)

// Module is a connected module.
type Module struct {
	config Config
	info   fingerprint.Info

	turn   fingerprint.Turn
	wire   *fingerprint.Wire
	unsure bool      // an answer may still come
	seen   time.Time // when a finger that was judged was last seen on the sensor
}

var _ fingerprint.Module = (*Module)(nil)

// Connect finds the module and asks what it is.
func Connect(ctx context.Context, c Config) (*Module, error) {
	c.FingerWait = cmp.Or(c.FingerWait, 10*time.Second)
	c.Wait = cmp.Or(c.Wait, time.Second)
	m := &Module{config: c, turn: fingerprint.NewTurn()}
	wire, baud, err := fingerprint.Find(c.Open, c.Baud, Bauds, maxFrame, func(w *fingerprint.Wire) error {
		m.wire = w
		return m.describe(ctx, silence)
	})
	if err != nil {
		return nil, err
	}
	m.info.Baud = baud
	if err := m.measure(ctx); err != nil {
		return nil, errors.Join(err, wire.Line.Close())
	}
	return m, nil
}

// describe asks what the module is, after the line was quiet. Nothing else is
// answered like that, so it also tells that what was asked before is over.
func (m *Module) describe(ctx context.Context, quiet time.Duration) error {
	if _, err := m.wire.Silence(ctx, quiet, 4*m.config.Wait, nil); err != nil {
		return err
	}
	if err := m.send(Open, 1); err != nil {
		return err
	}
	var info []byte
	err := m.wire.Receive(ctx, m.config.Wait, func(b []byte) (int, bool) {
		return NextData(b, infoSize, func(data []byte) { info = append([]byte(nil), data...) })
	})
	if err != nil {
		return err
	}
	serial := strings.ToUpper(hex.EncodeToString(info[8:]))
	if m.info.Serial != "" && serial != m.info.Serial {
		return &fingerprint.WrongModuleError{Want: m.info.Serial, Got: serial}
	}
	if m.info.Serial == "" {
		m.info = fingerprint.Info{Family: "gt521", Serial: serial, Firmware: fmt.Sprintf("%08X", binary.LittleEndian.Uint32(info))}
	}
	m.unsure = false
	return nil
}

// measure finds the capacity, which is the first ID that there is not.
func (m *Module) measure(ctx context.Context) error {
	known, limit := 1, int(firstReason)
	for known < limit {
		id := (known + limit) / 2
		_, err := m.ask(ctx, CheckEnrolled, uint32(id))
		switch {
		case errors.Is(err, InvalidID):
			limit = id
		case err == nil, errors.Is(err, NotUsed):
			known = id + 1
		default:
			return err
		}
	}
	m.info.Capacity = known
	return nil
}

// ask sends a command until it is answered, at most tries times.
func (m *Module) ask(ctx context.Context, c Code, param uint32) (uint32, error) {
	for try := 1; ; try++ {
		if err := m.makeSure(ctx); err != nil {
			return 0, err
		}
		answer, err := m.once(ctx, c, param)
		again := fingerprint.NoAnswer(err) || errors.Is(err, CommError)
		if !again || try == tries || ctx.Err() != nil {
			return answer, err
		}
	}
}

// once sends a command and waits for its answer.
func (m *Module) once(ctx context.Context, c Code, param uint32) (uint32, error) {
	if err := m.makeSure(ctx); err != nil {
		return 0, err
	}
	if err := m.send(c, param); err != nil {
		return 0, err
	}
	wait := m.config.Wait
	if c == Identify || c == DeleteAll || c == CaptureFinger {
		wait *= 3
	}
	return m.answer(ctx, wait)
}

func (m *Module) send(c Code, param uint32) error {
	b, err := Packet{param, c}.AppendBinary(nil)
	if err != nil {
		return err
	}
	m.unsure = true
	return m.wire.Ask(b)
}

func (m *Module) answer(ctx context.Context, wait time.Duration) (uint32, error) {
	var a Packet
	err := m.wire.Receive(ctx, wait, func(b []byte) (int, bool) {
		return Next(b, func(p Packet) bool {
			a = p
			return p.Code == ACK || p.Code == NACK
		})
	})
	if err != nil {
		return 0, err
	}
	m.unsure = false
	if a.Code == NACK {
		return 0, Reason(a.Param)
	}
	return a.Param, nil
}

// makeSure puts what was asked before behind us, after an answer that did not
// come: it could be taken for the next one's, which is how one person's finger
// would become another's.
func (m *Module) makeSure(ctx context.Context) error {
	if !m.unsure {
		return nil
	}
	return fingerprint.Retry(tries, func() error { return m.describe(ctx, m.config.Wait) })
}

// Ping asks whether the module is there, and still the one that it was.
func (m *Module) Ping(ctx context.Context) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if !m.unsure {
		if err := m.describe(ctx, 0); !fingerprint.NoAnswer(err) {
			return err
		}
	}
	return m.makeSure(ctx)
}

// Info is what the module told of itself. It does not tell its model and the
// size of a template.
func (m *Module) Info() fingerprint.Info { return m.info }

// Close closes the line, which ends what goes on.
func (m *Module) Close() error {
	err := m.wire.Line.Close()
	m.turn.Take(context.Background())
	defer m.turn.Give()
	m.wire.Forget()
	return err
}

// light turns on the lamp, without which the sensor sees nothing, and gives
// what turns it off.
func (m *Module) light(ctx context.Context) (off func(), err error) {
	if _, err := m.ask(ctx, CmosLED, 1); err != nil {
		return nil, err
	}
	return func() {
		if !m.unsure && ctx.Err() == nil {
			m.once(ctx, CmosLED, 0)
		}
	}, nil
}

// capture waits for a finger that was not judged yet. Best takes longer.
func (m *Module) capture(ctx context.Context, best uint32) error {
	if err := m.lifted(ctx); err != nil {
		return err
	}
	if err := m.await(ctx, true); err != nil {
		return err
	}
	m.seen = time.Now()
	_, err := m.ask(ctx, CaptureFinger, best)
	return err
}

// lifted waits until a finger that was judged is gone: one touch counts once.
func (m *Module) lifted(ctx context.Context) error {
	if !m.lingers() {
		return nil
	}
	if err := m.await(ctx, false); err != nil {
		return err
	}
	m.seen = time.Time{}
	return nil
}

// lingers reports whether a finger that was judged may still be there. After a
// while in which nobody looked, one that is there counts as another.
func (m *Module) lingers() bool { return time.Since(m.seen) < touch }

// await waits until there is a finger, or none; it gives NotPressed when that
// does not come about.
func (m *Module) await(ctx context.Context, finger bool) error {
	for end := time.Now().Add(m.config.FingerWait); ; {
		answer, err := m.ask(ctx, IsPressFinger, 0)
		if err != nil {
			return err
		}
		there := answer == 0
		if there == finger {
			return nil
		}
		if there {
			m.seen = time.Now()
		}
		if time.Now().After(end) {
			return NotPressed
		}
		if err := fingerprint.Pause(ctx, poll); err != nil {
			return err
		}
	}
}

// outcome tells errors from what a finger may come to.
func outcome(err error) (fingerprint.Match, error) {
	reason, _ := errors.AsType[Reason](err)
	switch reason {
	case VerifyFailed, IdentifyFailed, Empty:
		return fingerprint.Match{Outcome: fingerprint.NoMatch}, nil
	case NotPressed, Timeout:
		return fingerprint.Match{Outcome: fingerprint.NoFinger}, nil
	case BadFinger:
		return fingerprint.Match{Outcome: fingerprint.TryAgain}, nil
	}
	return fingerprint.Match{}, err
}

// Identify waits for a finger and finds out whose it is.
func (m *Module) Identify(ctx context.Context) (fingerprint.Match, error) {
	return m.match(ctx, func() (fingerprint.Match, error) {
		id, err := m.ask(ctx, Identify, 0)
		if err != nil {
			return fingerprint.Match{}, err
		}
		if int64(id) >= int64(m.info.Capacity) {
			return fingerprint.Match{}, fmt.Errorf("%w: ID %d, and the capacity is %d", fingerprint.ErrGarbled, id, m.info.Capacity)
		}
		return fingerprint.Match{Outcome: fingerprint.Matched, ID: fingerprint.ID(id)}, nil
	})
}

// Verify waits for a finger and compares it with one that is stored.
func (m *Module) Verify(ctx context.Context, id fingerprint.ID) (fingerprint.Match, error) {
	return m.match(ctx, func() (fingerprint.Match, error) {
		if _, err := m.ask(ctx, Verify, uint32(id)); err != nil {
			return fingerprint.Match{}, err
		}
		return fingerprint.Match{Outcome: fingerprint.Matched, ID: id}, nil
	}, id)
}

// match compares what was captured, after it has looked that the IDs are in
// use.
func (m *Module) match(ctx context.Context, compare func() (fingerprint.Match, error), ids ...fingerprint.ID) (fingerprint.Match, error) {
	if err := m.turn.Take(ctx); err != nil {
		return fingerprint.Match{}, err
	}
	defer m.turn.Give()
	for _, id := range ids {
		if _, err := m.ask(ctx, CheckEnrolled, uint32(id)); err != nil {
			return fingerprint.Match{}, err
		}
	}
	off, err := m.light(ctx)
	if err != nil {
		return fingerprint.Match{}, err
	}
	defer off()
	if err := m.capture(ctx, 0); err != nil {
		return outcome(err)
	}
	found, err := compare()
	if err != nil {
		return outcome(err)
	}
	return found, nil
}

// Enroll makes one template of three captures. The module itself refuses a
// finger that it has.
func (m *Module) Enroll(ctx context.Context, e fingerprint.Enrollment) (quality int, err error) {
	if err := m.turn.Take(ctx); err != nil {
		return 0, err
	}
	defer m.turn.Give()
	if e.Duress {
		return 0, fingerprint.Refuse(fingerprint.ErrUnsupported, "it knows no finger for a threat")
	}
	if err := m.free(ctx, e.ID); err != nil {
		return 0, err
	}
	off, err := m.light(ctx)
	if err != nil {
		return 0, err
	}
	defer off()
	started := false
	for n, poor := 1, 0; n <= captures; {
		step := fingerprint.Step{Capture: n, Captures: captures}
		if m.lingers() {
			step.Action = fingerprint.Lift
			e.Tell(step)
			if err := m.lifted(ctx); err != nil {
				return 0, err
			}
		}
		if !started {
			if _, err := m.ask(ctx, EnrollStart, uint32(e.ID)); err != nil {
				return 0, err
			}
			started = true
		}
		step.Action = fingerprint.Place
		if poor > 0 {
			step.Action = fingerprint.Again
		}
		e.Tell(step)
		err := m.capture(ctx, 1)
		if errors.Is(err, BadFinger) && poor < poorCaptures {
			poor++
			continue
		}
		if err != nil {
			return 0, err
		}
		// Once only: the module would take the same capture for the next one.
		if _, err := m.once(ctx, Enroll1+Code(n-1), 0); err != nil {
			if n == captures && !fingerprint.IsRefusal(err) {
				return 0, fingerprint.Undo(ctx, 6*m.config.Wait, e.ID, err, m.remove)
			}
			return 0, err
		}
		n, poor = n+1, 0
	}
	return 0, nil
}

// free refuses an ID that is in use.
func (m *Module) free(ctx context.Context, id fingerprint.ID) error {
	used, err := m.used(ctx, id)
	if err == nil && used {
		err = fingerprint.Refuse(fingerprint.ErrInUse, "ID %d", id)
	}
	return err
}

func (m *Module) used(ctx context.Context, id fingerprint.ID) (bool, error) {
	_, err := m.ask(ctx, CheckEnrolled, uint32(id))
	if errors.Is(err, NotUsed) {
		return false, nil
	}
	return err == nil, err
}

// List asks for each ID, until all that are in use were found. At 9600 baud it
// takes about 30 ms for each.
func (m *Module) List(ctx context.Context) ([]fingerprint.ID, error) {
	if err := m.turn.Take(ctx); err != nil {
		return nil, err
	}
	defer m.turn.Give()
	count, err := m.ask(ctx, GetEnrollCount, 0)
	if err != nil {
		return nil, err
	}
	var ids []fingerprint.ID
	for id := range fingerprint.ID(m.info.Capacity) {
		if uint32(len(ids)) == count {
			return ids, nil
		}
		used, err := m.used(ctx, id)
		if err != nil {
			return nil, err
		}
		if used {
			ids = append(ids, id)
		}
	}
	if uint32(len(ids)) != count {
		return nil, fmt.Errorf("%w: it has %d fingers, and %d IDs are in use", fingerprint.ErrGarbled, count, len(ids))
	}
	return ids, nil
}

// Delete removes a finger and asks whether it is gone.
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
		return NotUsed
	}
	return m.remove(ctx, id)
}

func (m *Module) remove(ctx context.Context, id fingerprint.ID) error {
	// NotUsed is what a second try is told.
	if _, err := m.ask(ctx, DeleteID, uint32(id)); err != nil && !errors.Is(err, NotUsed) {
		return err
	}
	used, err := m.used(ctx, id)
	if err == nil && used {
		err = fingerprint.Refuse(fingerprint.ErrFailed, "ID %d is still in use", id)
	}
	return err
}

// Wipe removes all fingers and asks whether they are gone.
func (m *Module) Wipe(ctx context.Context) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if _, err := m.ask(ctx, DeleteAll, 0); err != nil && !errors.Is(err, Empty) {
		return err
	}
	left, err := m.ask(ctx, GetEnrollCount, 0)
	if err == nil && left != 0 {
		err = fingerprint.Refuse(fingerprint.ErrFailed, "%d fingers are still there", left)
	}
	return err
}

// ReadTemplates gives the one template of an ID.
func (m *Module) ReadTemplates(ctx context.Context, id fingerprint.ID) ([]biometric.Template, error) {
	if err := m.turn.Take(ctx); err != nil {
		return nil, err
	}
	defer m.turn.Give()
	t, err := m.read(ctx, id)
	if err != nil {
		return nil, err
	}
	return []biometric.Template{biometric.NewTemplate(t)}, nil
}

// read reads a template until two readings agree: neither its length nor, for
// a sum does not count zeros, that something is missing can be seen of one.
func (m *Module) read(ctx context.Context, id fingerprint.ID) ([]byte, error) {
	var before []byte
	for try := 1; ; try++ {
		t, err := m.readOnce(ctx, id)
		switch {
		case err == nil && before != nil && subtle.ConstantTimeCompare(before, t) == 1:
			clear(before)
			return t, nil
		case err == nil:
			clear(before)
			before = t
			err = fmt.Errorf("%w: no two readings of ID %d agree", fingerprint.ErrGarbled, id)
		}
		if !fingerprint.NoAnswer(err) || try == tries+1 || ctx.Err() != nil {
			clear(before)
			return nil, err
		}
	}
}

func (m *Module) readOnce(ctx context.Context, id fingerprint.ID) ([]byte, error) {
	if _, err := m.ask(ctx, GetTemplate, uint32(id)); err != nil {
		return nil, err
	}
	m.unsure = true
	whole := make([]byte, 0, maxTemplate)
	defer func() { clear(whole) }()
	wait := m.config.Wait // for its beginning
	for end := time.Now().Add(wait); len(whole) == 0 && time.Now().Before(end); {
		if err := m.gather(ctx, &whole); err != nil {
			return nil, err
		}
	}
	if len(whole) == 0 {
		return nil, fmt.Errorf("%w (for %v)", fingerprint.ErrSilent, wait)
	}
	data, err := ParseData(whole)
	if err != nil {
		return nil, fmt.Errorf("%w: %d bytes, and %w", fingerprint.ErrGarbled, len(whole), err)
	}
	m.unsure = false
	return append([]byte(nil), data...), nil
}

// gather adds what comes until the line is silent. What is too much is dropped:
// the sum is wrong then.
func (m *Module) gather(ctx context.Context, whole *[]byte) error {
	_, err := m.wire.Silence(ctx, silence, maxTemplate*10*time.Second/9600, func(b []byte) {
		*whole = append(*whole, b[:min(len(b), cap(*whole)-len(*whole))]...)
	})
	return err
}

// WriteTemplates stores one template under an ID that is free, and reads it
// back.
func (m *Module) WriteTemplates(ctx context.Context, id fingerprint.ID, templates []biometric.Template) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if len(templates) != 1 {
		return fingerprint.Refuse(fingerprint.ErrTemplate, "an ID holds one template, not %d", len(templates))
	}
	t := templates[0].Bytes()
	if len(t) == 0 || len(t) > maxTemplate-dataHeaderSize-sumSize {
		return fingerprint.Refuse(fingerprint.ErrTemplate, "%v", templates[0])
	}
	if err := m.free(ctx, id); err != nil {
		return err
	}
	if _, err := m.ask(ctx, SetTemplate, uint32(id)); err != nil {
		return err
	}
	m.unsure = true
	if err := m.wire.Send(AppendData(make([]byte, 0, len(t)+dataHeaderSize+sumSize), t)); err != nil {
		return err
	}
	baud := time.Duration(max(m.info.Baud, Bauds[0]))
	if _, err := m.answer(ctx, m.config.Wait+time.Duration(len(t))*10*time.Second/baud); err != nil {
		if fingerprint.IsRefusal(err) {
			return err
		}
		return fingerprint.Undo(ctx, 6*m.config.Wait, id, err, m.remove)
	}
	back, err := m.read(ctx, id)
	defer clear(back)
	if err == nil && subtle.ConstantTimeCompare(t, back) != 1 {
		err = fingerprint.Refuse(fingerprint.ErrFailed, "it did not keep the template as it is")
	}
	if err != nil {
		return fingerprint.Undo(ctx, 6*m.config.Wait, id, err, m.remove)
	}
	return nil
}

// Security is ErrUnsupported.
func (m *Module) Security(context.Context) (int, error) {
	return 0, fingerprint.Refuse(fingerprint.ErrUnsupported, "it has no levels of security")
}

// SetSecurity is ErrUnsupported.
func (m *Module) SetSecurity(ctx context.Context, _ int) error {
	_, err := m.Security(ctx)
	return err
}

// SetBaud changes the rate, until the module loses its power.
func (m *Module) SetBaud(ctx context.Context, baud int) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if _, err := m.once(ctx, ChangeBaudrate, uint32(baud)); err != nil && !fingerprint.NoAnswer(err) {
		return err
	}
	// Without an answer it may have changed all the same: the question at the new
	// rate tells.
	if err := m.wire.Line.SetBaud(baud); err != nil {
		return err
	}
	m.unsure = true
	if err := m.makeSure(ctx); err != nil {
		return fmt.Errorf("gt521: at %d baud: %w", baud, err)
	}
	return nil
}

// Show turns the one lamp on or off. Waiting for a finger turns it on, and off
// afterwards.
func (m *Module) Show(ctx context.Context, l fingerprint.Light) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	on := uint32(1)
	if l.Colour == fingerprint.Dark {
		on = 0
	}
	_, err := m.ask(ctx, CmosLED, on)
	return err
}
