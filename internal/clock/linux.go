package clock

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// system is the machine's clocks.
type system interface {
	now() time.Time
	uptime() time.Duration
	kernel() (Kernel, error)
	boot() (string, error)
	platform() platform
}

// platform is what vouches for the clock besides the kernel. It is read at
// start and after each step: sysfs is too slow for every badge.
type platform struct {
	kept         bool          // see Evidence.Kept
	synchronised bool          // a time service says that it has set the clock since boot
	rtcRead      time.Time     // what the real-time clock read
	rtcAt        time.Duration // the time since boot then
}

// rtc is what the real-time clock reads now. It is counted on by the time
// since boot, which does not follow when somebody sets the system's clock.
func (p platform) rtc(uptime time.Duration) time.Time {
	if p.rtcRead.IsZero() {
		return time.Time{}
	}
	return p.rtcRead.Add(uptime - p.rtcAt)
}

// linux is the running machine. root stands before every path; it is empty
// but in tests.
type linux struct{ root string }

func (linux) now() time.Time { return time.Now() }

func (linux) uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock: no CLOCK_BOOTTIME: " + err.Error()) // in every Linux since 2.6.39
	}
	return time.Duration(ts.Nano())
}

func (linux) kernel() (Kernel, error) {
	var tx unix.Timex // Modes 0: read only
	if _, err := unix.Adjtimex(&tx); err != nil {
		return Kernel{}, fmt.Errorf("adjtimex: %w", err)
	}
	return Kernel{
		Unsynchronised: tx.Status&unix.STA_UNSYNC != 0,
		MaxError:       time.Duration(tx.Maxerror) * time.Microsecond,
	}, nil
}

func (l linux) boot() (string, error) {
	b, err := os.ReadFile(filepath.Join(l.root, "/proc/sys/kernel/random/boot_id"))
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(b))
	if len(id) != len("00000000-0000-0000-0000-000000000000") {
		return "", fmt.Errorf("boot id %q is not a UUID", id)
	}
	return id, nil
}

func (l linux) platform() platform {
	// On x86 the kernel itself reads a clock at boot, be it the CMOS's or
	// the hypervisor's. Elsewhere only a real-time clock named in sysfs does.
	p := platform{kept: runtime.GOARCH == "amd64" || runtime.GOARCH == "386"}
	if _, err := os.Stat(filepath.Join(l.root, "/run/systemd/timesync/synchronized")); err == nil {
		p.synchronised = true // systemd-timesyncd; /run is empty at boot
	}
	rtcs, _ := filepath.Glob(filepath.Join(l.root, "/sys/class/rtc/rtc*")) // the pattern is well formed
	for _, dir := range rtcs {
		if number(filepath.Join(dir, "hctosys")) != 1 {
			continue // the system's clock was not set from this one
		}
		if s := number(filepath.Join(dir, "since_epoch")); s > 0 {
			p.rtcRead, p.rtcAt = time.Unix(s, 0), l.uptime()
		}
	}
	return p
}

// number reads a file that holds one decimal number; anything else is 0.
func number(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
