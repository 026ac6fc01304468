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
	asks := []string{"", "ask_badge", "ask_fingerprint", "ask_iris", "ask_pin", "ask_company"}
	seen := map[lamps]bool{}
	flashes := 0 // of green, and each no longer than a moment
	last, same, since := dark, 0, time.Now()
	for began := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		switch now := look(); {
		case now != last:
			last, same, since = now, 1, time.Now()
		default:
			same++
		}
		if same == 3 { // the lines of one step do not change at the same moment
			seen[last] = true
			if last&^beep == green {
				flashes++
			}
		}
		long, steady := time.Since(began), time.Since(since)
		switch {
		case seen[green|red]:
			return "identify"
		case seen[green|red|beep], seen[green] && seen[red] && steady > 350*time.Millisecond:
			return "fault"
		case seen[green] && seen[red] && seen[dark]:
			return "try_again"
		case seen[green] && seen[dark] && !seen[red] && last == green && steady > 250*time.Millisecond:
			return "waiting"
		case last == dark && steady > 450*time.Millisecond:
			return asks[min(flashes, len(asks)-1)]
		case seen[red] && seen[dark] && !seen[green]:
			return "denied"
		case seen[green] && !seen[dark] && long > 700*time.Millisecond:
			return "granted"
		case seen[red] && !seen[dark] && !seen[green] && long > 600*time.Millisecond:
			return "idle"
		case seen[red|beep] && seen[dark] && !seen[green] && long > 900*time.Millisecond:
			return "held_warning"
		case long > 2500*time.Millisecond:
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
