package zfm

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

// Bauds are the rates at which a module is looked for, the likeliest first. A
// module's own are 9600 times 1 to 12; those that are missing here no serial
// port of Linux has.
var Bauds = []int{57600, 115200, 9600, 19200, 38400}

// Config says how to reach a module.
type Config struct {
	// Open opens the line at a rate.
	Open func(baud int) (fingerprint.Line, error)
	// Baud is the module's rate; 0: it is looked for among Bauds.
	Baud     int
	Address  uint32 // 0: AnyAddress
	Password Password
	// Captures is of how many captures Enroll makes a template: 2, an R503 takes
	// up to 6. 0: 2.
	Captures int
	// FingerWait is how long a finger is waited for. 0: 10 s.
	FingerWait time.Duration
	// Wait is how long an answer to a simple command is waited for. 0: 1 s.
	Wait time.Duration
}

// Password is a module's. It is no secret from whoever reaches the wires, over
// which it goes in clear, but no log shows it.
type Password uint32

// ParsePassword reads a password of 8 hexadecimal digits, as the manuals write
// it. Its error does not repeat it.
func ParsePassword(text string) (Password, error) {
	p, err := strconv.ParseUint(text, 16, 32)
	if err != nil || len(text) != 8 {
		return 0, errors.New("zfm: a password is 8 hexadecimal digits, such as 00000000")
	}
	return Password(p), nil
}

func (Password) String() string                 { return "[password]" }
func (p Password) Format(f fmt.State, _ rune)   { fmt.Fprint(f, p.String()) }
func (p Password) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
func (p Password) LogValue() slog.Value         { return slog.StringValue(p.String()) }

const (
	// tries is how often a command is sent whose answer did not come. Each of those
	// that are tried again does the same when it is done twice.
	tries = 3
	// poll is the pause between two looks for a finger.
	poll = 100 * time.Millisecond
	// touch is how long nobody has to look until a finger counts as a new one. It is
	// more than the second for which a door does not look after a wrong one.
	touch = 1500 * time.Millisecond
	// maxTemplate bounds a template whose size the module does not tell.
	maxTemplate = 16 << 10
	// poorCaptures is how many poor captures there may be for each good one.
	poorCaptures = 3
)

// Module is a connected module.
type Module struct {
	config Config
	info   fingerprint.Info

	turn   fingerprint.Turn
	wire   *fingerprint.Wire
	unsure bool      // an answer may still come
	seen   time.Time // when a finger that was judged was last seen on the sensor
	packet int       // bytes of a data packet's payload
}

var _ fingerprint.Module = (*Module)(nil)

