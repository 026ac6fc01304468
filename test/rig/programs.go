// Package rig runs the real programs for tests: a CRM and its controllers, each
// a process with files of its own, set up by the programs' own commands.
package rig

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// Patience is how long a test waits for what must happen; only one that
	// fails waits so long.
	Patience = 90 * time.Second
	// Poll is how often it looks.
	Poll = 20 * time.Millisecond
)

// BuiltEnv names a folder of built programs, for packages that are tested
// together and for a test that runs again in a process of its own.
const BuiltEnv = "GATEHOUSE_TEST_PROGRAMS"

var built string // what Main removes

var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(BuiltEnv); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "gatehouse-test-")
	if err != nil {
		return "", err
	}
	built = dir
	out, err := exec.Command("go", "build", "-o", dir+"/", "github.com/gatehouse-acs/gatehouse/cmd/...").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

// Main runs a package's tests, several at once, for they mostly wait; and removes
// the programs that they built. It returns the exit status.
func Main(m *testing.M) int {
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if built != "" {
		if err := os.RemoveAll(built); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}

// Programs builds the programs, once for all tests of a package, and returns
// their folder, which Main removes.
func Programs(t testing.TB) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Run runs one of the programs to its end.
func Run(t testing.TB, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(Programs(t), name), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// Tool runs one of the programs, which must succeed, as a person would at a
// shell, and returns what it printed.
func Tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	stdout, stderr, err := Run(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// Eventually waits for what must happen.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(Poll) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// Write writes a file that is the owner's alone.
func Write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
