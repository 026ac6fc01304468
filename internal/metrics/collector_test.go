package metrics

import (
	"math"
	"strings"
	"testing"
)

const example Describer = "example_"

func TestAHistogramCountsUpToEachBound(t *testing.T) {
	desc := example.Desc("spacing_seconds", "Time between bits.", "reader")
	r := NewRegistry("test")
	r.MustRegister(Collector(func(v Values) {
		v.Histogram(desc, map[float64]uint64{0.002: 3, 0.001: 2, math.Inf(1): 1, 0.02: 0}, "a-in")
	}))
	_, body, err := get(t.Context(), start(t, Options{Registry: r}), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`example_spacing_seconds_bucket{reader="a-in",le="0.001"} 2`,
		`example_spacing_seconds_bucket{reader="a-in",le="0.002"} 5`,
		`example_spacing_seconds_bucket{reader="a-in",le="0.02"} 5`,
		`example_spacing_seconds_bucket{reader="a-in",le="+Inf"} 6`,
		`example_spacing_seconds_count{reader="a-in"} 6`,
	} {
		if !strings.Contains(string(body), "\n"+want+"\n") {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
}