// Open finds the module and asks what it is.
func Open(ctx context.Context, c Config) (*Module, error) {
	c.Address = cmp.Or(c.Address, AnyAddress)
	c.Captures = cmp.Or(c.Captures, 2)
	if c.Captures < 2 || c.Captures > 6 {
		return nil, fmt.Errorf("zfm: %d captures: a template is made of 2 to 6", c.Captures)
	}
	c.FingerWait = cmp.Or(c.FingerWait, 10*time.Second)
	c.Wait = cmp.Or(c.Wait, time.Second)
	m := &Module{config: c, turn: fingerprint.NewTurn()}
	wire, baud, err := fingerprint.Find(c.Open, c.Baud, Bauds, MaxPacket, func(w *fingerprint.Wire) error {
		m.wire = w
		return m.login(ctx)
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

// login verifies the password.
func (m *Module) login(ctx context.Context) error {
	m.unsure = false
	_, err := m.once(ctx, m.config.Wait, 0, VfyPwd, binary.BigEndian.AppendUint32(nil, uint32(m.config.Password))...)
	m.unsure = true // there may be a second answer, or it was to something that was asked before
	return err
}

// describe reads what the module is.
func (m *Module) describe(ctx context.Context) error {
	p, err := m.parameters(ctx)
	if err != nil {
		if fingerprint.IsRefusal(err) {
			return fmt.Errorf("%w: it does not tell its capacity (ReadSysPara), as the R308 does not: %w", fingerprint.ErrUnsupported, err)
		}
		return err
	}
	m.info.Family, m.info.Capacity, m.packet = "zfm", int(p.capacity), p.packet
	product, err := m.product(ctx)
	if err != nil {
		return err
	}
	m.info.Model, m.info.Serial = product.Model, product.Serial
	m.info.Firmware, m.info.TemplateSize = product.Firmware, product.TemplateSize
	_, err = m.ask(ctx, m.config.Wait, 0, AuraLED, aura(fingerprint.Light{})...)
	m.info.Coloured = err == nil
	if fingerprint.IsRefusal(err) || fingerprint.NoAnswer(err) {
		return nil
	}
	return err
}

// product is what the module tells of its making. An older module has no serial
// number, but a notepad.
func (m *Module) product(ctx context.Context) (fingerprint.Info, error) {
	b, err := m.ask(ctx, m.config.Wait, productSize, ReadProdInfo)
	switch {
	case err == nil:
		return fingerprint.Info{
			Model:        text(b[:16]),
			Serial:       strings.ToUpper(hex.EncodeToString(b[20:28])),
			Firmware:     fmt.Sprintf("%d.%d", b[28], b[29]),
			TemplateSize: int(binary.BigEndian.Uint16(b[42:])),
		}, nil
	case !fingerprint.IsRefusal(err) && !fingerprint.NoAnswer(err):
		return fingerprint.Info{}, err
	}
	page, err := m.ask(ctx, m.config.Wait, pageSize, ReadNotepad, markPage)
	switch {
	case err == nil && strings.HasPrefix(string(page), markHead):
		return fingerprint.Info{Serial: markSerial(page)}, nil
	case err == nil, fingerprint.IsRefusal(err), fingerprint.NoAnswer(err):
		return fingerprint.Info{}, nil
	}
	return fingerprint.Info{}, err
}

// Ping asks whether the module is there, and still the one that it was.
func (m *Module) Ping(ctx context.Context) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if _, err := m.parameters(ctx); err != nil {
		return err
	}
	product, err := m.product(ctx)
	if err != nil {
		return err
	}
	return fingerprint.CheckSerial(m.info.Serial, product)
}

const (
	sysParaSize = 16
	productSize = 46
	pageSize    = 32
	indexSize   = 32

	// Where Mark writes, and what.
	markPage = 15
	markHead = "gatehouse:"
	markSize = 12
)

func markSerial(page []byte) string {
	return "mark-" + strings.ToUpper(hex.EncodeToString(page[len(markHead):len(markHead)+markSize]))
}

// text is a string of a module, which ends with its zeros.
func text(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(b))
}

type parameters struct {
	capacity, security uint16
	packet             int
}

func (m *Module) parameters(ctx context.Context) (parameters, error) {
	b, err := m.ask(ctx, m.config.Wait, sysParaSize, ReadSysPara)
	if err != nil {
		return parameters{}, err
	}
	p := parameters{capacity: binary.BigEndian.Uint16(b[4:]), security: binary.BigEndian.Uint16(b[6:])}
	code := binary.BigEndian.Uint16(b[12:])
	if p.capacity == 0 || code > 3 {
		return parameters{}, fmt.Errorf("%w: a capacity of %d and packets of size %d", fingerprint.ErrGarbled, p.capacity, code)
	}
	p.packet = 32 << code
	return p, nil
}

// ask sends a command until it is answered, at most tries times. Size is of
// what follows the code in a good answer.
func (m *Module) ask(ctx context.Context, wait time.Duration, size int, i Instruction, params ...byte) ([]byte, error) {
	for try := 1; ; try++ {
		if err := m.makeSure(ctx); err != nil {
			return nil, err
		}
		b, err := m.once(ctx, wait, size, i, params...)
		again := fingerprint.NoAnswer(err) || errors.Is(err, ReceiveError)
		if !again || try == tries || ctx.Err() != nil {
			return b, err
		}
	}
}

// once sends a command and waits for its answer.
func (m *Module) once(ctx context.Context, wait time.Duration, size int, i Instruction, params ...byte) ([]byte, error) {
	if err := m.makeSure(ctx); err != nil {
		return nil, err
	}
	if err := m.send(Command, append([]byte{byte(i)}, params...)); err != nil {
		return nil, err
	}
	return m.answer(ctx, wait, size)
}

func (m *Module) send(pid PID, payload []byte) error {
	b, err := Packet{m.config.Address, pid, payload}.AppendBinary(nil)
	if err != nil {
		return err
	}
	m.unsure = true
	if pid != Command {
		return m.wire.Send(b)
	}
	return m.wire.Ask(b)
}

// answer waits for an answer of a code and size bytes, or of a code that is an
// error. One of another size belongs to another command, and is stepped over.
func (m *Module) answer(ctx context.Context, wait time.Duration, size int) ([]byte, error) {
	var code Code
	var rest []byte
	err := m.wire.Receive(ctx, wait, func(b []byte) (int, bool) {
		return Next(b, func(p Packet) bool {
			if p.PID != Ack || p.Address != m.config.Address {
				return false
			}
			code = Code(p.Payload[0])
			if len(p.Payload) != 1+size && (code == OK || len(p.Payload) != 1) {
				return false
			}
			rest = append([]byte(nil), p.Payload[1:]...)
			return true
		})
	})
	switch {
	case err != nil:
		return nil, err
	case code == NotVerified:
		m.unsure = false
		return nil, fmt.Errorf("%w (%v)", fingerprint.ErrRestarted, code)
	case code != OK:
		m.unsure = false
		return nil, code
	}
	m.unsure = false
	return rest, nil
}

// makeSure puts what was asked before behind us, after an answer that did not
// come: an answer does not say what it answers, and that one could be taken
// for the next one's, which is how one person's finger would become another's.
// The module answers in order, and nothing else is as long as an answer to
// ReadSysPara.
func (m *Module) makeSure(ctx context.Context) error {
	if !m.unsure {
		return nil
	}
	var err error
	for range tries {
		if err = m.send(Command, []byte{byte(ReadSysPara)}); err != nil {
			return err
		}
		if _, err = m.answer(ctx, m.config.Wait, sysParaSize); err == nil || !fingerprint.NoAnswer(err) && !fingerprint.IsRefusal(err) {
			return err
		}
		m.unsure = true
	}
	return err
}

// Info is what the module told of itself. A module without a serial number of
// its own has "mark-…" if Mark gave it one.
func (m *Module) Info() fingerprint.Info { return m.info }

// Close closes the line, which ends what goes on.
func (m *Module) Close() error {
	err := m.wire.Line.Close()
	m.turn.Take(context.Background())
	defer m.turn.Give()
	m.wire.Forget()
	return err
}

// Mark gives a module that tells no serial number one, on page 15 of its
// notepad, from the next connection on. Whoever reaches the wires can copy it.
func (m *Module) Mark(ctx context.Context) (string, error) {
	if err := m.turn.Take(ctx); err != nil {
		return "", err
	}
	defer m.turn.Give()
	if m.info.Serial != "" {
		return "", fingerprint.Refuse(fingerprint.ErrUnsupported, "the module has the serial number %q already", m.info.Serial)
	}
	// It may have one that was not read when it was opened. What is enrolled is
	// bound to that.
	page, err := m.ask(ctx, m.config.Wait, pageSize, ReadNotepad, markPage)
	switch {
	case err == nil && strings.HasPrefix(string(page), markHead):
		return markSerial(page), nil
	case err != nil && !fingerprint.IsRefusal(err):
		return "", err
	}
	page = make([]byte, pageSize)
	n := copy(page, markHead)
	rand.Read(page[n : n+markSize])
	if _, err := m.ask(ctx, m.config.Wait, 0, WriteNotepad, append([]byte{markPage}, page...)...); err != nil {
		return "", err
	}
	back, err := m.ask(ctx, m.config.Wait, pageSize, ReadNotepad, markPage)
	if err != nil {
		return "", err
	}
	if string(back) != string(page) {
		return "", fingerprint.Refuse(fingerprint.ErrFailed, "its notepad did not keep the mark")
	}
	return markSerial(page), nil
}

// capture waits for a finger that was not judged yet and makes features of it
// in a buffer.
func (m *Module) capture(ctx context.Context, buffer byte) error {
	if err := m.lifted(ctx); err != nil {
		return err
	}
	err := m.await(ctx, true)
	if err != nil {
		return err
	}
	m.seen = time.Now()
	_, err = m.ask(ctx, m.config.Wait, 0, Img2Tz, buffer)
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

// await waits until there is a finger, or none; it gives NoFinger when that
// does not come about.
func (m *Module) await(ctx context.Context, finger bool) error {
	for end := time.Now().Add(m.config.FingerWait); ; {
		_, err := m.ask(ctx, m.config.Wait, 0, GenImg)
		there := err == nil || errors.Is(err, CaptureFailed)
		switch {
		case !there && !errors.Is(err, NoFinger):
			return err
		case there && finger:
			return err
		case !there && !finger:
			return nil
		case there:
			m.seen = time.Now()
		}
		if time.Now().After(end) {
			return NoFinger
		}
		if err := fingerprint.Pause(ctx, poll); err != nil {
			return err
		}
	}
}

// outcome tells errors from what a finger may come to.
func outcome(err error) (fingerprint.Match, error) {
	code, _ := errors.AsType[Code](err)
	switch code {
	case NoMatch, NotFound, EmptyLibrary:
		return fingerprint.Match{Outcome: fingerprint.NoMatch}, nil
	case NoFinger:
		return fingerprint.Match{Outcome: fingerprint.NoFinger}, nil
	case CaptureFailed, PoorImage, FewFeatures, NoImage:
		return fingerprint.Match{Outcome: fingerprint.TryAgain}, nil
	}
	return fingerprint.Match{}, err
}

// Identify waits for a finger and searches the whole library for it.
func (m *Module) Identify(ctx context.Context) (fingerprint.Match, error) {
	if err := m.turn.Take(ctx); err != nil {
		return fingerprint.Match{}, err
	}
	defer m.turn.Give()
	if err := m.capture(ctx, 1); err != nil {
		return outcome(err)
	}
	found, err := m.search(ctx)
	if err != nil {
		return outcome(err)
	}
	return found, nil
}

// search looks for what is in buffer 1, over all of the capacity: a count that
// is too small leaves fingers out that are never found.
func (m *Module) search(ctx context.Context) (fingerprint.Match, error) {
	params := binary.BigEndian.AppendUint16([]byte{1, 0, 0}, uint16(m.info.Capacity))
	b, err := m.ask(ctx, 3*m.config.Wait, 4, Search, params...)
	if err != nil {
		return fingerprint.Match{}, err
	}
	id, score := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if int(id) >= m.info.Capacity {
		return fingerprint.Match{}, fmt.Errorf("%w: ID %d, and the capacity is %d", fingerprint.ErrGarbled, id, m.info.Capacity)
	}
	return fingerprint.Match{Outcome: fingerprint.Matched, ID: fingerprint.ID(id), Score: int(score)}, nil
}

// Verify waits for a finger and compares it with one that is stored.
func (m *Module) Verify(ctx context.Context, id fingerprint.ID) (fingerprint.Match, error) {
	if err := m.turn.Take(ctx); err != nil {
		return fingerprint.Match{}, err
	}
	defer m.turn.Give()
	if err := m.load(ctx, 2, id); err != nil {
		return fingerprint.Match{}, err
	}
	if err := m.capture(ctx, 1); err != nil {
		return outcome(err)
	}
	// Loaded again: the module may have lost its power meanwhile, and would
	// compare with what is in the buffer instead.
	if err := m.load(ctx, 2, id); err != nil {
		return fingerprint.Match{}, err
	}
	b, err := m.ask(ctx, m.config.Wait, 2, MatchTz)
	if err != nil {
		return outcome(err)
	}
	return fingerprint.Match{Outcome: fingerprint.Matched, ID: id, Score: int(binary.BigEndian.Uint16(b))}, nil
}

func (m *Module) load(ctx context.Context, buffer byte, id fingerprint.ID) error {
	slot, err := m.slot(id)
	if err != nil {
		return err
	}
	_, err = m.ask(ctx, m.config.Wait, 0, LoadChar, append([]byte{buffer}, slot...)...)
	return err
}

// slot is an ID in a command.
func (m *Module) slot(id fingerprint.ID) ([]byte, error) {
	if int64(id) >= int64(m.info.Capacity) {
		return nil, fingerprint.Refuse(fingerprint.ErrNoSuchID, "%d, and its IDs are 0 to %d", id, m.info.Capacity-1)
	}
	return binary.BigEndian.AppendUint16(nil, uint16(id)), nil
}

// Enroll makes one template of several captures. It refuses an ID that is in
// use, which Store would overwrite, and a finger that is stored already.
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
	poor := 0
	for n := 1; n <= m.config.Captures; {
		step := fingerprint.Step{Capture: n, Captures: m.config.Captures}
		if m.lingers() {
			step.Action = fingerprint.Lift
			e.Tell(step)
			if err := m.lifted(ctx); err != nil {
				return 0, err
			}
		}
		step.Action = fingerprint.Place
		if poor > 0 {
			step.Action = fingerprint.Again
		}
		e.Tell(step)
		err := m.capture(ctx, byte(n))
		if errors.Is(err, fingerprint.ErrPoorFinger) && poor < poorCaptures {
			poor++
			continue
		}
		if err != nil {
			return 0, err
		}
		if n == 1 {
			found, err := m.search(ctx)
			if err == nil {
				return 0, fingerprint.Refuse(fingerprint.ErrDuplicate, "under ID %d", found.ID)
			}
			if o, failed := outcome(err); failed != nil || o.Outcome != fingerprint.NoMatch {
				return 0, err
			}
		}
		n, poor = n+1, 0
	}
	if _, err := m.ask(ctx, 2*m.config.Wait, 0, RegModel); err != nil {
		return 0, err
	}
	return 0, m.store(ctx, e.ID)
}

// free refuses an ID that is in use.
func (m *Module) free(ctx context.Context, id fingerprint.ID) error {
	used, err := m.used(ctx, id)
	if err == nil && used {
		err = fingerprint.Refuse(fingerprint.ErrInUse, "ID %d", id)
	}
	return err
}

// store stores buffer 1. When nobody knows whether it did, the ID is emptied.
func (m *Module) store(ctx context.Context, id fingerprint.ID) error {
	slot, err := m.slot(id)
	if err != nil {
		return err
	}
	if _, err = m.ask(ctx, 2*m.config.Wait, 0, Store, append([]byte{1}, slot...)...); err == nil || fingerprint.IsRefusal(err) {
		return err
	}
	return fingerprint.Undo(ctx, 4*m.config.Wait, id, err, m.remove)
}

// List reads the module's table of what is in use.
func (m *Module) List(ctx context.Context) ([]fingerprint.ID, error) {
	if err := m.turn.Take(ctx); err != nil {
		return nil, err
	}
	defer m.turn.Give()
	var ids []fingerprint.ID
	for page := 0; page*indexSize*8 < m.info.Capacity; page++ {
		b, err := m.page(ctx, page)
		if err != nil {
			return nil, err
		}
		for i := range indexSize * 8 {
			if id := page*indexSize*8 + i; bit(b, i) && id < m.info.Capacity {
				ids = append(ids, fingerprint.ID(id))
			}
		}
	}
	return ids, nil
}

func (m *Module) page(ctx context.Context, page int) ([]byte, error) {
	return m.ask(ctx, m.config.Wait, indexSize, ReadIndex, byte(page))
}

// bit is bit i of a page of the table, the lowest bit of each byte first.
func bit(page []byte, i int) bool { return page[i/8]>>(i%8)&1 == 1 }

func (m *Module) used(ctx context.Context, id fingerprint.ID) (bool, error) {
	if _, err := m.slot(id); err != nil {
		return false, err
	}
	b, err := m.page(ctx, int(id)/(indexSize*8))
	if err != nil {
		return false, err
	}
	return bit(b, int(id)%(indexSize*8)), nil
}

// Delete removes a template and reads back that it is gone.
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
	slot, err := m.slot(id)
	if err != nil {
		return err
	}
	if _, err := m.ask(ctx, 2*m.config.Wait, 0, DeletChar, append(slot, 0, 1)...); err != nil {
		return err
	}
	used, err := m.used(ctx, id)
	if err == nil && used {
		err = fingerprint.Refuse(fingerprint.ErrFailed, "ID %d is still in use", id)
	}
	return err
}

