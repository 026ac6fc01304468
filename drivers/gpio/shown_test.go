package gpio

import (
	"log/slog"
	"testing"
	"time"
)

var silent = slog.New(slog.DiscardHandler)

// shown tells by its lights which pattern an indicator shows: by what it saw,
// or did not see for so long. Asked again, it is right however slowly it could
// look.
func shown(t *testing.T, look func() lamps) string {
	t.Helper()
	time.Sleep(5 * time.Millisecond)
	seen := map[lamps]bool{}
	last, same := dark, 0
	for began := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		switch now := look(); {
		case now != last:
			last, same = now, 1
		default:
			same++
		}
		if same > 2 { // the lines of one step do not change at the same moment
			seen[last] = true
		}
		long := time.Since(began)
		switch {
		case seen[green|red|beep], seen[green] && seen[red]:
			return "fault"
		case seen[green] && seen[dark]:
			return "waiting"
		case seen[red] && seen[dark]:
			return "denied"
		case seen[green] && long > 700*time.Millisecond:
			return "granted"
		case seen[red] && long > 300*time.Millisecond:
			return "idle"
		case seen[red|beep] && seen[dark] && long > 900*time.Millisecond:
			return "held_warning"
		case long > time.Second:
			return ""
		}
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
