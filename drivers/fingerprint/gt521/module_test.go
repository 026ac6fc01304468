package gt521_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/gt521"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// open reaches a simulated module over a real terminal.
func open(t *testing.T, far *sim.Module) *gt521.Module {
	t.Helper()
	cable, err := sim.Plug(far)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cable.Unplug)
	m, err := gt521.Connect(t.Context(), gt521.Config{
		Open: func(baud int) (fingerprint.Line, error) { return serial.Open(cable.Name, baud) },
		Baud: 9600, Wait: 400 * time.Millisecond, FingerWait: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestTheCapacityIsTheModules(t *testing.T) {
	for _, capacity := range []int{1, 20, 200, 3000} {
		if got := open(t, sim.GT521{Capacity: capacity}.New()).Info().Capacity; got != capacity {
			t.Errorf("%d, not %d", got, capacity)
		}
	}
}

func TestATemplateIsAsLongAsTheModuleSays(t *testing.T) {
	for _, size := range []int{498, 506, 1022} { // with the sums and headers, more than a wire holds at once
		far, farther := sim.GT521{TemplateSize: size}.New(), sim.GT521{TemplateSize: size, Serial: "other"}.New()
		m, n := open(t, far), open(t, farther)
		far.Touch(sim.Finger{Name: "Ann"})
		_, err := m.Enroll(t.Context(), fingerprint.Enrollment{ID: 3, Progress: func(s fingerprint.Step) {
			if s.Action == fingerprint.Lift {
				far.Lift()
			} else {
				far.Touch(sim.Finger{Name: "Ann"})
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		templates, err := m.ReadTemplates(t.Context(), 3)
		if err != nil || len(templates[0].Bytes()) != size {
			t.Fatalf("%v, %v", templates, err)
		}
		if err := n.WriteTemplates(t.Context(), 4, templates); err != nil {
			t.Error(err)
		}
		// The module itself refuses a finger that it has.
		if err := n.WriteTemplates(t.Context(), 5, templates); !errors.Is(err, fingerprint.ErrDuplicate) {
			t.Errorf("twice: %v", err)
		}
		biometric.ClearAll(templates)
	}
}

func TestSettingsAreTheModules(t *testing.T) {
	m := open(t, sim.GT521{}.New())
	if err := m.SetBaud(t.Context(), 115200); err != nil {
		t.Error(err)
	}
	if _, err := m.List(t.Context()); err != nil {
		t.Errorf("at the other rate: %v", err)
	}
	if err := m.SetBaud(t.Context(), 110); !errors.Is(err, gt521.InvalidBaud) {
		t.Errorf("at 110 baud: %v", err)
	}
	for _, colour := range []fingerprint.Colour{fingerprint.Green, fingerprint.Dark} {
		if err := m.Show(t.Context(), fingerprint.Light{Colour: colour}); err != nil {
			t.Error(err)
		}
	}
	if err := m.SetSecurity(t.Context(), 3); !errors.Is(err, fingerprint.ErrUnsupported) {
		t.Errorf("security: %v", err)
	}
	if _, err := m.Enroll(t.Context(), fingerprint.Enrollment{ID: 1, Duress: true}); !errors.Is(err, fingerprint.ErrUnsupported) {
		t.Errorf("a finger for a threat: %v", err)
	}
	if _, err := m.Verify(t.Context(), 200); !errors.Is(err, fingerprint.ErrNoSuchID) {
		t.Errorf("beyond the capacity: %v", err)
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

// FuzzAnswers: whatever a module answers, the driver ends, takes no ID for a
// match that there is not, and gives no template together with an error.
func FuzzAnswers(f *testing.F) {
	chunk := func(data []byte, packets ...gt521.Packet) (b []byte) {
		for _, p := range packets {
			b, _ = p.AppendBinary(b)
		}
		if data != nil {
			b = gt521.AppendData(b, data)
		}
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	}
	ack := func(v uint32) []byte { return chunk(nil, gt521.Packet{Param: v, Code: gt521.ACK}) }
	nack := func(r gt521.Reason) []byte {
		return chunk(nil, gt521.Packet{Param: uint32(r), Code: gt521.NACK})
	}
	with := func(chunks ...[]byte) []byte {
		all := chunk(make([]byte, 24), gt521.Packet{Code: gt521.ACK})
		for range 12 { // which leave 2 of 4096
			all = append(all, nack(gt521.InvalidID)...)
		}
		all = append(all, nack(gt521.NotUsed)...)
		for _, b := range chunks {
			all = append(all, b...)
		}
		return all
	}
	f.Add(with(ack(0), ack(0), ack(0), ack(1)), byte(0))
	f.Add(with(ack(0), ack(0), ack(0), ack(99)), byte(0))
	f.Add(with(ack(0), ack(0), ack(0), ack(0), ack(0)), byte(1))
	f.Add(with(ack(1), nack(gt521.NotUsed), ack(0)), byte(2))
	f.Add(with(chunk([]byte("template"), gt521.Packet{Code: gt521.ACK}), chunk([]byte("template"), gt521.Packet{Code: gt521.ACK})), byte(3))
	f.Fuzz(func(t *testing.T, script []byte, what byte) {
		synctest.Test(t, func(t *testing.T) { answers(t, script, what) })
	})
}

func answers(t *testing.T, script []byte, what byte) {
	ctx := t.Context()
	line := &peer{script: script}
	m, err := gt521.Connect(ctx, gt521.Config{
		Open: func(int) (fingerprint.Line, error) { return line, nil }, Baud: 9600,
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
		got, err := m.Verify(ctx, 1)
		if got.Outcome == fingerprint.Matched && (err != nil || got.ID != 1) {
			t.Errorf("ID %d, %v", got.ID, err)
		}
	case 2:
		ids, err := m.List(ctx)
		if fingerprint.ID(len(ids)) > capacity || err != nil && ids != nil {
			t.Errorf("%v, %v", ids, err)
		}
	case 3:
		templates, err := m.ReadTemplates(ctx, 1)
		if err != nil && templates != nil {
			t.Errorf("%v, %v", templates, err)
		}
	}
}