// Wipe removes all templates and reads back that none is left.
func (m *Module) Wipe(ctx context.Context) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if _, err := m.ask(ctx, 3*m.config.Wait, 0, Empty); err != nil {
		return err
	}
	b, err := m.ask(ctx, m.config.Wait, 2, TemplateNum)
	if err != nil {
		return err
	}
	if left := binary.BigEndian.Uint16(b); left != 0 {
		return fingerprint.Refuse(fingerprint.ErrFailed, "%d templates are still there", left)
	}
	return nil
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

func (m *Module) read(ctx context.Context, id fingerprint.ID) ([]byte, error) {
	if err := m.load(ctx, 1, id); err != nil {
		return nil, err
	}
	t, err := m.upload(ctx)
	if err != nil || m.info.TemplateSize != 0 {
		return t, err
	}
	// A data packet that is lost leaves no gap. Where the module does not tell
	// how long a template is, two readings have to agree.
	again, err := m.upload(ctx)
	defer clear(again)
	if err == nil && subtle.ConstantTimeCompare(t, again) != 1 {
		err = fmt.Errorf("%w: two readings of ID %d differ", fingerprint.ErrGarbled, id)
	}
	if err != nil {
		clear(t)
		return nil, err
	}
	return t, nil
}

// upload reads buffer 1, and tries again when packets are broken or missing.
func (m *Module) upload(ctx context.Context) ([]byte, error) {
	for try := 1; ; try++ {
		t, err := m.uploadOnce(ctx)
		if err == nil && m.info.TemplateSize != 0 && len(t) != m.info.TemplateSize {
			err = fmt.Errorf("%w: %d bytes came of a template of %d", fingerprint.ErrGarbled, len(t), m.info.TemplateSize)
		}
		if err == nil {
			return t, nil
		}
		clear(t)
		if !fingerprint.NoAnswer(err) || try == tries || ctx.Err() != nil {
			return nil, err
		}
	}
}

