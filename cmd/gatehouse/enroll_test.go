package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric/enroll"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	wires "github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/control"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/google/go-cmp/cmp"
)

const fingerDoor = `controller = "north-1"
data = "door"
timezone = "Europe/Amsterdam"
[http]
listen = "127.0.0.1:0"
[[door]]
name = "a"
factors = ["badge+fingerprint"]
strike = { driver = "sim", line = "a.strike" }
[[door.reader]]
name = "a-in"
direction = "in"
formats = ["H10301"]
device = { driver = "sim", line = "a-in" }
[[door.scanner]]
name = "a-finger"
direction = "in"
factor = "fingerprint"
device = { driver = "fingerprint", family = "zfm", port = %q, baud = 57600 }
`

const fingerPolicy = `
[[people]]
person = "olga"
operator = true
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 1 }]

[[people]]
person = "omar"
operator = true
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 2 }]

[[people]]
person = "ada"
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 3 }]

[[people]]
person = "bob"
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 4 }, { format = "H10301", facility = 123, number = 5 }]
`

// The cards of the policy.
const (
	olgasCard = iota + 1
	omarsCard
	adasCard
	bobsCard
	bobsOtherCard
)

// fingerSite is a controller of a door with a fingerprint module, run as
// processes.
type fingerSite struct {
	*wired
	module *sim.Module
	daemon *exec.Cmd
	client *exec.Cmd // the last gatehouse enroll
	site   *wires.Site
}

func newFingerSite(t *testing.T) *fingerSite {
	t.Helper()
	t.Parallel() // they mostly wait
	module := sim.ZFM{Serial: "north"}.New()
	cable, err := sim.Plug(module)
	must(t, err)
	t.Cleanup(cable.Unplug)
	s := &fingerSite{wired: newWired(t), module: module}
	must(t, os.WriteFile(s.file, fmt.Appendf(nil, fingerDoor, cable.Name), 0o600))
	policy := filepath.Join(filepath.Dir(s.file), "policy.toml")
	must(t, os.WriteFile(policy, []byte(fingerPolicy), 0o600))
	s.gatehouse("allowlist", "import", policy, "--data", s.data)
	s.start()
	t.Cleanup(func() { s.site.Close() })
	return s
}

// gatehouse runs a command, which must succeed.
func (s *fingerSite) gatehouse(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("gatehouse", args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("gatehouse %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *fingerSite) start() {
	s.t.Helper()
	var log syncBuffer
	daemon := exec.Command("gatehouse", "run", "--demo", "--config", s.file)
	daemon.Stderr = &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, daemon.Start())
	s.daemon = daemon
	ended := make(chan struct{})
	go func() {
		_ = daemon.Wait()
		close(ended)
	}()
	s.t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		<-ended
		if s.t.Failed() {
			s.t.Logf("the daemon said:\n%s", log.String())
		}
	})
	if s.site == nil {
		s.site = s.wired.site()
	}
	for _, line := range []string{`"msg":"ready"`, "fingerprint module connected", "virtual site connected"} {
		eventually(s.t, line, func() bool { return strings.Contains(log.String(), line) })
	}
}

// kill ends the daemon as a power cut would.
func (s *fingerSite) kill() {
	s.t.Helper()
	must(s.t, s.daemon.Process.Kill())
	s.gone()
}

func (s *fingerSite) gone() {
	s.t.Helper()
	eventually(s.t, "the daemon is gone", func() bool { return s.daemon.Process.Signal(syscall.Signal(0)) != nil })
}

