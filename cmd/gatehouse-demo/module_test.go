package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/gt521"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sfm"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/zfm"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// line opens the port of a device.
func (d *tryOut) line(baud int) (fingerprint.Line, error) { return serial.Open(d.port, baud) }

// openModule opens a simulated module as a controller does.
func openModule(d *tryOut, family string) (m fingerprint.Module, err error) {
	// Not at t's end: what runs in a cleanup outlives that.
	ctx := context.Background()
	switch family {
	case "zfm":
		return zfm.Open(ctx, zfm.Config{Open: d.line, FingerWait: 2 * time.Second})
	case "sfm":
		return sfm.Open(ctx, sfm.Config{Open: d.line})
	default:
		return gt521.Connect(ctx, gt521.Config{Open: d.line})
	}
}

func TestEachFamilyOfModulesKnowsWhoTouchesIt(t *testing.T) {
	for _, family := range []string{"zfm", "sfm", "gt521"} {
		t.Run(family, func(t *testing.T) {
			d := begin(t, "module", "--family", family)
			m, err := openModule(d, family)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if _, err := m.Enroll(t.Context(), fingerprint.Enrollment{ID: 7, Progress: func(s fingerprint.Step) {
				if s.Action == fingerprint.Lift {
					d.command("lift")
				} else {
					d.command("touch ada")
				}
			}}); err != nil {
				t.Fatal(err)
			}
			d.command("stored")
			d.says("stored: [7]")
			d.command("touch ada")
			if who, err := m.Identify(t.Context()); err != nil || who.Outcome != fingerprint.Matched || who.ID != 7 {
				t.Errorf("Ada's finger: %+v, %v", who, err)
			}
			d.command("touch ben")
			if who, err := m.Identify(t.Context()); err != nil || who.Outcome != fingerprint.NoMatch {
				t.Errorf("Ben's finger: %+v, %v", who, err)
			}
		})
	}
}

func TestAModuleSuffersFromItsFaults(t *testing.T) {
	d := begin(t, "module", "--family", "zfm")
	m, err := openModule(d, "zfm")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d.command("fault drop")
	d.says("fault drop: all commands")
	if err := m.Ping(t.Context()); !errors.Is(err, fingerprint.ErrSilent) {
		t.Errorf("error %v, want that it is silent", err)
	}
	d.command("fault drop:0")
	d.command("power off")
	d.says("it has no power")
	if err := m.Ping(t.Context()); !errors.Is(err, fingerprint.ErrSilent) {
		t.Errorf("error %v, want that it is silent", err)
	}
	d.command("power on")
	d.says("it has power")
	m.Close()
	again, err := openModule(d, "zfm")
	if err != nil {
		t.Fatalf("with its power again: %v", err)
	}
	again.Close()
}