func (m *Module) uploadOnce(ctx context.Context) ([]byte, error) {
	if _, err := m.once(ctx, m.config.Wait, 0, UpChar, 1); err != nil {
		return nil, err
	}
	m.unsure = true
	var t []byte
	for last := false; !last; {
		err := m.wire.Receive(ctx, m.config.Wait, func(b []byte) (int, bool) {
			return Next(b, func(p Packet) bool {
				if p.PID != Data && p.PID != LastData || p.Address != m.config.Address {
					return false
				}
				last = p.PID == LastData
				t = grow(t, p.Payload)
				return true
			})
		})
		if err == nil && len(t) > maxTemplate {
			err = fmt.Errorf("%w: a template does not end", fingerprint.ErrGarbled)
		}
		if err != nil {
			return t, err
		}
	}
	m.unsure = false
	return t, nil
}

// grow appends to a secret and leaves no copy of it.
func grow(t, more []byte) []byte {
	if cap(t)-len(t) >= len(more) {
		return append(t, more...)
	}
	larger := make([]byte, len(t), 2*cap(t)+2*MaxPayload)
	copy(larger, t)
	clear(t)
	return append(larger, more...)
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
	if size := m.info.TemplateSize; len(t) == 0 || len(t) > maxTemplate || size != 0 && len(t) != size {
		return fingerprint.Refuse(fingerprint.ErrTemplate, "%v, and the module's have %d", templates[0], size)
	}
	if err := m.free(ctx, id); err != nil {
		return err
	}
	if _, err := m.ask(ctx, m.config.Wait, 0, DownChar, 1); err != nil {
		return err
	}
	for rest := t; len(rest) > 0; {
		n, pid := min(len(rest), m.packet), Data
		if n == len(rest) {
			pid = LastData
		}
		if err := m.send(pid, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if err := m.store(ctx, id); err != nil {
		return err
	}
	back, err := m.read(ctx, id)
	defer clear(back)
	if err == nil && subtle.ConstantTimeCompare(t, back) != 1 {
		err = fingerprint.Refuse(fingerprint.ErrFailed, "it did not keep the template as it is")
	}
	if err != nil {
		return fingerprint.Undo(ctx, 4*m.config.Wait, id, err, m.remove)
	}
	return nil
}

// Security is the level, 1 to 5.
func (m *Module) Security(ctx context.Context) (int, error) {
	if err := m.turn.Take(ctx); err != nil {
		return 0, err
	}
	defer m.turn.Give()
	p, err := m.parameters(ctx)
	return int(p.security), err
}

// SetSecurity changes the level, 1 to 5.
func (m *Module) SetSecurity(ctx context.Context, level int) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if err := CheckSecurity(level); err != nil {
		return err
	}
	return m.set(ctx, paramSecurity, byte(level))
}

// CheckSecurity refuses what is no level of security.
func CheckSecurity(level int) error {
	if level < 1 || level > 5 {
		return fingerprint.Refuse(fingerprint.ErrUnsupported, "security level %d: there are 1 to 5", level)
	}
	return nil
}

func (m *Module) set(ctx context.Context, param, value byte) error {
	_, err := m.ask(ctx, m.config.Wait, 0, SetSysPara, param, value)
	return err
}

// SetPacketSize changes how large the module's data packets are: 32, 64, 128
// or 256 bytes.
func (m *Module) SetPacketSize(ctx context.Context, size int) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	for code := range byte(4) {
		if size == 32<<code {
			if err := m.set(ctx, paramPacket, code); err != nil {
				return err
			}
			p, err := m.parameters(ctx)
			m.packet = p.packet
			return err
		}
	}
	return fingerprint.Refuse(fingerprint.ErrUnsupported, "packets of %d bytes: there are 32, 64, 128 and 256", size)
}

