// Package systemd tells the service manager how the program is: ready,
// stopping, and alive. Outside systemd it does nothing.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the program does its work now, with a line for
// `systemctl status`.
func Ready(status string) error { return notify(daemon.SdNotifyReady, "STATUS="+oneLine(status)) }

// Stopping says that the program ends.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

func notify(lines ...string) error {
	state := ""
	for i, l := range lines {
		if i > 0 {
			state += "\n"
		}
		state += l
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	return nil
}

// oneLine keeps a text from adding assignments of its own.
func oneLine(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' {
			b[i] = ' '
		}
	}
	return string(b)
}

// Watchdog pings the service manager until ctx ends, three times in each
// WatchdogSec and only while alive returns nil. If alive returns an error, or
// hangs, the pings stop and systemd restarts the program: alive should ask the
// parts that a restart can mend, and not the state of the hardware or the
// network. Without WatchdogSec it returns at once.
func Watchdog(ctx context.Context, alive func() error, log *slog.Logger) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("reading WATCHDOG_USEC: %w", err)
	}
	if limit == 0 {
		return nil
	}
	t := time.NewTicker(max(limit/3, time.Millisecond))
	defer t.Stop()
	var failing bool
	for {
		if err := alive(); err != nil {
			if !failing {
				log.Error("no longer alive: systemd will restart the program", "error", err, "within", limit)
			}
			failing = true
		} else {
			failing = false
			if err := notify(daemon.SdNotifyWatchdog); err != nil {
				log.Warn("a watchdog ping was lost", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
