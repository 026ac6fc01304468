package access

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const lasts = 5 * time.Minute

func fail(f Failures, times int, at Moment) Failures {
	for range times {
		f = f.Add(at, 5, lasts)
	}
	return f
}

func TestALockOutBeginsWithTheLastFailureThatIsAllowed(t *testing.T) {
	at := Moment{Boot: "b1", Uptime: time.Hour}
	for _, c := range []struct {
		failures, after int
		want            bool
	}{{0, 5, false}, {4, 5, false}, {5, 5, true}, {6, 5, true}, {1, 1, true}, {100, 0, false}, {100, -1, false}, {0, 0, false}} {
		if got := fail(Failures{}, c.failures, at).Locked(at, c.after, lasts); got != c.want {
			t.Errorf("%d failures, locked after %d: %v", c.failures, c.after, got)
		}
	}
}

func TestALockOutEndsInItsTime(t *testing.T) {
	wall := time.Date(2026, 3, 4, 11, 0, 0, 0, time.UTC)
	failed := fail(Failures{}, 5, Moment{wall, ClockSynchronised, "b1", time.Hour})
	for name, c := range map[string]struct {
		now  Moment
		want bool
	}{
		"a moment before its end":                    {Moment{wall, ClockSynchronised, "b1", time.Hour + lasts - 1}, true},
		"its end":                                    {Moment{wall, ClockSynchronised, "b1", time.Hour + lasts}, false},
		"the clock set forward":                      {Moment{wall.Add(time.Hour), ClockSynchronised, "b1", time.Hour + 1}, true},
		"the clock set back":                         {Moment{wall.Add(-time.Hour), ClockSynchronised, "b1", time.Hour + lasts}, false},
		"restarted":                                  {Moment{time.Unix(0, 0), ClockUnset, "b2", 0}, true},
		"restarted, with a wrong clock":              {Moment{wall.Add(time.Hour), ClockDrifting, "b2", time.Minute}, true},
		"restarted, for its time":                    {Moment{time.Unix(0, 0), ClockUnset, "b2", lasts}, false},
		"restarted, and synchronised":                {Moment{wall.Add(lasts - time.Second), ClockSynchronised, "b2", time.Minute}, true},
		"restarted, and synchronised after its end":  {Moment{wall.Add(lasts + time.Second), ClockSynchronised, "b2", time.Minute}, false},
		"restarted, and set back":                    {Moment{wall.Add(-time.Hour), ClockSynchronised, "b2", time.Minute}, true},
		"restarted, and set back, for its time":      {Moment{wall.Add(-time.Hour), ClockSynchronised, "b2", lasts}, false},
		"it is not known whether it was restarted":   {Moment{wall, ClockUnset, "", lasts}, true},
		"the same, when the difference says it's up": {Moment{wall, ClockUnset, "", time.Hour + lasts}, false},
	} {
		if got := failed.Locked(c.now, 5, lasts); got != c.want {
			t.Errorf("%s: locked is %v", name, got)
		}
	}
}

func TestFailuresAreForgottenAfterAWhile(t *testing.T) {
	at := func(d time.Duration) Moment { return Moment{Boot: "b1", Uptime: d} }
	f := fail(Failures{}, 4, at(0))
	if next := f.Add(at(lasts-1), 5, lasts); !next.Locked(at(lasts-1), 5, lasts) {
		t.Error("the fifth failure in a row does not lock out")
	}
	if next := f.Add(at(lasts), 2, lasts); next.Locked(at(lasts), 2, lasts) {
		t.Error("failures of long ago count")
	}
	if next := f.Add(at(1000*time.Hour), 5, 0); !next.Locked(at(1000*time.Hour), 5, lasts) {
		t.Error("failures that are never forgotten were")
	}
}

func TestWhatIsKeptIsNoEarlierThanTheFailure(t *testing.T) {
	failed := time.Date(2026, 3, 4, 11, 0, 0, 999_999, time.UTC)
	kept, err := ParseFailures(fail(Failures{}, 5, Moment{failed, ClockSynchronised, "b1", -1}).Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if now := (Moment{failed.Add(lasts - 1), ClockSynchronised, "b2", time.Second}); !kept.Locked(now, 5, lasts) {
		t.Error("a lock-out ended a moment early")
	}
}

// truth is a machine as it really is: what happens to it, and what it knows.
type truth struct {
	passed time.Duration // of real time
	moment Moment
}

// goOn draws what happens next. A clock is right while it is synchronised, and
// anything else otherwise.
func (m *truth) goOn(t *rapid.T) {
	passes := time.Duration(rapid.Int64Range(0, int64(2*lasts)).Draw(t, "passes"))
	m.passed += passes
	m.moment.Uptime += passes
	if rapid.IntRange(0, 2).Draw(t, "restarts") == 0 {
		m.moment.Boot += "'"
		m.moment.Uptime = time.Duration(rapid.Int64Range(0, int64(passes)).Draw(t, "uptime"))
	}
	m.moment.Clock = rapid.SampledFrom([]ClockState{ClockSynchronised, ClockDrifting, ClockUnset}).Draw(t, "clock")
	m.moment.Wall = time.Unix(1_800_000_000, 0).Add(m.passed)
	if m.moment.Clock != ClockSynchronised {
		m.moment.Wall = time.Unix(rapid.Int64Range(0, 4_000_000_000).Draw(t, "wall"), 0)
	}
}

func TestNothingEndsALockOutEarly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := truth{moment: Moment{Boot: "b"}}
		m.goOn(t)
		var f Failures
		for range 5 {
			f = f.Add(m.moment, 5, lasts)
		}
		since := m.passed
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			m.goOn(t)
			kept, err := ParseFailures(f.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			locked := kept.Locked(m.moment, 5, lasts)
			if left := lasts - (m.passed - since); left > 0 && !locked {
				t.Fatalf("open %v early at %+v, after %+v", left, m.moment, f)
			}
			if m.moment.Uptime >= lasts && m.passed-since >= lasts && locked && m.moment.Boot != f.last.Boot {
				t.Fatalf("still locked at %+v, after %+v", m.moment, f)
			}
			if f.last.Boot == m.moment.Boot && locked != (m.passed-since < lasts) {
				t.Fatalf("locked is %v at %+v, after %+v", locked, m.moment, f)
			}
		}
	})
}

