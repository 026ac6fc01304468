// Package mosquitto starts a real Mosquitto for tests, with the configuration
// that configs/mosquitto gives to users.
package mosquitto

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startWithin = 10 * time.Second
	stopWithin  = 10 * time.Second
	signalAgain = 500 * time.Millisecond
)

const aclFile = "acl" // in the broker's folder

// Files are the paths of the PEM files that the broker uses.
type Files struct{ CA, Cert, Key string }

// Broker is a running Mosquitto.
type Broker struct {
	Addr string // host:port, on loopback
	dir  string
	conf string
	cmd  *exec.Cmd
	exit chan struct{} // closed when the process has ended
	err  error         // of its end
	out  *output
}

// Binary finds Mosquitto: Debian installs it where only root's PATH leads.
func Binary() (string, error) {
	if path, err := exec.LookPath("mosquitto"); err == nil {
		return path, nil
	}
	const debian = "/usr/sbin/mosquitto"
	if _, err := os.Stat(debian); err != nil {
		return "", errors.New("mosquitto is not installed (apt-get install mosquitto)")
	}
	return debian, nil
}

// Start runs Mosquitto in dir, an empty folder that the caller removes, on a
// free port of 127.0.0.1, and returns when it accepts connections.
func Start(dir string, f Files) (*Broker, error) {
	b := &Broker{dir: dir, conf: filepath.Join(dir, "mosquitto.conf")}
	for {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		b.Addr = fmt.Sprintf("127.0.0.1:%d", port)
		text, err := config(port, dir, f)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(b.conf, []byte(text), 0o600); err != nil {
			return nil, err
		}
		// Another test may have taken the port meanwhile.
		if err = b.Restart(); !errors.Is(err, errPortTaken) {
			return b, err
		}
	}
}

var errPortTaken = errors.New("the port is taken")

// Restart starts a stopped broker again, on the same port and knowing nothing
// of before.
func (b *Broker) Restart() error {
	binary, err := Binary()
	if err != nil {
		return err
	}
	b.out = &output{}
	b.exit = make(chan struct{})
	b.cmd = exec.Command(binary, "-c", b.conf)
	b.cmd.Dir = b.dir
	b.cmd.Stdout, b.cmd.Stderr = b.out, b.out
	if err := b.cmd.Start(); err != nil {
		return err
	}
	cmd, exit := b.cmd, b.exit
	go func() {
		b.err = cmd.Wait()
		close(exit)
	}()
	for end := time.Now().Add(startWithin); time.Now().Before(end); {
		// By its own word and not by a connection, which another process on
		// that port would accept, too.
		if strings.Contains(b.Log(), " running\n") {
			return nil
		}
		select {
		case <-b.exit:
			if strings.Contains(b.Log(), "Address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("mosquitto ended at once (%w):\n%s", b.err, b.Log())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return errors.Join(fmt.Errorf("mosquitto does not get ready:\n%s", b.Log()), b.Kill())
}

// Stop ends the broker as systemd would.
func (b *Broker) Stop() error { return b.signal(syscall.SIGTERM) }

// Kill ends the broker as a power cut would.
func (b *Broker) Kill() error { return b.signal(syscall.SIGKILL) }

// signal ends the process. Mosquitto forgets a signal that arrives between its
// saying that it runs and its doing so, therefore it is sent again.
func (b *Broker) signal(sig os.Signal) error {
	for end := time.Now().Add(stopWithin); time.Now().Before(end); {
		select {
		case <-b.exit:
			return nil
		default:
		}
		if err := b.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-b.exit:
			return nil
		case <-time.After(signalAgain):
		}
	}
	err := b.cmd.Process.Kill()
	<-b.exit
	return errors.Join(fmt.Errorf("mosquitto did not end on %s", sig), err)
}

// Rules are the access rules in force.
func (b *Broker) Rules() (string, error) {
	rules, err := os.ReadFile(b.acl())
	return string(rules), err
}

// SetRules puts others in force, as an administrator would.
func (b *Broker) SetRules(rules string) error {
	if err := os.WriteFile(b.acl(), []byte(rules), 0o600); err != nil {
		return err
	}
	return b.cmd.Process.Signal(syscall.SIGHUP)
}

func (b *Broker) acl() string { return filepath.Join(b.dir, aclFile) }

// Log returns what Mosquitto has written since its start.
func (b *Broker) Log() string { return b.out.String() }

// config is the users' mosquitto.conf with the paths, the port and the user of
// the test. A setting that is missing in it is an error: the test would run
// something else than it says.
func config(port int, dir string, f Files) (string, error) {
	configs, err := Configs()
	if err != nil {
		return "", err
	}
	raw, err := os.ReadFile(filepath.Join(configs, "mosquitto.conf"))
	if err != nil {
		return "", err
	}
	// Read by Mosquitto after it has given up root's rights, if it has them.
	acl := filepath.Join(dir, aclFile)
	rules, err := os.ReadFile(filepath.Join(configs, "acl"))
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(acl, rules, 0o600); err != nil {
		return "", err
	}
	set := map[string]string{
		"listener": fmt.Sprintf("%d 127.0.0.1", port),
		"cafile":   f.CA,
		"certfile": f.Cert,
		"keyfile":  f.Key,
		"acl_file": acl,
	}
	lines := strings.Split(string(raw), "\n")
	for i, line := range lines {
		key, _, _ := strings.Cut(line, " ")
		if value, ok := set[key]; ok {
			lines[i] = key + " " + value
			delete(set, key)
		}
	}
	if len(set) > 0 {
		return "", fmt.Errorf("configs/mosquitto/mosquitto.conf lacks settings: %v", set)
	}
	me, err := user.Current()
	if err != nil {
		return "", err
	}
	lines = append(lines, "user "+me.Username, "log_type information", "")
	return strings.Join(lines, "\n"), nil
}

// Configs is the folder configs/mosquitto of this repository.
func Configs() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("this file's own path is not known")
	}
	return filepath.Join(filepath.Dir(file), "..", "..", "configs", "mosquitto"), nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// output collects what the process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
