package sfm_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sfm"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// config reaches a simulated module over a real terminal.
func config(t *testing.T, far *sim.Module) sfm.Config {
	t.Helper()
	cable, err := sim.Plug(far)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cable.Unplug)
	return sfm.Config{
		Open: func(baud int) (fingerprint.Line, error) { return serial.Open(cable.Name, baud) },
		Baud: 115200, Wait: 400 * time.Millisecond, FingerWait: 2 * time.Second,
	}
}

func open(t *testing.T, far *sim.Module) *sfm.Module {
	t.Helper()
	return openAs(t, config(t, far))
}

func openAs(t *testing.T, c sfm.Config) *sfm.Module {
	t.Helper()
	m, err := sfm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func enroll(t *testing.T, m *sfm.Module, far *sim.Module, e fingerprint.Enrollment, finger string) (steps []fingerprint.Step, err error) {
	t.Helper()
	e.Progress = func(s fingerprint.Step) {
		steps = append(steps, s)
		if s.Action == fingerprint.Lift {
			far.Lift()
			time.Sleep(50 * time.Millisecond) // until the sensor has seen it
		} else {
			far.Touch(sim.Finger{Name: finger})
		}
	}
	defer far.Lift()
	quality, err := m.Enroll(t.Context(), e)
	if (quality == 0) != (err != nil) {
		t.Errorf("a quality of %d, and %v", quality, err)
	}
	return steps, err
}

func identify(t *testing.T, m *sfm.Module, far *sim.Module, f sim.Finger) fingerprint.Match {
	t.Helper()
	far.Touch(f)
	defer far.Lift()
	got, err := m.Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A scan is answered twice, or once where that is set.
func TestAScanMayBeAnsweredTwice(t *testing.T) {
	for _, far := range []*sim.Module{sim.SFM{}.New(), sim.SFM{OneAnswer: true, EnrollMode: 0x30}.New()} {
		m := open(t, far)
		if _, err := enroll(t, m, far, fingerprint.Enrollment{ID: 0x9929}, "Ann"); err != nil {
			t.Fatal(err)
		}
		if got := identify(t, m, far, sim.Finger{Name: "Ann"}); got.Outcome != fingerprint.Matched || got.ID != 0x9929 {
			t.Errorf("%v of ID %d", got.Outcome, got.ID)
		}
	}
}

func TestTheFingerForAThreatIsToldFromTheOthers(t *testing.T) {
	far := sim.SFM{}.New()
	m := open(t, far)
	if _, err := enroll(t, m, far, fingerprint.Enrollment{ID: 7, Duress: true}, "left"); !errors.Is(err, fingerprint.ErrEmpty) {
		t.Errorf("as the only one: %v", err)
	}
	if _, err := enroll(t, m, far, fingerprint.Enrollment{ID: 7}, "right"); err != nil {
		t.Fatal(err)
	}
	if _, err := enroll(t, m, far, fingerprint.Enrollment{ID: 7, Duress: true}, "left"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fingerprint.Outcome{"right": fingerprint.Matched, "left": fingerprint.Duress} {
		if got := identify(t, m, far, sim.Finger{Name: name}); got.Outcome != want || got.ID != 7 {
			t.Errorf("%s: %v of ID %d", name, got.Outcome, got.ID)
		}
		far.Touch(sim.Finger{Name: name})
		if got, err := m.Verify(t.Context(), 7); err != nil || got.Outcome != want || got.ID != 7 {
			t.Errorf("%s verified: %v of ID %d, %v", name, got.Outcome, got.ID, err)
		}
		far.Lift()
	}
}

func TestAFakeFingerIsAnOutcome(t *testing.T) {
	far := sim.SFM{}.New()
	m := open(t, far)
	if got := identify(t, m, far, sim.Finger{Name: "gelatine", Fake: true}); got.Outcome != fingerprint.Fake || got.ID != 0 {
		t.Errorf("%v of ID %d", got.Outcome, got.ID)
	}
	far.Touch(sim.Finger{Name: "gelatine", Fake: true})
	if _, err := m.Enroll(t.Context(), fingerprint.Enrollment{ID: 1}); !errors.Is(err, fingerprint.ErrFake) {
		t.Errorf("enrolled: %v", err)
	}
}

func TestEnrollingFollowsTheModulesMode(t *testing.T) {
	for _, tt := range []struct {
		mode             uint32
		steps, templates int
	}{{0x30, 1, 1}, {0x31, 3, 1}, {0x41, 3, 2}} {
		far := sim.SFM{EnrollMode: tt.mode}.New()
		m := open(t, far)
		steps, err := enroll(t, m, far, fingerprint.Enrollment{ID: 7}, "Ann")
		if err != nil || len(steps) != tt.steps {
			t.Errorf("mode %#x: %v, %v", tt.mode, steps, err)
		}
		templates, err := m.ReadTemplates(t.Context(), 7)
		if err != nil || len(templates) != tt.templates {
			t.Errorf("mode %#x: %v, %v", tt.mode, templates, err)
		}
		biometric.ClearAll(templates)
	}
	far := sim.SFM{EnrollMode: 0x42}.New()
	if _, err := enroll(t, open(t, far), far, fingerprint.Enrollment{ID: 7}, "Ann"); !errors.Is(err, fingerprint.ErrUnsupported) {
		t.Errorf("mode 0x42: %v", err)
	}
}

// The module has the finger, and nobody was told.
func TestAnEnrolmentWhoseAnswerIsLostLeavesNothing(t *testing.T) {
	far := sim.SFM{EnrollMode: 0x30}.New()
	m := open(t, far)
	defer far.Lift()
	_, err := m.Enroll(t.Context(), fingerprint.Enrollment{ID: 7, Progress: func(fingerprint.Step) {
		far.Inject(sim.DropReply, 1)
		far.Touch(sim.Finger{Name: "Ann"})
	}})
	if !errors.Is(err, fingerprint.ErrNoFinger) {
		t.Errorf("Enroll: %v", err)
	}
	if left := far.Stored(); len(left) > 0 {
		t.Errorf("%v are stored", left)
	}
}

func TestAModuleOnRS485IsAskedByItsNumber(t *testing.T) {
	far := sim.SFM{Terminal: 2, ShortList: true}.New()
	far.Inject(sim.Echo, -1) // as converters do
	c := config(t, far)
	if _, err := sfm.Open(t.Context(), c); !errors.Is(err, fingerprint.ErrGarbled) && !errors.Is(err, fingerprint.ErrSilent) {
		t.Errorf("without the number: %v", err)
	}
	c.Terminal = 2
	m := openAs(t, c)
	for _, id := range []fingerprint.ID{9, 3} {
		if _, err := enroll(t, m, far, fingerprint.Enrollment{ID: id}, fmt.Sprint(id)); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := m.List(t.Context()); err != nil || fmt.Sprint(ids) != "[3 9]" {
		t.Errorf("the list is %v, %v", ids, err)
	}
}

func TestALockedModuleSaysSo(t *testing.T) {
	if _, err := sfm.Open(t.Context(), config(t, sim.SFM{Locked: true}.New())); !errors.Is(err, fingerprint.ErrLocked) {
		t.Errorf("the error is %v", err)
	}
}

func TestTheModulesOwnTimeEndsAScan(t *testing.T) {
	far := sim.SFM{Timeout: 50 * time.Millisecond}.New()
	c := config(t, far)
	c.FingerWait = time.Minute
	m := openAs(t, c)
	start := time.Now()
	if got, err := m.Identify(t.Context()); err != nil || got.Outcome != fingerprint.NoFinger {
		t.Errorf("%v, %v", got.Outcome, err)
	}
	if took := time.Since(start); took > c.FingerWait/2 {
		t.Errorf("it took %v", took)
	}
}

func TestSettingsAreTheModules(t *testing.T) {
	far := sim.SFM{Serial: 4711}.New()
	m := open(t, far)
	if i := m.Info(); i.Serial != "4711" || i.Firmware != "V3.5" || i.TemplateSize != 384 || i.Capacity != 1000 {
		t.Errorf("it is %+v", i)
	}
	if err := m.SetSecurity(t.Context(), 0x35); err != nil {
		t.Error(err)
	}
	if level, err := m.Security(t.Context()); err != nil || level != 0x35 {
		t.Errorf("security %#x, %v", level, err)
	}
	for _, weak := range []int{0x30, 0x31, 0x32, 0x40, 0x42, 0x53, 0} {
		if err := m.SetSecurity(t.Context(), weak); !errors.Is(err, fingerprint.ErrUnsupported) {
			t.Errorf("security %#x: %v", weak, err)
		}
	}
	if err := m.SetParameter(t.Context(), sfm.FakeDetection, 0x32); err != nil {
		t.Error(err)
	}
	if v, err := m.Parameter(t.Context(), sfm.FakeDetection); err != nil || v != 0x32 {
		t.Errorf("fake detection %#x, %v", v, err)
	}
	if _, err := m.Parameter(t.Context(), 0x01); !errors.Is(err, sfm.Unsupported) {
		t.Errorf("a parameter that there is not: %v", err)
	}
	if err := m.SetBaud(t.Context(), 921600); err != nil {
		t.Error(err)
	}
	if _, err := m.List(t.Context()); err != nil {
		t.Errorf("at the other rate: %v", err)
	}
	if err := m.Show(t.Context(), fingerprint.Light{}); !errors.Is(err, fingerprint.ErrUnsupported) {
		t.Errorf("light: %v", err)
	}
	if _, err := m.Verify(t.Context(), 0); !errors.Is(err, fingerprint.ErrNoSuchID) {
		t.Errorf("ID 0: %v", err)
	}
}

// Open turns off scans that nobody asked for, and what came before a scan is
// not its outcome.
func TestAnAnswerThatWasNotAskedForIsDropped(t *testing.T) {
	far := sim.SFM{FreeScan: true}.New()
	c := config(t, far)
	var line fingerprint.Line
	var before []byte
	connect := c.Open
	c.Open = func(baud int) (fingerprint.Line, error) {
		var err error
		line, err = connect(baud)
		return &chatty{line, &before}, err
	}
	m := openAs(t, c)
	if v, err := m.Parameter(t.Context(), sfm.FreeScan); err != nil || v != 0x30 {
		t.Errorf("free scan is %#x, %v", v, err)
	}
	before, _ = sfm.Packet{Command: sfm.IS, Param: 7, Flag: byte(sfm.Success)}.AppendBinary(nil)
	if got := identify(t, m, far, sim.Finger{Name: "Ann"}); got.Outcome != fingerprint.NoMatch {
		t.Errorf("%v of ID %d", got.Outcome, got.ID)
	}
	if len(before) != 0 {
		t.Error("what came before was not read")
	}
}

// chatty is a line on which something has come already.
type chatty struct {
	fingerprint.Line
	before *[]byte
}

func (c *chatty) Read(b []byte, timeout time.Duration) (int, error) {
	if n := copy(b, *c.before); n > 0 {
		*c.before = (*c.before)[n:]
		return n, nil
	}
	return c.Line.Read(b, timeout)
}

// peer is a line on which the other end answers each write with what comes
// next in a script, and is gone at its end.
type peer struct{ script, come []byte }

func (p *peer) Read(b []byte, timeout time.Duration) (int, error) {
	if len(p.come) == 0 && len(p.script) < 2 {
		return 0, errors.New("gone")
	}
	if len(p.come) == 0 {
		time.Sleep(timeout)
	}
	n := copy(b, p.come)
	p.come = p.come[n:]
	return n, nil
}

func (p *peer) Write(b []byte) (int, error) {
	if len(p.script) > 1 {
		n := min(int(binary.BigEndian.Uint16(p.script)%1024), len(p.script)-2)
		p.come = append(p.come, p.script[2:2+n]...)
		p.script = p.script[2+n:]
	}
	return len(b), nil
}

func (p *peer) SetBaud(int) error { return nil }
func (p *peer) Close() error      { return nil }

// FuzzAnswers: whatever a module answers, the driver ends, takes no ID for a
// match that there is not or that was not asked for, and gives no template
// together with an error.
func FuzzAnswers(f *testing.F) {
	chunk := func(packets ...sfm.Packet) (b []byte) {
		for _, p := range packets {
			b, _ = p.AppendBinary(b)
		}
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	}
	ok := byte(sfm.Success)
	value := func(v uint32) []byte { return chunk(sfm.Packet{Command: sfm.SR, Size: v, Flag: ok}) }
	var start []byte
	for _, b := range [][]byte{chunk(), chunk(sfm.Packet{Command: sfm.ID, Flag: ok}), value(1), value(2), value(3), value(100), value(384), value(0x30), value(0x33)} {
		start = append(start, b...)
	}
	with := func(chunks ...[]byte) []byte {
		all := append([]byte(nil), start...)
		for _, b := range chunks {
			all = append(all, b...)
		}
		return all
	}
	f.Add(with(chunk(sfm.Packet{Command: sfm.IS, Flag: byte(sfm.ScanSuccess)}, sfm.Packet{Command: sfm.IS, Param: 7, Flag: ok})), byte(0))
	f.Add(with(chunk(sfm.Packet{Command: sfm.IS, Flag: ok})), byte(0))
	f.Add(with(chunk(sfm.Packet{Command: sfm.VS, Param: 8, Flag: ok})), byte(1))
	list := chunk(sfm.Packet{Command: sfm.LT, Param: 1, Size: 4, Flag: ok})
	list[1] += 5
	f.Add(with(append(list, 9, 0, 0, 0, 0x0A)), byte(2))
	read := chunk(sfm.Packet{Command: sfm.RT, Param: 3, Size: 2, Flag: ok})
	read[1] += 3
	f.Add(with(append(read, 1, 2, 0x0A)), byte(3))
	f.Fuzz(func(t *testing.T, script []byte, what byte) {
		synctest.Test(t, func(t *testing.T) { answers(t, script, what) })
	})
}

func answers(t *testing.T, script []byte, what byte) {
	ctx := t.Context()
	line := &peer{script: script}
	m, err := sfm.Open(ctx, sfm.Config{
		Open: func(int) (fingerprint.Line, error) { return line, nil }, Baud: 115200,
		FingerWait: time.Second,
	})
	if err != nil {
		return
	}
	defer m.Close()
	switch what % 4 {
	case 0, 1:
		got, err := m.Identify(ctx)
		want := got.ID
		if what%4 == 1 {
			want = 7
			got, err = m.Verify(ctx, want)
		}
		if (got.Outcome == fingerprint.Matched || got.Outcome == fingerprint.Duress) && (err != nil || got.ID != want || got.ID == 0) {
			t.Errorf("%v of ID %d, %v", got.Outcome, got.ID, err)
		}
	case 2:
		ids, err := m.List(ctx)
		if len(ids) > m.Info().Capacity || err != nil && ids != nil {
			t.Errorf("%v, %v", ids, err)
		}
	case 3:
		templates, err := m.ReadTemplates(ctx, 3)
		if err != nil && templates != nil {
			t.Errorf("%v, %v", templates, err)
		}
	}
}
