package guest_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// parts are what the tests of this package boot and run.
type parts struct {
	kernel string
	init   string // the guest's first program
	arm64  string // the folder of the controller's programs
	host   string // the folder of this machine's own
}

var dir string // of what is built

func TestMain(m *testing.M) {
	var err error
	if dir, err = os.MkdirTemp("", "gatehouse-guest-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// build builds everything, once.
var build = sync.OnceValues(func() (*parts, error) {
	for command, pack := range map[string]string{
		"qemu-system-aarch64":   "qemu-system-arm",
		"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu and libc6-dev-arm64-cross",
		"make":                  "make",
	} {
		if _, err := exec.LookPath(command); err != nil {
			return nil, fmt.Errorf("%s is missing: install Debian's %s, or run: test/packages test", command, pack)
		}
	}
	p := &parts{init: filepath.Join(dir, "init"), arm64: filepath.Join(dir, "arm64"), host: filepath.Join(dir, "host")}
	if err := os.Mkdir(p.host, 0o700); err != nil {
		return nil, err
	}
	// The kernel may be in the making since `make test` began.
	kernel, err := output(exec.Command("./kernel"))
	p.kernel = string(bytes.TrimSpace(kernel))
	small := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", p.init, "./init")
	small.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{
		small,
		exec.Command("make", "-C", "../..", "build-arm64", "OUT="+p.arm64),
		exec.Command("go", "build", "-o", p.host+"/", "../../cmd/gatehouse", "../../cmd/gatehouse-crm"),
	} {
		_, failed := output(cmd)
		err = errors.Join(err, failed)
	}
	return p, err
})

// needed are the parts, without which a test fails.
func needed(t *testing.T) *parts {
	t.Helper()
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", cmd, err, &out, &errs)
	}
	return out.Bytes(), nil
}

// tool runs one of this machine's programs, which must succeed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := output(exec.Command(filepath.Join(needed(t).host, name), args...))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
