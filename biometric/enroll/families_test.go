package enroll

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-acs/gatehouse/biometric"
	driver "github.com/gatehouse-acs/gatehouse/drivers/fingerprint/scanner"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// handy is a sitting whose person does with a finger what is asked for, and
// takes a moment for it, as people do.
type handy struct {
	*sitting
	module *sim.Module
	finger sim.Finger
}

func (h *handy) Say(text string) {
	h.sitting.Say(text)
	const moment = 100 * time.Millisecond
	switch {
	case strings.Contains(text, "Now to try it"):
		h.module.Lift()
		fallthrough
	case strings.Contains(text, "put it on"):
		module := h.module
		time.AfterFunc(moment, func() { module.Touch(h.finger) })
	case strings.Contains(text, "lift it"), strings.Contains(text, "is recognised"):
		h.module.Lift()
	}
}

// TestEveryFamilyOfModulesEnrolsCopiesAndRevokes works with modules on
// pseudo-terminals, through their drivers.
func TestEveryFamilyOfModulesEnrolsCopiesAndRevokes(t *testing.T) {
	for _, tt := range []struct {
		family string
		baud   int
		module func(serial string) *sim.Module
	}{
		{"zfm", 57600, func(serial string) *sim.Module { return sim.ZFM{Serial: serial}.New() }},
		{"sfm", 115200, func(serial string) *sim.Module { return sim.SFM{Serial: uint32(serial[0])}.New() }},
		{"gt521", 9600, func(serial string) *sim.Module { return sim.GT521{Serial: serial}.New() }},
	} {
		t.Run(tt.family, func(t *testing.T) {
			modules, cables := map[string]*sim.Module{}, map[string]*sim.Cable{}
			for _, name := range []string{"a-finger", "b-finger"} {
				modules[name] = tt.module(name)
				cable, err := sim.Plug(modules[name])
				must(t, err)
				defer cable.Unplug()
				cables[name] = cable
			}
			bus, err := driver.Open(driver.DefaultSettings(), slog.New(slog.DiscardHandler))
			must(t, err)
			defer bus.Close()
			s := newSite(t, nil)
			for name, cable := range cables {
				device, err := bus.Scanner(&driver.Device{Family: tt.family, Port: cable.Name, Baud: tt.baud})
				must(t, err)
				s.desk.Use(name, device)
			}
			v := &handy{usualSitting(t, "a-finger"), modules["a-finger"], sim.Finger{Name: "ada's"}}
			v.answers[3] = "which: right-index"
			must(t, s.desk.Enroll(t.Context(), Request{Door: "a", Side: "in"}, v, v))
			must(t, s.desk.Copy(t.Context(), "ada", "a-finger", "b-finger", "olga", v))
			if len(s.rows()) != 2 || len(s.records(visitorlog.EnrollmentMade)) != 2 {
				t.Errorf("rows %q, %d records", s.rows(), len(s.records(visitorlog.EnrollmentMade)))
			}
			for name, m := range modules {
				references, err := s.store.References("ada", name)
				must(t, err)
				v.module = m
				v.Say("Now to try it")
				match, err := s.desk.scanners[name].Scan(t.Context(), references)
				if err != nil || match.Outcome != biometric.Matched || len(references) != 1 {
					t.Errorf("%s: %+v, %v, with %d references", name, match, err, len(references))
				}
				m.Lift()
			}
			report, err := s.desk.Check(t.Context(), v)
			must(t, err)
			if d := cmp.Diff([]Finding{}, report.Findings); d != "" || report.Unchecked != nil {
				t.Errorf("not looked into: %v; found:\n%s", report.Unchecked, d)
			}
			must(t, s.desk.Revoke(t.Context(), "ada", "olga", v))
			for name, m := range modules {
				if left := m.Stored(); len(left) > 0 {
					t.Errorf("%s has %v after it was revoked", name, left)
				}
			}
		})
	}
}
