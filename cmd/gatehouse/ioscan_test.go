package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	fingers "github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// newSensed is newWired with a fingerprint module on a pseudo-terminal.
func newSensed(t *testing.T) (*wired, *fingers.Module) {
	t.Helper()
	t.Parallel() // they mostly wait
	m := fingers.ZFM{Serial: "test"}.New()
	cable, err := fingers.Plug(m)
	must(t, err)
	t.Cleanup(cable.Unplug)
	w := newWired(t)
	must(t, os.WriteFile(w.file, fmt.Appendf(nil, `%s
[[door.scanner]]
name = "a-finger"
direction = "in"
factor = "fingerprint"
device = { driver = "fingerprint", family = "zfm", port = %q }
`, wiredDoor, cable.Name), 0o600))
	return w, m
}

func TestIOWatchShowsWhatAScannerSees(t *testing.T) {
	w, m := newSensed(t)
	var out, errs syncBuffer
	end := w.run(strings.NewReader(""), &out, &errs, "io", "watch", "--json")
	shows := func(want string) {
		t.Helper()
		eventually(t, want, func() bool { return strings.Contains(out.String(), want) })
	}
	shows(`"part":"scanner a-finger","event":"ready"`)
	m.Touch(fingers.Finger{Name: "ada"})
	shows(`"event":"scan","detail":"nobody it keeps"`)
	m.Lift()
	m.Power(false)
	shows(`"part":"scanner a-finger","event":"fault"`)
	if status := end(); status != 0 {
		t.Errorf("exit status %d: %s", status, errs.String())
	}
}

func TestIOTestPassesAScannerThatSeesAFinger(t *testing.T) {
	w, m := newSensed(t)
	s := newScreen(t)
	end := w.run(s.tty, s.tty, s.tty, "io", "test", "--by", "J. Smith")
	for _, part := range []string{"contact", "reader a-in"} {
		s.until("== a, " + part)
		s.types("s")
	}
	s.until("== a, scanner a-finger")
	s.until("Put a finger on it.")
	m.Touch(fingers.Finger{Name: "ada", Poor: true})
	s.until("scan too little was seen")
	m.Lift()
	s.until("Put a finger on it.")
	asked := m.Heard()
	eventually(t, "the module sees that the finger is off it", func() bool { return m.Heard() > asked+1 })
	m.Touch(fingers.Finger{Name: "ada"})
	s.until("scan nobody it keeps")
	s.until("passed")
	s.until("== a, indicator")
	s.types("q")
	s.until("1 passed, 0 failed")
	end()
	all := w.records()
	trials := all[len(all)-1].Record.Data.Trials
	if want := (visitorlog.Trial{Door: "a", Part: "scanner a-finger", Result: visitorlog.TrialPassed}); len(trials) < 3 || trials[2] != want {
		t.Errorf("trials %+v", trials)
	}
}
