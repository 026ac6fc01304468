package clock

import (
	"runtime/debug"
	"time"
)

// earliest is before every build of Gatehouse.
const earliest = "2026-11-01T00:00:00Z"

// built is set by the linker where there is no version control to ask:
//
//	-ldflags "-X github.com/gatehouse-acs/gatehouse/internal/clock.built=2026-11-30T12:00:00Z"
var built string

// buildTime is a time at which this program's source already existed, and
// that has therefore passed.
func buildTime() time.Time {
	var commit string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				commit = s.Value
			}
		}
	}
	return latest(earliest, built, commit)
}

// latest is the latest of several RFC 3339 times; what is not one does not
// count.
func latest(times ...string) time.Time {
	var l time.Time
	for _, s := range times {
		if t, err := time.Parse(time.RFC3339, s); err == nil && t.After(l) {
			l = t
		}
	}
	return l
}