// SetPassword changes the password for good.
func (m *Module) SetPassword(ctx context.Context, p Password) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	_, err := m.ask(ctx, m.config.Wait, 0, SetPwd, binary.BigEndian.AppendUint32(nil, uint32(p))...)
	if err != nil {
		return err
	}
	m.config.Password = p
	return fingerprint.Retry(2, func() error { return m.login(ctx) })
}

// SetBaud changes the rate for good, to one of Bauds. The module answers at
// the rate before.
func (m *Module) SetBaud(ctx context.Context, baud int) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if baud%9600 != 0 || baud < 9600 || baud > 115200 {
		return fingerprint.Refuse(fingerprint.ErrUnsupported, "%d baud: the module's are 9600 times 1 to 12", baud)
	}
	_, err := m.once(ctx, m.config.Wait, 0, SetSysPara, paramBaud, byte(baud/9600))
	if err != nil && !fingerprint.NoAnswer(err) {
		return err
	}
	// Without an answer it may have changed all the same: the question at the new
	// rate tells.
	if err := m.wire.Line.SetBaud(baud); err != nil {
		return err
	}
	m.unsure = true
	if err := m.makeSure(ctx); err != nil {
		return fmt.Errorf("zfm: at %d baud: %w", baud, err)
	}
	return nil
}

// Show lights the ring of an R503 or, without colours, the lamp of a ZFM-60.
func (m *Module) Show(ctx context.Context, l fingerprint.Light) error {
	if err := m.turn.Take(ctx); err != nil {
		return err
	}
	defer m.turn.Give()
	if m.info.Coloured {
		_, err := m.ask(ctx, m.config.Wait, 0, AuraLED, aura(l)...)
		return err
	}
	i := LEDOn
	if l.Colour == fingerprint.Dark {
		i = LEDOff
	}
	if _, err := m.ask(ctx, m.config.Wait, 0, i); fingerprint.IsRefusal(err) {
		return fingerprint.Refuse(fingerprint.ErrUnsupported, "%w", err)
	} else {
		return err
	}
}

// aura is AuraLED's control, speed, colour and count.
func aura(l fingerprint.Light) []byte {
	const speed = 0x80 // of 0 to 255, the fastest first
	control := byte(3) // on
	switch {
	case l.Colour == fingerprint.Dark:
		control = 4
	case l.Effect == fingerprint.Breathe:
		control = 1
	case l.Effect == fingerprint.Flash:
		control = 2
	}
	return []byte{control, speed, byte(l.Colour), l.Times}
}