// enroll starts gatehouse enroll in a terminal of its own.
func (s *fingerSite) enroll(args ...string) (*screen, func() int) {
	s.t.Helper()
	terminal := newScreen(s.t)
	cmd := exec.Command("gatehouse", append([]string{"enroll", "--config", s.file}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal.tty, terminal.tty, terminal.tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	must(s.t, cmd.Start())
	s.client = cmd
	ended := make(chan int, 1)
	go func() {
		_ = cmd.Wait()
		ended <- cmd.ProcessState.ExitCode()
	}()
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return terminal, func() int {
		s.t.Helper()
		select {
		case status := <-ended:
			return status
		case <-time.After(mostWait):
			s.t.Fatalf("gatehouse enroll does not end:\n%s", terminal.everything())
			return 0
		}
	}
}

// present presents a card until the screen has what follows.
func (s *fingerSite) present(terminal *screen, card uint64, until string) {
	s.t.Helper()
	f, _ := badge.Builtin().Format("H10301")
	frame, err := f.Encode(badge.Credential{Format: "H10301", Facility: 123, Number: card})
	must(s.t, err)
	last := time.Time{}
	eventually(s.t, until, func() bool {
		terminal.mu.Lock()
		there := strings.Contains(terminal.text, until)
		terminal.mu.Unlock()
		// A card that comes before the daemon waits for one is passed over, and so
		// is the same one that comes again too soon.
		if !there && time.Since(last) > door.Repeat+200*time.Millisecond {
			last = time.Now()
			must(s.t, s.site.Swipe("a-in", frame))
		}
		return there
	})
	terminal.until(until)
}

// begin goes as far as the first finger.
func (s *fingerSite) begin(terminal *screen, person string, card, again uint64) {
	s.t.Helper()
	terminal.until("Operator: present your own badge")
	s.present(terminal, olgasCard, "Operator olga.")
	terminal.until("agreed/refused/cannot]")
	terminal.types("agreed")
	terminal.until(person + ": present your badge")
	s.present(terminal, card, "present it once more")
	s.present(terminal, again, "which are to be taken?")
	terminal.types("")
	terminal.until("only under a threat?")
	terminal.types("")
}

// finger gives one finger, as often as it is asked for.
func (s *fingerSite) finger(terminal *screen, person, part string) {
	s.t.Helper()
	f := sim.Finger{Name: person + " " + part}
	terminal.until("The " + part + ": put it on the sensor")
	s.module.Touch(f)
	terminal.until("lift it")
	s.module.Lift()
	terminal.until("put it on the sensor")
	s.module.Touch(f)
	terminal.until("give the " + part + " once more")
	s.module.Lift()
	s.looks()
	s.module.Touch(f)
	terminal.until("The " + part + " is recognised")
	s.module.Lift()
}

// looks waits until the module was asked whether there is a finger.
func (s *fingerSite) looks() {
	s.t.Helper()
	heard := s.module.Heard()
	eventually(s.t, "the module is asked for a finger", func() bool { return s.module.Heard() > heard+2 })
}

// listed is what gatehouse enroll list says.
func (s *fingerSite) listed() []string {
	s.t.Helper()
	var rows []struct{ Person, Part, State string }
	must(s.t, json.Unmarshal([]byte(s.gatehouse("enroll", "list", "--json", "--config", s.file)), &rows))
	all := []string{}
	for _, r := range rows {
		all = append(all, r.Person+" "+r.Part+" "+r.State)
	}
	return all
}

// TestSomebodyIsEnrolledAtADoorAndThenEnters is the way of a new colleague,
// with the real programs, a terminal and a module on a line: enrolled, let in by
// badge and finger, and revoked.
func TestSomebodyIsEnrolledAtADoorAndThenEnters(t *testing.T) {
	s := newFingerSite(t)
	adas := []string{"right index finger", "right middle finger", "left index finger", "left middle finger"}

	terminal, end := s.enroll("--person", "ada", "--notice", "2026-01")
	s.begin(terminal, "ada", adasCard, adasCard)
	for _, part := range adas {
		s.finger(terminal, "ada", part)
	}
	terminal.until("A second operator: present your badge")
	s.present(terminal, olgasCard, "the second operator must be somebody else")
	s.present(terminal, omarsCard, "Recorded: scanner a-finger, ada, approved by omar.")
	if status := end(); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	want := []string{"ada right-index active", "ada right-middle active", "ada left-index active", "ada left-middle active"}
	if d := cmp.Diff(want, s.listed()); d != "" || len(s.module.Stored()) != 4 {
		t.Errorf("the module has %v, - want + listed:\n%s", s.module.Stored(), d)
	}
	s.gatehouse("enroll", "orphans", "--config", s.file)

	// Her badge and her finger let her in.
	seen := &outputs{site: s.site}
	f, _ := badge.Builtin().Format("H10301")
	frame, err := f.Encode(badge.Credential{Format: "H10301", Facility: 123, Number: adasCard})
	must(t, err)
	must(t, s.site.Swipe("a-in", frame))
	s.looks()
	s.module.Touch(sim.Finger{Name: "ada left index finger"})
	eventually(t, "the strike is unlocked", func() bool { return seen.state("a.strike") == wires.Unlocked })
	s.module.Lift()

	out := s.gatehouse("enroll", "revoke", "--person", "ada", "--by", "olga", "--config", s.file)
	if !strings.Contains(out, "Every slot is empty") || len(s.module.Stored()) != 0 || len(s.listed()) != 0 {
		t.Errorf("the module has %v after\n%s", s.module.Stored(), out)
	}
	var types []string
	for _, e := range s.records() {
		if r := e.Record; r.Subject == "ada" && r.Type != visitorlog.PassageNotEntered && r.Type != visitorlog.PassageEntered {
			types = append(types, fmt.Sprint(r.Type, " ", r.Data.Factors))
		}
	}
	wantTypes := []string{"gatehouse.enrollment.made []", "gatehouse.decision.granted [badge fingerprint]", "gatehouse.enrollment.revoked []", "gatehouse.operator.action []"}
	if d := cmp.Diff(wantTypes, types); d != "" {
		t.Errorf("- want + recorded:\n%s", d)
	}
	if text := terminal.everything(); strings.Contains(text, "\x1b]") || strings.Contains(text, "panic") {
		t.Errorf("the terminal:\n%s", text)
	}
}

// TestAnEnrolmentThatIsCutOffLeavesNothing ends one by Ctrl-C, by the loss of
// the terminal and by the death of the daemon, each with a finger in the module
// already.
func TestAnEnrolmentThatIsCutOffLeavesNothing(t *testing.T) {
	s := newFingerSite(t)
	for _, how := range []string{"Ctrl-C", "the terminal is lost", "the daemon is stopped", "the daemon dies"} {
		terminal, end := s.enroll("--person", "bob", "--notice", "2026-01", "--door", "a", "--side", "in")
		s.begin(terminal, "bob", bobsCard, bobsOtherCard)
		s.finger(terminal, "bob", "right index finger")
		terminal.until("The right middle finger: put it on the sensor")
		if n := len(s.module.Stored()); n != 1 {
			t.Fatalf("%s: the module has %d fingers", how, n)
		}
		switch how {
		case "Ctrl-C":
			_, err := io.WriteString(terminal.master, "\x03")
			must(t, err)
			terminal.until("stopped at the terminal")
			if status := end(); status != 1 {
				t.Errorf("%s: exit status %d", how, status)
			}
		case "the terminal is lost":
			must(t, s.client.Process.Signal(syscall.SIGHUP)) // as the kernel does
			end()
		case "the daemon is stopped":
			must(t, s.daemon.Process.Signal(syscall.SIGTERM))
			terminal.until("the daemon is ending")
			if status := end(); status != 1 || len(s.module.Stored()) != 0 {
				t.Errorf("%s: exit status %d, and the module has %v", how, status, s.module.Stored())
			}
			s.gone()
			s.start()
		default:
			s.kill()
			terminal.until("the daemon went away")
			if status := end(); status != 1 {
				t.Errorf("%s: exit status %d", how, status)
			}
			s.start()
		}
		eventually(t, how+": nothing is left", func() bool { return len(s.module.Stored()) == 0 && len(s.listed()) == 0 })
	}
	if n := s.count(visitorlog.EnrollmentMade); n != 0 {
		t.Errorf("%d enrolments are recorded", n)
	}
}

func TestEnrolNeedsTheDaemonAndSaysHowToStartIt(t *testing.T) {
	w := newWired(t)
	var errs syncBuffer
	if status := cli.Run(t.Context(), newRoot(), []string{"enroll", "--config", w.file}, io.Discard, &errs); status != 1 || !strings.Contains(errs.String(), "no scanner") {
		t.Errorf("without a scanner: %d, %s", status, errs.String())
	}
	must(t, os.WriteFile(w.file, fmt.Appendf(nil, fingerDoor, "/dev/ttyS0"), 0o600))
	for _, args := range [][]string{
		{"enroll"}, {"enroll", "list"}, {"enroll", "orphans"},
		{"enroll", "revoke", "--person", "ada", "--by", "olga"},
		{"enroll", "copy", "--person", "ada", "--from", "a", "--to", "b", "--by", "olga"},
	} {
		var out, errs syncBuffer
		root := newRoot()
		root.SetIn(strings.NewReader(""))
		status := cli.Run(t.Context(), root, append(args, "--config", w.file), &out, &errs)
		if status != 1 || !strings.Contains(errs.String(), "the daemon does not run") || !strings.Contains(errs.String(), "systemctl start gatehouse") {
			t.Errorf("%v: %d, %s", args, status, errs.String())
		}
	}
	errs = syncBuffer{}
	if status := cli.Run(t.Context(), newRoot(), []string{"enroll", "orphans", "--wipe", "--config", w.file}, io.Discard, &errs); status != 1 || !strings.Contains(errs.String(), "--by") {
		t.Errorf("to wipe without a name: %d, %s", status, errs.String())
	}
}

// TestWhatTheDaemonSaysCannotSteerTheTerminal has a daemon that says what it
// should not.
func TestWhatTheDaemonSaysCannotSteerTheTerminal(t *testing.T) {
	var out syncBuffer
	terminal := &terminal{out: &out}
	terminal.Say("a\x1b[2Jb\nc")
	terminal.Ask("d\x07", []string{"e", "\x1bf"})
	terminal.Progress("g\r", 1, 1)
	if text := out.String(); text != "a?[2Jb?c\nd? [e/?f] " {
		t.Errorf("%q", text)
	}
}

func TestFindingsArePrintedWithWhatToDo(t *testing.T) {
	results := []json.RawMessage{
		json.RawMessage(`{"kind":"slot_without_row","scanner":"a-finger","slot":9}`),
		json.RawMessage(`{"kind":"not_on_allowlist","scanner":"a-finger","slot":3,"person":"ada","part":"left-index"}`),
		json.RawMessage(`{"scanner":"b-finger","why":"it does not answer"}`),
	}
	var out strings.Builder
	must(t, printOrphans(&out, results))
	lines := slices.Collect(strings.Lines(out.String()))
	for i, want := range []string{
		"a-finger, slot 9: slot_without_row: nobody enrolled what is in this slot; it matches nobody: --wipe empties it\n",
		"a-finger, slot 3, left-index of ada: not_on_allowlist: the person is not on the allowlist any more: --wipe revokes it\n",
		"b-finger: not looked into: it does not answer\n",
	} {
		if lines[i] != want {
			t.Errorf("%q, want %q", lines[i], want)
		}
	}
	out.Reset()
	must(t, printOrphans(&out, nil))
	if !strings.HasPrefix(out.String(), "ok: ") {
		t.Errorf("%q", out.String())
	}
}

func TestWhoHasLostTheirBadgeIsOnTheAllowlistStill(t *testing.T) {
	s := newWired(t)
	must(t, os.WriteFile(s.file, fmt.Appendf(nil, fingerDoor, "/dev/null"), 0o600))
	policy := filepath.Join(filepath.Dir(s.file), "policy.toml")
	text := strings.NewReplacer("number = 3 }", `number = 3, state = "lost" }`, "number = 2 }", `number = 2, state = "revoked" }`).Replace(fingerPolicy)
	must(t, os.WriteFile(policy, []byte(text), 0o600))
	if out, err := exec.Command("gatehouse", "allowlist", "import", policy, "--data", s.data).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cfg, err := config.LoadController(s.file, config.Options{Demo: true})
	must(t, err)
	c, err := openForRecords(t.Context(), cfg)
	must(t, err)
	defer c.Close()
	known, err := c.onAllowlist(t.Context(), []string{"ada", "olga", "omar", "eve"})
	must(t, err)
	if d := cmp.Diff(map[string]bool{"ada": true, "olga": true}, known); d != "" {
		t.Errorf("- want + known:\n%s", d)
	}
}

// TestOnlyTheDaemonsUserMayEnrol looks at the socket of a running daemon.
func TestOnlyTheDaemonsUserMayEnrol(t *testing.T) {
	s := newFingerSite(t)
	info, err := os.Stat(filepath.Join(s.data, control.SocketName))
	must(t, err)
	if info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("the socket has mode %v", info.Mode())
	}
	if info, err = os.Stat(filepath.Join(s.data, enrolled.FileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("enrolled.db: %v, %v", info.Mode(), err)
	}
}

// TestDamagedEnrolmentsMatchNobodyAndAreSaid has the daemon start with a file
// that is no database, and with one that others can read.
func TestDamagedEnrolmentsMatchNobodyAndAreSaid(t *testing.T) {
	s := newFingerSite(t)
	must(t, s.daemon.Process.Signal(syscall.SIGTERM))
	s.gone()
	path := filepath.Join(s.data, enrolled.FileName)
	must(t, os.RemoveAll(path+"-wal")) // what SQLite would mend it from
	must(t, os.WriteFile(path, []byte(strings.Repeat("no database. ", 1000)), 0o600))
	s.start()
	out, err := exec.Command("gatehouse", "enroll", "list", "--config", s.file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the enrolments cannot be read") || !strings.Contains(string(out), "enrol again") {
		t.Errorf("%v: %s", err, out)
	}
	f, _ := badge.Builtin().Format("H10301")
	frame, err := f.Encode(badge.Credential{Format: "H10301", Facility: 123, Number: adasCard})
	must(t, err)
	must(t, s.site.Swipe("a-in", frame))
	eventually(t, "Ada is denied", func() bool {
		return slices.ContainsFunc(s.records(), func(e visitorlog.Stored) bool { return e.Record.Data.Reason == access.ReasonFactorUnavailable })
	})
	must(t, s.daemon.Process.Signal(syscall.SIGTERM))
	s.gone()

	cfg, err := config.LoadController(s.file, config.Options{Demo: true})
	must(t, err)
	c, err := openForRecords(t.Context(), cfg)
	must(t, err)
	must(t, c.openEnrolled(t.Context()))
	faults := c.enrolled.Faults(t.Context())
	if len(faults) != 1 || faults[0].Part != "enrolments" || !strings.Contains(faults[0].What, "move it away") {
		t.Errorf("faults %+v", faults)
	}
	must(t, c.enrolled.Close())
	must(t, os.Chmod(path, 0o644))
	if err := c.openEnrolled(t.Context()); !errors.Is(err, enrolled.ErrShared) {
		t.Errorf("the daemon starts though others can read it: %v", err)
	}
	must(t, c.Close())
}

// TestWhoAsksStandsInTheRecord is of a client that is not this command.
func TestWhoAsksStandsInTheRecord(t *testing.T) {
	c := &controller{enrolled: &enrollment{desk: enroll.New(enroll.Options{})}, log: slog.New(slog.DiscardHandler)}
	for _, r := range []control.Request{
		{Do: doRevoke, Args: map[string]string{argPerson: "ada"}},
		{Do: doCopy, Args: map[string]string{argPerson: "ada", argFrom: "a", argTo: "b"}},
		{Do: doOrphans, Args: map[string]string{argWipe: "yes"}},
	} {
		if err := c.serveEnrollment(t.Context(), r, nil); err == nil || !strings.HasPrefix(err.Error(), "--by: ") {
			t.Errorf("%v: %v", r, err)
		}
	}
	if err := c.serveEnrollment(t.Context(), control.Request{Do: doRevoke, Args: map[string]string{argBy: "olga"}}, nil); err == nil || !strings.HasPrefix(err.Error(), "--person: ") {
		t.Errorf("revoked of nobody: %v", err)
	}
}

func TestWhereToEnrolMayBeLeftOutIfThereIsOneSideOnly(t *testing.T) {
	scanner := func(name string, side access.Direction) config.Scanner {
		return config.Scanner{Name: name, Direction: side}
	}
	c := &controller{cfg: &config.Controller{Doors: []config.Door{
		{Name: "hall"},
		{Name: "a", Scanners: []config.Scanner{scanner("a-finger", access.In), scanner("a-iris", access.In)}},
	}}}
	at, err := c.side("", "")
	if err != nil || at.door != 1 || at.side != access.In || !slices.Equal(at.scanners, []string{"a-finger", "a-iris"}) {
		t.Errorf("%+v, %v", at, err)
	}
	for _, wrong := range [][2]string{{"hall", ""}, {"a", "out"}, {"b", ""}} {
		if at, err := c.side(wrong[0], access.Direction(wrong[1])); err == nil || !strings.Contains(err.Error(), "--door a --side in") {
			t.Errorf("%v: %+v, %v", wrong, at, err)
		}
	}
	c.cfg.Doors[1].Scanners = append(c.cfg.Doors[1].Scanners, scanner("a-out", access.Out))
	if at, err := c.side("a", ""); err == nil {
		t.Errorf("one of two sides was chosen: %+v", at)
	}
	if at, err := c.side("", access.Out); err != nil || !slices.Equal(at.scanners, []string{"a-out"}) {
		t.Errorf("%+v, %v", at, err)
	}
}
