package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/gatehouse-acs/gatehouse/test/rig"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// terminal is a person at a terminal, with the demo running in it.
type terminal struct {
	t    *testing.T
	tty  *os.File // the person's end
	far  *os.File // the demo's end, kept open so that its mode can be read
	cmd  *exec.Cmd
	done chan struct{} // closed when the demo has ended
	err  error         // of its end

	mu    sync.Mutex
	shown string
}

// folder is a place for the demo's site.
func folder(t *testing.T) string {
	t.Helper()
	// Not t.TempDir: a socket's path has at most 107 bytes.
	data, err := os.MkdirTemp("", "demo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		rig.Eventually(t, "nothing runs any more", func() bool { return !running(data) })
		if err := os.RemoveAll(data); err != nil {
			t.Error(err)
		}
	})
	return data
}

// watch starts the demo, and waits until it says which keys there are.
func watch(t *testing.T, data string) *terminal {
	t.Helper()
	p := &terminal{t: t, done: make(chan struct{})}
	var err error
	if p.tty, p.far, err = pty.Open(); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(filepath.Join(rig.Programs(t), "gatehouse-demo"), "--data", data)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.far, p.far, p.far
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := p.tty.Read(b)
			p.mu.Lock()
			p.shown += string(b[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		select {
		case <-p.done:
		default:
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it ends its own two programs
			<-p.done
		}
		p.far.Close()
		p.tty.Close()
		if t.Failed() {
			t.Log(p.since(0))
		}
	})
	p.sees(0, `keys: 1 to 9 a card at server-room-a`)
	return p
}

func (p *terminal) since(mark int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown[mark:]
}

// running reports whether there is a process that was told of a folder.
func running(dir string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	for _, path := range all {
		// One that has ended meanwhile has no command line.
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), dir) {
			return true
		}
	}
	return false
}

// press presses keys, and returns a mark of what was on the screen before.
func (p *terminal) press(keys string) (mark int) {
	p.t.Helper()
	mark = len(p.since(0))
	if _, err := p.tty.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
	return mark
}

// seen waits for a line after mark, for as long as that takes at most.
func (p *terminal) seen(mark int, line string, within time.Duration) bool {
	want := regexp.MustCompile(line)
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(rig.Poll) {
		if want.MatchString(p.since(mark)) {
			return true
		}
	}
	return false
}

// sees wants a line after mark.
func (p *terminal) sees(mark int, line string) {
	p.t.Helper()
	if !p.seen(mark, line, rig.Patience) {
		p.t.Fatalf("never on the screen: %s", line)
	}
}

// ended waits for the demo's end and returns its error.
func (p *terminal) ended() error {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(rig.Patience):
		p.t.Fatal("the demo does not end")
	}
	return p.err
}