func TestASuccessForgives(t *testing.T) {
	kept, err := ParseFailures(Failures{}.Bytes())
	if err != nil || kept != (Failures{}) {
		t.Fatalf("%+v, %v", kept, err)
	}
	if kept.Locked(Moment{}, 1, lasts) || kept.Add(Moment{}, 2, lasts).Locked(Moment{}, 2, lasts) {
		t.Error("who has not failed is locked out")
	}
}

func TestFailuresNeverOverflow(t *testing.T) {
	f := Failures{count: maxFailures}.Add(Moment{}, 1, 0)
	if kept, err := ParseFailures(f.Bytes()); err != nil || !kept.Locked(Moment{}, maxFailures, lasts) {
		t.Errorf("%+v, %v", kept, err)
	}
}

func FuzzFailures(f *testing.F) {
	f.Add(fail(Failures{}, 3, Moment{time.Unix(1_800_000_000, 0), ClockDrifting, "b1", time.Hour}).Bytes())
	f.Add([]byte{})
	f.Add([]byte(`{"count":0}`))
	f.Add([]byte(`{"count":1,"wall_ms":-1,"clock":"","boot":"\u003c","uptime_ns":0}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseFailures(b)
		if err != nil {
			if v != (Failures{}) {
				t.Fatalf("%+v with %v", v, err)
			}
			return
		}
		if again := v.Bytes(); !bytes.Equal(again, b) {
			t.Fatalf("%q reads as %q", b, again)
		}
		if next := v.Add(Moment{}, 1, 0); !next.Locked(Moment{}, 1, time.Nanosecond) {
			t.Fatalf("%+v and one more do not lock out", v)
		}
	})
}

func TestEachFurtherLockOutLastsTwiceAsLong(t *testing.T) {
	at := Moment{Boot: "b1", Uptime: time.Hour}
	var f Failures
	for _, want := range []time.Duration{lasts, 2 * lasts, 4 * lasts, 8 * lasts, time.Hour, time.Hour} {
		for n := range 5 {
			if f.Locked(at, 5, lasts) {
				t.Fatalf("locked out after %d failures", n)
			}
			f = f.Add(at, 5, lasts)
		}
		kept, err := ParseFailures(f.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		f = kept
		if f.Lasts(lasts) != want {
			t.Errorf("lasts %v, want %v", f.Lasts(lasts), want)
		}
		if at.Uptime += want - 1; !f.Locked(at, 5, lasts) {
			t.Errorf("over before %v", want)
		}
		if at.Uptime++; f.Locked(at, 5, lasts) {
			t.Errorf("not over after %v", want)
		}
		at.Uptime += 1000 * time.Hour // which forgives nothing
	}
}

func TestALongLockOutIsNotMadeShorter(t *testing.T) {
	at := Moment{Boot: "b1", Uptime: time.Hour}
	f := fail(Failures{}, 5, at)
	at.Uptime += lasts
	f = fail(f, 5, at)
	at.Uptime += lasts + 1 // longer than the first lasted
	if f = f.Add(at, 5, lasts); !f.Locked(at, 5, lasts) {
		t.Error("one more failure during a lock-out ended it")
	}
	const day = 24 * time.Hour
	if got := (Failures{count: 5, lockOuts: 9}).Lasts(day); got != day {
		t.Errorf("a first lock-out of %v is followed by one of %v", day, got)
	}
}

func TestWhatWasKeptBeforeLockOutsGrewIsRead(t *testing.T) {
	const kept = `{"count":5,"wall_ms":1800000000000,"clock":"synchronised","boot":"b1","uptime_ns":3600000000000}`
	f, err := ParseFailures([]byte(kept))
	if err != nil {
		t.Fatal(err)
	}
	at := Moment{time.UnixMilli(1800000000000), ClockSynchronised, "b1", time.Hour}
	if !f.Locked(at, 5, lasts) || f.Lasts(lasts) != lasts {
		t.Errorf("read as %+v", f)
	}
	at.Uptime += lasts
	if f = fail(f, 5, at); f.Lasts(lasts) != 2*lasts {
		t.Errorf("the one after it lasts %v", f.Lasts(lasts))
	}
}
