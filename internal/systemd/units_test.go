package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// units are the unit files, by name, with the settings of each in order.
func units(t *testing.T) map[string][]string {
	t.Helper()
	found, err := filepath.Glob("../../configs/*.service")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("there is no unit file")
	}
	all := map[string][]string{}
	for _, path := range found {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				all[filepath.Base(path)] = append(all[filepath.Base(path)], line)
			}
		}
	}
	return all
}

// command is what a unit runs, which is not installed where tests run.
var command = regexp.MustCompile(`(?m)^(Exec\w+)=\S+`)

// analyze runs systemd-analyze and returns what it says.
func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_PAGER=", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSystemdFindsNothingWrongWithTheUnits(t *testing.T) {
	for name, lines := range units(t) {
		path := filepath.Join(t.TempDir(), name)
		unit := command.ReplaceAllString(strings.Join(lines, "\n")+"\n", "$1=/bin/true")
		if err := os.WriteFile(path, []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := analyze(t, "verify", "--man=no", path); err != nil || out != "" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		// systemd's own measure of what a service could reach, from 0 to 10.
		if out, err := analyze(t, "security", "--offline=true", "--threshold=20", path); err != nil {
			t.Errorf("%s is exposed: %v\n%s", name, err, out)
		}
	}
}

func TestUnitsCheckTheConfigurationAndAreStartedAgain(t *testing.T) {
	for name, lines := range units(t) {
		program := strings.TrimSuffix(name, ".service")
		file := "/etc/gatehouse/" + program + ".toml"
		for _, want := range []string{
			"Type=notify", "Restart=always", "StartLimitIntervalSec=0", "WatchdogSec=30",
			"ProtectSystem=strict", "NoNewPrivileges=yes", "StateDirectory=" + program, "StateDirectoryMode=0700", "UMask=0077",
			"ExecStartPre=/usr/local/bin/" + program + " check --config " + file,
			"ExecStart=/usr/local/bin/" + program + " run --config " + file,
		} {
			if !slices.Contains(lines, want) {
				t.Errorf("%s lacks %s", name, want)
			}
		}
		if _, err := os.Stat("../../configs/" + program + ".toml"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheDoorsUnitReachesItsWiresAndLeavesThemSafe(t *testing.T) {
	door := units(t)["gatehouse.service"]
	for _, want := range []string{
		"ExecStopPost=/usr/local/bin/gatehouse io safe --config /etc/gatehouse/gatehouse.toml",
		"DevicePolicy=closed", "DeviceAllow=char-gpiochip rw", "SupplementaryGroups=gpio",
	} {
		if !slices.Contains(door, want) {
			t.Errorf("gatehouse.service lacks %s", want)
		}
	}
	if slices.Contains(door, "PrivateDevices=yes") {
		t.Error("gatehouse.service hides the GPIO chips")
	}
}

func TestTheDoorsUnitReachesNoSerialPortUntilItIsTold(t *testing.T) {
	doc, err := os.ReadFile("../../configs/gatehouse.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range units(t)["gatehouse.service"] {
		if device, ok := strings.CutPrefix(line, "DeviceAllow="); ok && device != "char-gpiochip rw" {
			t.Errorf("gatehouse.service allows %s", device)
		}
	}
	told := string(doc)
	for _, line := range []string{"DeviceAllow=/dev/ttyAMA2 rw", "DeviceAllow=char-ttyUSB rw", "DeviceAllow=char-ttyACM rw", "SupplementaryGroups=dialout"} {
		if !strings.Contains(told, "\n#"+line+"\n") {
			t.Errorf("gatehouse.service does not show how to say %s", line)
		}
		told = strings.Replace(told, "#"+line, line, 1)
	}
	path := filepath.Join(t.TempDir(), "gatehouse.service")
	if err := os.WriteFile(path, []byte(told), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := analyze(t, "security", "--offline=true", "--threshold=20", path); err != nil {
		t.Errorf("told of serial ports it is exposed: %v\n%s", err, out)
	}
}

// calls are the system calls that a unit allows.
func calls(t *testing.T, lines []string) map[string]bool {
	t.Helper()
	allowed := map[string]bool{}
	var set func(name string, to bool)
	set = func(name string, to bool) {
		if !strings.HasPrefix(name, "@") {
			allowed[name] = to
			return
		}
		out, err := analyze(t, "syscall-filter", name)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		for i, line := range strings.Split(out, "\n") {
			if line = strings.TrimSpace(line); i > 0 && line != "" && line[0] != '#' {
				set(line, to)
			}
		}
	}
	for _, line := range lines {
		list, ok := strings.CutPrefix(line, "SystemCallFilter=")
		if !ok {
			continue
		}
		list, deny := strings.CutPrefix(list, "~")
		for _, name := range strings.Fields(list) {
			set(name, !deny)
		}
	}
	return allowed
}

func TestUnitsAllowTheSystemCallsThatTheProgramsNeed(t *testing.T) {
	needs := []string{"openat", "fsync", "fdatasync", "renameat", "fcntl", "flock", "pread64", "pwrite64", "ftruncate", "mmap", "futex", "clone3", "epoll_pwait", "socket", "bind", "accept4", "clock_gettime", "getrandom"}
	all := units(t)
	for name, lines := range all {
		allowed := calls(t, lines)
		for _, call := range needs {
			if !allowed[call] {
				t.Errorf("%s forbids %s", name, call)
			}
		}
		for _, call := range []string{"settimeofday", "clock_settime", "mount", "ptrace", "reboot", "init_module"} {
			if allowed[call] {
				t.Errorf("%s allows %s", name, call)
			}
		}
	}
	// Rule: time is doubted. The door controller has to see its clock's state.
	door := all["gatehouse.service"]
	if !calls(t, door)["adjtimex"] {
		t.Error("gatehouse.service forbids adjtimex")
	}
	for _, line := range []string{"ProtectClock=yes", "ProcSubset=pid"} {
		if slices.Contains(door, line) {
			t.Errorf("gatehouse.service hides the clock's state by %s", line)
		}
	}
}
