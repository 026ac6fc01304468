package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
)

// commandLine runs a command line and returns its exit status and what it wrote.
func commandLine(t *testing.T, stdout io.Writer, stdin string, args ...string) (status int, stderr string) {
	t.Helper()
	var said bytes.Buffer
	root := newRoot()
	root.SetIn(strings.NewReader(stdin))
	status = cli.Run(context.Background(), root, args, stdout, &said)
	return status, said.String()
}

// newCRM sets a CRM up with a door and a person who has a card and a PIN, and
// returns its folder and the flags of a change.
func newCRM(t *testing.T) (dir string, change []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "crm")
	change = []string{"--data", dir, "--by", "m.jansen", "--why", "CHG-1"}
	if status, stderr := commandLine(t, io.Discard, "", "pki", "init", "--data", dir, "--host", "localhost"); status != 0 {
		t.Fatal(stderr)
	}
	for _, c := range []struct {
		stdin string
		args  []string
	}{
		{"", []string{"doors", "add", "front", "--controller", "north-1"}},
		{"", []string{"groups", "add", "ops", "--right", "front@always"}},
		{"", []string{"people", "add", "p-1", "--group", "ops"}},
		{"H10301:12:4711\n", []string{"credentials", "add", "--person", "p-1", "--id", "c-1"}},
		{"271828\n314159\n", []string{"people", "pin", "p-1"}},
	} {
		if status, stderr := commandLine(t, io.Discard, c.stdin, append(c.args, change...)...); status != 0 {
			t.Fatalf("%v: %s", c.args, stderr)
		}
	}
	return dir, change
}

func TestOnlyAnExportHasACardsNumberOrAPIN(t *testing.T) {
	dir, change := newCRM(t)
	var seen bytes.Buffer
	for _, args := range [][]string{
		{"people", "list"}, {"people", "show", "p-1"}, {"people", "change", "p-1", "--extended"},
		{"credentials", "list"}, {"credentials", "change", "c-1", "--state", "lost"}, {"credentials", "find"},
		{"registry", "audit"}, {"registry", "export", "--controller", "north-1", "--out", filepath.Join(dir, "north-1.toml")}, {"people", "remove", "p-1"},
	} {
		flags := []string{"--data", dir}
		if cmd, _, err := newRoot().Find(args); err != nil || cmd.Flags().Lookup("why") != nil {
			flags = change
		}
		for _, form := range [][]string{nil, {"--json"}} {
			if form != nil && args[1] == "remove" {
				continue // who has left does not leave again
			}
			status, stderr := commandLine(t, &seen, "H10301:12:4711\n", slices.Concat(args, flags, form)...)
			if status != 0 {
				t.Fatalf("%v: %s", args, stderr)
			}
			seen.WriteString(stderr)
		}
	}
	// And where something is wrong.
	_, stderr := commandLine(t, &seen, "H10301:12:4711\n", append([]string{"credentials", "add", "--person", "p-1"}, change...)...)
	seen.WriteString(stderr)
	for _, secret := range []string{"4711", "271828", "314159"} {
		if strings.Contains(seen.String(), secret) {
			t.Errorf("%s is shown", secret)
		}
	}
}

func TestCardNumbersAreNotPrintedOnATerminalUnasked(t *testing.T) {
	_, change := newCRM(t)
	with := func(args ...string) []string { return append(args, change...) }
	screen, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	defer terminal.Close()
	status, stderr := commandLine(t, terminal, "", with("registry", "export", "--controller", "north-1")...)
	if status == 0 || !strings.Contains(stderr, "not printed on a terminal") {
		t.Errorf("status %d: %s", status, stderr)
	}
	if status, stderr := commandLine(t, terminal, "", with("registry", "export", "--controller", "north-1", "--force")...); status != 0 {
		t.Errorf("with --force: %s", stderr)
	}
	if err := screen.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	shown := make([]byte, 4096)
	n, err := screen.Read(shown)
	if err != nil || strings.Count(string(shown[:n]), "4711") != 1 {
		t.Errorf("on the screen: %q, %v", shown[:n], err)
	}

	out := filepath.Join(t.TempDir(), "north-1.toml")
	if err := os.WriteFile(out, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if status, stderr := commandLine(t, terminal, "", with("registry", "export", "--controller", "north-1", "--out", out)...); status != 0 {
		t.Errorf("into a file: %s", stderr)
	}
	info, err := os.Stat(out)
	if err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Errorf("the file's mode is %v (%v)", info.Mode(), err)
	}
}

func TestWhatIsMadeForSomebodyIsShownOnceOnATerminalAlone(t *testing.T) {
	_, change := newCRM(t)
	now := time.Now().UTC()
	for _, args := range [][]string{
		{"people", "add", "p-2"}, {"people", "add", "v-1", "--kind", "visitor"},
		{"visits", "add", "visit-1", "--visitor", "v-1", "--organisation", "Acme", "--host", "p-1", "--authoriser", "p-2", "--purpose", "mend", "--door", "front",
			"--from", now.Format(time.RFC3339), "--until", now.Add(time.Hour).Format(time.RFC3339)},
	} {
		if status, stderr := commandLine(t, io.Discard, "", append(args, change...)...); status != 0 {
			t.Fatalf("%v: %s", args, stderr)
		}
	}
	for _, c := range []struct {
		args []string
		want string // on the terminal
	}{
		{[]string{"people", "totp", "p-1"}, `^otpauth://totp/Gatehouse:p-1\?secret=([A-Z2-7]{32})&[^\r\n]*\r\nChanged person p-1, version 3.\r\n$`},
		{[]string{"visits", "code", "visit-1"}, `^(\d{8})\r\nIssued code code-\w+, version 1.\r\n$`},
	} {
		args := append(c.args, change...)
		var piped bytes.Buffer
		if status, stderr := commandLine(t, &piped, "", args...); status == 0 || piped.Len() > 0 || !strings.Contains(stderr, "on a terminal only") {
			t.Errorf("%v into a pipe: status %d, %q, %s", c.args, status, &piped, stderr)
		}
		screen, terminal, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer screen.Close()
		status, stderr := commandLine(t, terminal, "", args...)
		if err := terminal.Close(); status != 0 || err != nil {
			t.Fatalf("%v: %s (%v)", c.args, stderr, err)
		}
		shown, _ := io.ReadAll(screen) // ends with an error, as the terminal is closed
		made := regexp.MustCompile(c.want).FindSubmatch(shown)
		if made == nil {
			t.Errorf("%v shows %q", c.args, shown)
			continue
		}
		for _, args := range [][]string{{"people", "show", "p-1"}, {"visits", "codes", "visit-1"}, {"visits", "show", "visit-1"}, {"registry", "audit"}} {
			var seen bytes.Buffer
			status, stderr := commandLine(t, &seen, "", append(args, "--data", change[1])...)
			if status != 0 || bytes.Contains(seen.Bytes(), made[1]) {
				t.Errorf("%v shows what was made: status %d, %s", args, status, stderr)
			}
		}
	}
}
