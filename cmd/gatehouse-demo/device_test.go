package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// tryOut is a device that a person tries, with the program in this process.
type tryOut struct {
	t     *testing.T
	port  string // its --link
	types *io.PipeWriter
	stop  context.CancelFunc
	done  chan int // its exit status

	mu   sync.Mutex
	said strings.Builder
}

func (d *tryOut) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.said.Write(b)
}

func (d *tryOut) all() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.said.String()
}

// begin starts gatehouse-demo with args, and waits until the device is there.
func begin(t *testing.T, args ...string) *tryOut {
	t.Helper()
	t.Parallel() // they mostly wait
	in, types := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	d := &tryOut{t: t, port: filepath.Join(t.TempDir(), "port"), types: types, stop: cancel, done: make(chan int, 1)}
	root := newRoot()
	root.SetIn(in)
	go func() { d.done <- cli.Run(ctx, root, append(args, "--link", d.port), d, d) }()
	t.Cleanup(func() {
		cancel()
		d.ended()
		if t.Failed() {
			t.Log(d.all())
		}
	})
	d.says("help shows what can be done to it")
	return d
}

// command types a command.
func (d *tryOut) command(line string) {
	d.t.Helper()
	if _, err := io.WriteString(d.types, line+"\n"); err != nil {
		d.t.Fatal(err)
	}
}

// says waits until something was said.
func (d *tryOut) says(words string) {
	d.t.Helper()
	rig.Eventually(d.t, "it says "+words, func() bool { return strings.Contains(d.all(), words) })
}

// ended waits for the end, which must be a good one, and nothing be left.
func (d *tryOut) ended() {
	d.t.Helper()
	status := <-d.done
	d.done <- status
	if status != 0 {
		d.t.Errorf("exit status %d, want 0", status)
	}
	if _, err := os.Lstat(d.port); !errors.Is(err, fs.ErrNotExist) {
		d.t.Errorf("the link is left: %v", err)
	}
}

func TestADeviceEndsWithCtrlCWithTheInputAndWithQuit(t *testing.T) {
	for _, args := range [][]string{{"reader", "--fault", "power-loss:600"}, {"module", "--family", "zfm"}} {
		for how, end := range map[string]func(d *tryOut){
			"Ctrl-C": func(d *tryOut) { d.stop() },
			"input":  func(d *tryOut) { d.types.Close() },
			"quit":   func(d *tryOut) { d.command("quit") },
		} {
			t.Run(args[0]+" "+how, func(t *testing.T) {
				d := begin(t, args...)
				if to, err := os.Readlink(d.port); err != nil || !strings.HasPrefix(to, "/dev/pts/") {
					t.Errorf("the link leads to %q, %v", to, err)
				}
				end(d)
				d.ended()
			})
		}
	}
}

func TestADeviceSaysWhatIsWrongWithItsFlags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const digits = "0102030405060708090a0b0c0d0e0f10"
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"reader", "--address", "127"}, "127 is not an address: they are 0 to 126"},
		{[]string{"reader", "--baud", "1200"}, "1200 is not one of"},
		{[]string{"reader", "--fault", "gremlin"}, `unknown fault "gremlin": there are [drop `},
		{[]string{"reader", "--fault", "drop:many"}, "behind the colon stands a number"},
		{[]string{"reader", "--fault", "drop:-1"}, "behind the colon stands a number"},
		{[]string{"reader", "--key-file", write("open", digits, 0o644)}, "chmod 600"},
		{[]string{"reader", "--key-file", write("short", digits[2:], 0o600)}, "a key has 32 hexadecimal digits"},
		{[]string{"reader", "--key-file", write("default", "303132333435363738393a3b3c3d3e3f", 0o600)}, "a key that everybody knows"},
		{[]string{"reader", "--key-file", dir}, "is not a regular file"},
		{[]string{"reader", "--key-file", dir + "/a", "--key-file", dir + "/b"}, "more files (2) than readers (1)"},
		{[]string{"reader", "--link", write("taken", "", 0o600)}, "is there already: remove it, or give another name"},
		{[]string{"module"}, "give --family zfm, sfm or gt521"},
		{[]string{"module", "--family", "r503"}, `there is no "r503": give zfm, sfm or gt521`},
		{[]string{"module", "--family", "sfm", "--fault", "busy"}, `unknown fault "busy"`},
	} {
		var said strings.Builder
		root := newRoot()
		root.SetIn(strings.NewReader(""))
		status := cli.Run(t.Context(), root, test.args, io.Discard, &said)
		if status != 1 || !strings.Contains(said.String(), test.want) || strings.Contains(said.String(), digits[2:]) {
			t.Errorf("%v: status %d, %q, want 1 and %q", test.args, status, said.String(), test.want)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "taken")); err != nil {
		t.Errorf("what had the name of the link is gone: %v", err)
	}
}

func TestACommandThatMakesNoSenseSaysWhatToWrite(t *testing.T) {
	for kind, test := range map[string]struct {
		args  []string
		wants map[string]string
	}{
		"reader": {[]string{"reader", "--address", "0", "--address", "3"}, map[string]string{
			"card H10301:1:2":      "which reader? Write its address first, such as: 0 card",
			"7 card H10301:1:2":    "there is no reader at address 7",
			"3":                    "behind the address stands a command",
			"0 open":               `there is no command "open": help shows`,
			"0 card":               "write: card FORMAT:facility:number",
			"0 card H10301:1":      "has a facility: write H10301:facility:number, or its bits as 0 and 1",
			"0 keys 47A":           "write: keys 4711#",
			"0 tamper maybe":       "write: tamper on, or tamper off",
			"0 power":              "write: power on, or power off",
			"0 finger":             "write: finger NAME",
			"0 eye ada left thumb": "write: eye NAME, or eye NAME and one of [right iris left iris]",
			"0 fault":              "write: fault NAME",
			"0 fault drop:x":       "behind the colon",
		}},
		"module": {[]string{"module", "--family", "gt521"}, map[string]string{
			"touch":          "write: touch NAME",
			"touch ada soft": "write: touch NAME",
			"away":           `there is no command "away"`,
			"fault gremlin":  `unknown fault "gremlin"`,
		}},
	} {
		t.Run(kind, func(t *testing.T) {
			d := begin(t, test.args...)
			for line, want := range test.wants {
				d.command(line)
				d.says(want)
			}
		})
	}
}