// asBefore wants the terminal to show again what is typed.
func (p *terminal) asBefore() {
	p.t.Helper()
	mode, err := unix.IoctlGetTermios(int(p.far.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	if mode.Lflag&unix.ECHO == 0 || mode.Lflag&unix.ICANON == 0 {
		p.t.Error("the terminal is left in the mode for single keys")
	}
}

// People come by chance meanwhile, so that a door may be open just when a key
// is about it.
func TestEveryKeyDoesWhatTheHelpSays(t *testing.T) {
	t.Parallel()
	p := watch(t, folder(t))

	mark := p.press("123456789")
	for _, who := range people {
		verdict := "denied: "
		if strings.Contains("1234", string(who.key)) {
			verdict = "granted"
		}
		p.sees(mark, fmt.Sprintf(`server-room-a a-in +%s +\S*%s`, regexp.QuoteMeta(who.String()), verdict))
	}

	// A card that was not away meanwhile is told from the next one.
	mark = p.press("667")
	p.sees(mark, `server-room-a a-in +Tony Hoare, staff +the same card was still there`)
	p.sees(mark, `server-room-a a-in +Kristen Nygaard, staff +\S*denied: revoked`)

	p.sees(p.press("?"), `keys: 1 to 9`)

	// The CRM governs who may enter.
	mark = p.press("+")
	p.sees(mark, `Frances Allen, staff was added at the CRM`)
	p.sees(mark, `server-room-a a-in +Frances Allen, staff +\S*granted`)
	p.sees(mark, `server-room-a a-in +Frances Allen, staff +\S*denied: revoked`)
	mark = p.press("v")
	p.sees(mark, `server-room-b b-in +Katherine Johnson, visitor +\S*denied: escort missing`)
	p.sees(mark, `server-room-b b-in +Katherine Johnson, visitor +\S*granted, with Ada Lovelace`)
	p.sees(mark, `together with p-1001, escort`)
	p.sees(mark, `a code opens once`)

	mark = p.press("f")
	for tries := 0; !p.seen(mark, `server-room-b .*forced`, 5*time.Second); tries++ {
		if tries == 5 {
			t.Fatal("the door is never forced")
		}
		p.press("f")
	}
	mark = p.press("h")
	for tries := 0; !p.seen(mark, `server-room-a .*held`, heldAfter+8*time.Second); tries++ {
		if tries == 5 {
			t.Fatal("the door is never held")
		}
		p.press("h")
	}
	p.sees(p.press("x"), `server-room-a .*request to exit`)

	mark = p.press("l")
	p.sees(mark, `server-room-a .*lockdown`)
	p.sees(mark, `server-room-b .*lockdown`)
	p.sees(p.press("1"), `server-room-a a-in +Ada Lovelace, staff +\S*denied: lockdown`)
	p.sees(p.press("l"), `server-room-a .*lockdown over`)

	// A second factor, and what becomes of those who do not give it.
	const ada = `server-room-c c-in +Ada Lovelace, staff +`
	p.sees(p.press("b"), ada+`\S*granted, badge and fingerprint`)
	p.sees(p.press("w"), ada+`\S*denied: factor mismatch`)
	p.sees(p.press("o"), ada+`\S*denied: factor missing`)
	mark = p.press("t")
	p.sees(mark, ada+`\S*granted, badge and fingerprint`)
	p.sees(mark, `server-room-c +Ada Lovelace, staff +\S*duress`)
	p.sees(p.press("i"), `server-room-d d-in +Ada Lovelace, staff +\S*granted, badge and iris`)
	mark = p.press("p")
	p.sees(mark, `server-room-d d-in .*broken: `)
	p.sees(p.press("i"), `server-room-d: nothing happens`)
	mark = p.press("p")
	p.sees(mark, `server-room-d d-in .*works again`)

	mark = p.press("n")
	p.sees(mark, `the network is cut`)
	p.sees(p.press("9"), `somebody unknown .*waits for the network`)
	mark = p.press("n")
	p.sees(mark, `the network is whole again`)
	p.sees(mark, `nothing was lost`)

	mark = p.press("hq") // with a door held open
	if err := p.ended(); err != nil {
		t.Fatalf("the demo ends with %v", err)
	}
	p.sees(mark, `Ending\.`)
	p.sees(mark, `differences 0`)
	p.asBefore()
}

// A folder of an earlier version has another registry, and is not mended.
func TestAFolderOfAnotherVersionIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	for name, layout := range map[string]string{"none": "", "another": "1\n"} {
		t.Run(name, func(t *testing.T) {
			data := folder(t)
			if err := os.Mkdir(filepath.Join(data, "crm"), 0o700); err != nil {
				t.Fatal(err)
			}
			if layout != "" {
				if err := os.WriteFile(filepath.Join(data, "layout"), []byte(layout), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			said, err := exec.Command(filepath.Join(rig.Programs(t), "gatehouse-demo"), "--once", "--data", data).CombinedOutput()
			if err == nil || !strings.Contains(string(said), "remove the folder") {
				t.Errorf("%v, %s; want to be told to remove the folder", err, said)
			}
		})
	}
}

// Also when records wait for the network. Then it goes on in the same folder.
func TestCtrlCEndsTheDemoInOrder(t *testing.T) {
	t.Parallel()
	data := folder(t)
	p := watch(t, data)
	p.sees(p.press("n9"), `somebody unknown .*waits for the network`)
	mark := p.press("\x03")
	if err := p.ended(); err != nil {
		t.Errorf("the demo ends with %v", err)
	}
	p.sees(mark, `differences 0`)
	p.asBefore()

	p = watch(t, data)
	p.sees(p.press("9"), `somebody unknown`)
	mark = p.press("q")
	if err := p.ended(); err != nil {
		t.Errorf("the demo, in the same folder, ends with %v", err)
	}
	p.sees(mark, `differences 0`)
}

// While the demo still verifies its logs, a second Ctrl-C ends it at once.
func TestASecondCtrlCEndsTheDemoAtOnce(t *testing.T) {
	t.Parallel()
	p := watch(t, folder(t))
	p.sees(p.press("n"), `the network is cut`)
	p.sees(p.press("\x03"), `Ending\.`)
	mark := p.press("\x03")
	err := p.ended()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("the demo ends with %v, want status 130", err)
	}
	p.sees(mark, `interrupted again: ending at once`)
	p.asBefore()
}
