package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	stopWait   = 10 * time.Second // from SIGTERM to SIGKILL
	maxLogLine = 1 << 20
	keptLines  = 20 // of a process's log, shown when it dies
)

// program finds one of the programs beside this one.
func program(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not beside this program; `make build` puts all three into bin/: %w", name, err)
	}
	return path, nil
}

// tool runs one of the programs to its end, as a person would at a shell.
func tool(ctx context.Context, name string, args ...string) (string, error) {
	return toolWith(ctx, "", name, args...)
}

// toolWith is tool of a program that is told something at its standard input.
func toolWith(ctx context.Context, stdin, name string, args ...string) (string, error) {
	path, err := program(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// daemon is a running gatehouse or gatehouse-crm.
type daemon struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid once done is closed
	tail []string
}

// startDaemon starts a program; each line of its log goes to line and to the
// file at logPath.
func startDaemon(name, logPath string, line func([]byte), args ...string) (*daemon, error) {
	path, err := program(name)
	if err != nil {
		return nil, err
	}
	kept, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	d := &daemon{name: name, cmd: exec.Command(path, args...), done: make(chan struct{})}
	// A group of its own: Ctrl-C reaches this program, which ends the others in order.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	logs, err := d.cmd.StderrPipe()
	if err != nil {
		kept.Close()
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		kept.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(d.done)
		defer kept.Close()
		lines := bufio.NewScanner(logs)
		lines.Buffer(nil, maxLogLine)
		for lines.Scan() {
			fmt.Fprintf(kept, "%s\n", lines.Bytes())
			d.tail = append(d.tail, lines.Text())
			d.tail = d.tail[max(0, len(d.tail)-keptLines):]
			line(lines.Bytes())
		}
		io.Copy(kept, logs) // after a line too long to scan the process must not block on its log
		d.err = d.cmd.Wait()
	}()
	return d, nil
}

// Stop asks the process to end and waits for it.
func (d *daemon) Stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.done:
	case <-time.After(stopWait):
		d.cmd.Process.Kill()
		<-d.done
		return fmt.Errorf("%s did not end within %v of being asked and was killed", d.name, stopWait)
	}
	if d.err != nil {
		return d.died()
	}
	return nil
}

// died says how a process ended, with the end of its log.
func (d *daemon) died() error {
	return fmt.Errorf("%s ended: %v; the end of its log:\n  %s", d.name, d.err, strings.Join(d.tail, "\n  "))
}
