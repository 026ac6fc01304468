package zfm_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/zfm"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// config reaches a simulated module over a real terminal.
func config(t *testing.T, far *sim.Module) zfm.Config {
	t.Helper()
	cable, err := sim.Plug(far)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cable.Unplug)
	return zfm.Config{
		Open: func(baud int) (fingerprint.Line, error) { return serial.Open(cable.Name, baud) },
		Baud: 57600, Wait: 400 * time.Millisecond, FingerWait: 2 * time.Second,
	}
}

func open(t *testing.T, c zfm.Config) *zfm.Module {
	t.Helper()
	m, err := zfm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func enroll(t *testing.T, m *zfm.Module, far *sim.Module, id fingerprint.ID, finger string) error {
	t.Helper()
	defer far.Lift()
	_, err := m.Enroll(t.Context(), fingerprint.Enrollment{ID: id, Progress: func(s fingerprint.Step) {
		if s.Action == fingerprint.Lift {
			far.Lift()
		} else {
			far.Touch(sim.Finger{Name: finger})
		}
	}})
	return err
}

func TestAPasswordIsNeeded(t *testing.T) {
	far := sim.ZFM{Password: 0xC0FFEE}.New()
	c := config(t, far)
	for _, wrong := range []zfm.Password{0, 0xC0FFEF} {
		c.Password = wrong
		if _, err := zfm.Open(t.Context(), c); !errors.Is(err, fingerprint.ErrLocked) {
			t.Errorf("with the wrong one: %v", err)
		}
	}
	c.Password = 0xC0FFEE
	for _, verb := range []string{"%v", "%d", "%x", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, c.Password); text != "[password]" {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	m := open(t, c)
	if err := m.SetPassword(t.Context(), 0xBEEF); err != nil {
		t.Fatal(err)
	}
	if _, err := m.List(t.Context()); err != nil {
		t.Errorf("after the change: %v", err)
	}
	far.Power(false)
	far.Power(true)
	if _, err := m.List(t.Context()); !errors.Is(err, fingerprint.ErrRestarted) || fingerprint.IsRefusal(err) {
		t.Errorf("after a loss of power: %v", err)
	}
	m.Close()
	if _, err := zfm.Open(t.Context(), c); !errors.Is(err, fingerprint.ErrLocked) {
		t.Errorf("with the one before: %v", err)
	}
	c.Password = 0xBEEF
	open(t, c)
}

func TestAnotherAddressDoesNotAnswer(t *testing.T) {
	c := config(t, sim.ZFM{Address: 0x01020304}.New())
	if _, err := zfm.Open(t.Context(), c); !errors.Is(err, fingerprint.ErrSilent) {
		t.Errorf("at no address: %v", err)
	}
	c.Address = 0x01020304
	open(t, c)
}

// A driver that searches the first 163 never finds the others.
func TestAFingerIsFoundWhereverItIsStored(t *testing.T) {
	far := sim.ZFM{Capacity: 1500}.New()
	m := open(t, config(t, far))
	ids := []fingerprint.ID{0, 162, 163, 255, 256, 1023, 1024, 1499}
	for _, id := range ids {
		if err := enroll(t, m, far, id, fmt.Sprint(id)); err != nil {
			t.Fatalf("ID %d: %v", id, err)
		}
	}
	if got, err := m.List(t.Context()); err != nil || fmt.Sprint(got) != fmt.Sprint(ids) {
		t.Errorf("the list is %v, %v", got, err)
	}
	for _, id := range ids {
		var got fingerprint.Match
		var err error
		for range 5 {
			far.Lift()
			touch := time.AfterFunc(200*time.Millisecond, func() { far.Touch(sim.Finger{Name: fmt.Sprint(id)}) })
			got, err = m.Identify(t.Context())
			if touch.Stop(); got.Outcome != fingerprint.NoFinger {
				break
			}
		}
		if err != nil || got.Outcome != fingerprint.Matched || got.ID != id {
			t.Errorf("ID %d: %v of ID %d, %v", id, got.Outcome, got.ID, err)
		}
	}
	far.Lift()
	if err := enroll(t, m, far, 1500, "x"); !errors.Is(err, fingerprint.ErrNoSuchID) {
		t.Errorf("beyond the capacity: %v", err)
	}
}

// An answer does not say what it answers: the first page of the table, when it
// comes late, must not become the second one.
func TestALateAnswerIsNotTheNextOnes(t *testing.T) {
	far := sim.ZFM{Capacity: 1000}.New()
	far.LateBy = 600 * time.Millisecond
	m := open(t, config(t, far))
	for _, id := range []fingerprint.ID{5, 300} {
		if err := enroll(t, m, far, id, fmt.Sprint(id)); err != nil {
			t.Fatal(err)
		}
	}
	for skip := range 3 {
		far.InjectAfter(sim.Late, skip, 1)
		if ids, err := m.List(t.Context()); err != nil || fmt.Sprint(ids) != "[5 300]" {
			t.Errorf("with page %d late: %v, %v", skip, ids, err)
		}
	}
}

func TestTemplatesGoInPacketsOfAnySize(t *testing.T) {
	for _, old := range []bool{false, true} {
		far := sim.ZFM{Old: old, TemplateSize: 520}.New()
		m := open(t, config(t, far))
		if err := enroll(t, m, far, 7, "Ann"); err != nil {
			t.Fatal(err)
		}
		for i, size := range []int{32, 64, 128, 256} {
			if err := m.SetPacketSize(t.Context(), size); err != nil {
				t.Fatal(err)
			}
			templates, err := m.ReadTemplates(t.Context(), 7)
			if err != nil || len(templates) != 1 || len(templates[0].Bytes()) != 520 {
				t.Fatalf("in packets of %d bytes: %v, %v", size, templates, err)
			}
			if err := m.WriteTemplates(t.Context(), fingerprint.ID(10+i), templates); err != nil {
				t.Errorf("in packets of %d bytes: %v", size, err)
			}
			biometric.ClearAll(templates)
		}
		if err := m.SetPacketSize(t.Context(), 512); !errors.Is(err, fingerprint.ErrUnsupported) {
			t.Errorf("packets of 512 bytes: %v", err)
		}
		short := []biometric.Template{biometric.NewTemplate(make([]byte, 100))}
		err := m.WriteTemplates(t.Context(), 20, short)
		if !errors.Is(err, fingerprint.ErrTemplate) {
			t.Errorf("a template of another size: %v", err)
		}
		if n := len(far.Stored()); n != 5 {
			t.Errorf("%d templates are stored", n)
		}
	}
}

func TestAModuleWithoutASerialNumberIsMarked(t *testing.T) {
	far := sim.ZFM{Old: true}.New()
	c := config(t, far)
	m := open(t, c)
	if s := m.Info().Serial; s != "" {
		t.Fatalf("it has the serial number %q", s)
	}
	mark, err := m.Mark(t.Context())
	if err != nil || !strings.HasPrefix(mark, "mark-") {
		t.Fatalf("%q, %v", mark, err)
	}
	m.Close()
	m = open(t, c)
	if s := m.Info().Serial; s != mark {
		t.Errorf("marked %q, it has %q", mark, s)
	}
	if _, err := m.Mark(t.Context()); !errors.Is(err, fingerprint.ErrUnsupported) {
		t.Errorf("marked again: %v", err)
	}
}

// What is enrolled in a module is bound to its mark.
func TestAMarkThatCouldNotBeReadIsNotWrittenOver(t *testing.T) {
	far := sim.ZFM{Old: true}.New()
	c := config(t, far)
	c.Wait = 50 * time.Millisecond
	mark := func() (serial string, known bool) { // empty: the module cannot be used now
		m, err := zfm.Open(t.Context(), c)
		if err != nil {
			return "", false
		}
		defer m.Close()
		if serial = m.Info().Serial; serial != "" {
			return serial, true
		}
		serial, _ = m.Mark(t.Context())
		return serial, false
	}
	want, _ := mark()
	if want == "" {
		t.Fatal("it was not marked")
	}
	unknown := 0
	for after := range 10 {
		far.InjectAfter(sim.DropReply, after, 4) // as many as it takes not to read it
		got, known := mark()
		if got != "" && got != want {
			t.Fatalf("it has %q, and had %q", got, want)
		}
		if got != "" && !known {
			unknown++
		}
		far.Inject(sim.DropReply, 0)
	}
	if unknown == 0 {
		t.Error("the mark was read every time")
	}
}

func TestAModuleThatDoesNotTellItsCapacityIsRefused(t *testing.T) {
	_, err := zfm.Open(t.Context(), config(t, sim.ZFM{Bare: true}.New()))
	if !errors.Is(err, fingerprint.ErrUnsupported) || !strings.Contains(err.Error(), "capacity") {
		t.Errorf("the error is %v", err)
	}
}

func TestSettingsAreTheModules(t *testing.T) {
	far := sim.ZFM{}.New()
	m := open(t, config(t, far))
	if err := m.SetSecurity(t.Context(), 5); err != nil {
		t.Error(err)
	}
	if level, err := m.Security(t.Context()); err != nil || level != 5 {
		t.Errorf("security %d, %v", level, err)
	}
	for _, level := range []int{0, 6, -1} {
		if err := m.SetSecurity(t.Context(), level); !errors.Is(err, fingerprint.ErrUnsupported) {
			t.Errorf("security %d: %v", level, err)
		}
	}
	if err := m.SetBaud(t.Context(), 115200); err != nil {
		t.Error(err)
	}
	if _, err := m.List(t.Context()); err != nil {
		t.Errorf("at the other rate: %v", err)
	}
	if _, err := m.Enroll(t.Context(), fingerprint.Enrollment{ID: 1, Duress: true}); !errors.Is(err, fingerprint.ErrUnsupported) {
		t.Errorf("a finger for a threat: %v", err)
	}
	if i := m.Info(); i.Model != "R503" || i.TemplateSize != 1536 {
		t.Errorf("it is %+v", i)
	}
}

func TestLightIsShownWithColoursAndWithout(t *testing.T) {
	for _, old := range []bool{false, true} {
		m := open(t, config(t, sim.ZFM{Old: old}.New()))
		if m.Info().Coloured == old {
			t.Errorf("old %v: coloured %v", old, m.Info().Coloured)
		}
		for _, l := range []fingerprint.Light{{}, {Colour: fingerprint.Green}, {Colour: fingerprint.Red, Effect: fingerprint.Flash, Times: 3}} {
			if err := m.Show(t.Context(), l); err != nil {
				t.Errorf("old %v, %v: %v", old, l, err)
			}
		}
	}
}

func TestSettingsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, captures := range []int{1, 7} {
		if _, err := zfm.Open(t.Context(), zfm.Config{Captures: captures}); err == nil {
			t.Errorf("%d captures are taken", captures)
		}
	}
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

// chunk is one packet for a peer's script.
func chunk(t testing.TB, pid zfm.PID, payload ...byte) []byte {
	t.Helper()
	b, err := zfm.Packet{Address: zfm.AnyAddress, PID: pid, Payload: payload}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// opening is what Open is answered by a module for 200 templates.
func opening(t testing.TB) []byte {
	para := chunk(t, zfm.Ack, 0, 0, 0, 0, 0, 0, 200, 0, 3, 0xFF, 0xFF, 0xFF, 0xFF, 0, 2, 0, 6)
	return slices.Concat(chunk(t, zfm.Ack, 0), para, para, chunk(t, zfm.Ack, make([]byte, 47)...), chunk(t, zfm.Ack, 0))
}

// Answers differ in their sizes: one that cannot be meant is stepped over.
func TestAnAnswerOfAnotherSizeIsNotTaken(t *testing.T) {
	page := make([]byte, 33)
	page[1] = 1 << 5
	both := append(chunk(t, zfm.Ack, 0, 0, 7, 0, 98), chunk(t, zfm.Ack, page...)[2:]...)
	both[1] = byte(len(both) - 2)
	line := &peer{script: append(opening(t), both...)}
	m, err := zfm.Open(t.Context(), zfm.Config{Open: func(int) (fingerprint.Line, error) { return line, nil }, Baud: 57600})
	if err != nil {
		t.Fatal(err)
	}
	if ids, err := m.List(t.Context()); err != nil || fmt.Sprint(ids) != "[5]" {
		t.Errorf("the list is %v, %v", ids, err)
	}
}

// FuzzAnswers: whatever a module answers, the driver ends, takes no ID that
// there is not for a match, and gives no template together with an error.
func FuzzAnswers(f *testing.F) {
	answer := func(pid zfm.PID, payload ...byte) []byte { return chunk(f, pid, payload...) }
	script := func(more ...[]byte) []byte { return slices.Concat(opening(f), slices.Concat(more...)) }
	ok := answer(zfm.Ack, 0)
	f.Add(script(ok, ok, answer(zfm.Ack, 0, 0, 7, 0, 98)), byte(0))
	f.Add(script(ok, ok, answer(zfm.Ack, 0, 0x10, 7, 0, 98)), byte(0))
	f.Add(script(ok, ok, ok, ok, answer(zfm.Ack, 0, 0, 98)), byte(1))
	f.Add(script(answer(zfm.Ack, append([]byte{0}, make([]byte, 32)...)...)), byte(2))
	upload := append(append([]byte{0, ok[1] * 2}, ok[2:]...), answer(zfm.LastData, 7)[2:]...) // both of one size
	f.Add(script(ok, upload, upload), byte(3))
	f.Fuzz(func(t *testing.T, script []byte, what byte) {
		synctest.Test(t, func(t *testing.T) { answers(t, script, what) })
	})
}

func answers(t *testing.T, script []byte, what byte) {
	ctx := t.Context()
	line := &peer{script: script}
	m, err := zfm.Open(ctx, zfm.Config{
		Open: func(int) (fingerprint.Line, error) { return line, nil }, Baud: 57600,
		FingerWait: time.Second,
	})
	if err != nil {
		return
	}
	defer m.Close()
	capacity := fingerprint.ID(m.Info().Capacity)
	switch what % 4 {
	case 0:
		got, err := m.Identify(ctx)
		if got.Outcome == fingerprint.Matched && (err != nil || got.ID >= capacity) {
			t.Errorf("ID %d of %d, %v", got.ID, capacity, err)
		}
	case 1:
		got, err := m.Verify(ctx, 7)
		if got.Outcome == fingerprint.Matched && (err != nil || got.ID != 7) {
			t.Errorf("ID %d, %v", got.ID, err)
		}
	case 2:
		ids, err := m.List(ctx)
		for _, id := range ids {
			if err != nil || id >= capacity {
				t.Errorf("ID %d of %d, %v", id, capacity, err)
			}
		}
	case 3:
		templates, err := m.ReadTemplates(ctx, 3)
		if err != nil && templates != nil {
			t.Errorf("%v, %v", templates, err)
		}
	}
}
