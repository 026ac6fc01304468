package systemd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager listens where systemd would.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

// told is the next message, or "" if none comes within the wait.
func told(t *testing.T, c *net.UnixConn, wait time.Duration) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestSystemdIsToldOfEachState(t *testing.T) {
	c := manager(t)
	for _, tt := range []struct {
		tell func() error
		want string
	}{
		{func() error { return Ready("2 doors") }, "READY=1\nSTATUS=2 doors"},
		{func() error { return Ready("a line\nSTOPPING=1") }, "READY=1\nSTATUS=a line STOPPING=1"},
		{Stopping, "STOPPING=1"},
	} {
		if err := tt.tell(); err != nil {
			t.Fatal(err)
		}
		if got := told(t, c, 5*time.Second); got != tt.want {
			t.Errorf("told %q, want %q", got, tt.want)
		}
	}
}

func TestOutsideSystemdNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	if err := errors.Join(Ready("x"), Stopping()); err != nil {
		t.Error(err)
	}
	err := Watchdog(t.Context(), func() error { t.Error("asked for a sign of life"); return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Error(err)
	}
}

func TestAManagerThatIsGoneIsAnError(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := Ready("x"); err == nil {
		t.Error("nobody was told, and nobody said so")
	}
}

func TestTheWatchdogIsPingedOnlyWhileAlive(t *testing.T) {
	c := manager(t)
	t.Setenv("WATCHDOG_USEC", "60000") // a ping every 20 ms
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	var dead atomic.Bool
	var out strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Watchdog(ctx, func() error {
			if dead.Load() {
				return errors.New("the records' writer is stuck")
			}
			return nil
		}, slog.New(slog.NewTextHandler(&out, nil)))
	}()
	for range 3 {
		if got := told(t, c, 5*time.Second); got != "WATCHDOG=1" {
			t.Fatalf("told %q, want a ping", got)
		}
	}
	dead.Store(true)
	for told(t, c, 200*time.Millisecond) != "" { // what was already on the way
		if t.Context().Err() != nil {
			t.Fatal("pinged for ever though not alive")
		}
	}
	dead.Store(false)
	if got := told(t, c, 5*time.Second); got != "WATCHDOG=1" {
		t.Errorf("alive again: told %q, want a ping", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(out.String(), "the records' writer is stuck"); n != 1 {
		t.Errorf("said %d times why, want once:\n%s", n, out.String())
	}
}

func TestABadWatchdogTimeIsAnError(t *testing.T) {
	for _, v := range []string{"soon", "-1", "0"} {
		t.Setenv("WATCHDOG_USEC", v)
		if err := Watchdog(t.Context(), func() error { return nil }, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("WATCHDOG_USEC=%s was taken", v)
		}
	}
}
