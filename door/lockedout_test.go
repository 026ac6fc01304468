package door

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
)

func TestWhoIsLockedOutNowIsNamed(t *testing.T) {
	now := access.Moment{Wall: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), Clock: access.ClockSynchronised, Boot: "b", Uptime: time.Hour}
	limits := access.Limits{PersonAfter: 2, ReaderAfter: 3, For: 5 * time.Minute}
	failed := func(times int, ago time.Duration) []byte {
		then := now
		then.Wall, then.Uptime = now.Wall.Add(-ago), now.Uptime-ago
		var f access.Failures
		for range times {
			f = f.Add(then, limits.For)
		}
		return f.Bytes()
	}
	states := map[string][]byte{
		personKey("p-1"): failed(2, time.Minute), personKey("p-2"): failed(1, time.Minute), personKey("p-3"): failed(2, time.Hour),
		readerKey("a"): failed(3, 0), readerKey("b"): failed(2, 0), readerKey("c"): []byte("damaged"),
	}
	people, readers := LockedOut(states, now, limits)
	if !slices.Equal(people, []string{"p-1"}) || !slices.Equal(readers, []string{"a"}) {
		t.Errorf("people %v, readers %v", people, readers)
	}
	for key := range states {
		if !strings.HasPrefix(key, LockoutStates) {
			t.Errorf("%q does not begin with %q", key, LockoutStates)
		}
	}
}
