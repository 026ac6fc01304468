package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const header = "goos: linux\npkg: github.com/gatehouse-acs/gatehouse/access/allowlist\ncpu: a fast one\n"

func TestTheTableHasMeasuredLimitRatioAndGoal(t *testing.T) {
	in := header +
		"BenchmarkLookup/1M_credentials-2   \t  100\t 11034 ns/op\t 91234 got-lookups/s\t 108000 limit-lookups/s\t 0.7 min-ratio\n" +
		"some noise of a benchmark\n" +
		"BenchmarkDecode-2 \t 1000000\t 12.34 ns/op\t 0 B/op\t 0 allocs/op\n" +
		"BenchmarkSwipe/p99-2 \t 10\t 350000 got-ns\t 1500000 max-ns\n" +
		"PASS\nok  \tx\t1s\n"
	var out strings.Builder
	ok, err := run(strings.NewReader(in), &out, io.Discard)
	if err != nil || !ok {
		t.Fatalf("ok %v, error %v", ok, err)
	}
	want := `what                               measured          limit            ratio  goal
allowlist: Lookup, 1M credentials  91.2 k lookups/s  108 k lookups/s  0.84   ≥ 0.70
allowlist: Decode                  12.3 ns/op
allowlist: Swipe, p99              350 µs                                    ≤ 1.50 ms
`
	var got strings.Builder
	for line := range strings.Lines(out.String()) {
		got.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Error(d)
	}
}

func TestAMissedGoalIsMarkedAndFails(t *testing.T) {
	for _, tt := range []struct {
		metrics string
		ok      bool
	}{
		{"70 got-x/s 100 limit-x/s 0.7 min-ratio", true},
		{"69 got-x/s 100 limit-x/s 0.7 min-ratio", false},
		{"200 got-ns 100 limit-ns 2 max-ratio", true},
		{"201 got-ns 100 limit-ns 2 max-ratio", false},
		{"10 got-MB 10 max-MB", true},
		{"11 got-MB 10 max-MB", false},
		{"9 got-x/s 10 min-x/s", false},
		{"9 got-x/s", true},
		{"0 got-allocs/op 0 max-allocs/op", true},
		{"1 got-allocs/op 0 max-allocs/op", false},
	} {
		var out strings.Builder
		ok, err := run(strings.NewReader(header+"BenchmarkX-2 1 "+tt.metrics+"\n"), &out, io.Discard)
		if err != nil || ok != tt.ok || strings.Contains(out.String(), "MISSED") == tt.ok {
			t.Errorf("%s: ok %v, error %v\n%s", tt.metrics, ok, err, out.String())
		}
	}
}

func TestAFailedRunFails(t *testing.T) {
	for _, in := range []string{
		"BenchmarkX-2 1 9 got-x/s\n--- FAIL: BenchmarkY\nFAIL\n",
		"BenchmarkX-2 1 9 got-x/s\npanic: no\n",
		"", "PASS\n",
		"BenchmarkX-2 1 nine got-x/s\n",
		"BenchmarkX-2 1 9 got-x/s 0.7 min-ratio\n",
	} {
		if ok, err := run(strings.NewReader(header+in), io.Discard, io.Discard); ok && err == nil {
			t.Errorf("%q passed", in)
		}
	}
}

func TestQuantitiesHaveThreePlaces(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "MB", "0 MB"}, {0.5, "MB", "0.50 MB"}, {12.34, "ns/op", "12.3 ns/op"}, {999.4, "ns", "999 ns"},
		{999.6, "ns", "1.00 µs"}, {2.9e9, "ns", "2.90 s"}, {5e12, "ns", "5000 s"}, {1234567, "records/s", "1.23 M records/s"},
	} {
		if got := quantity(tt.v, tt.unit); got != tt.want {
			t.Errorf("quantity(%v, %s) = %q, want %q", tt.v, tt.unit, got, tt.want)
		}
	}
}
