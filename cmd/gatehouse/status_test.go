package main

import (
	"context"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/google/go-cmp/cmp"
)

func TestAReadersHealthIsToldInWords(t *testing.T) {
	last := time.Date(2026, 3, 1, 9, 30, 0, 0, time.Local)
	for _, tt := range []struct {
		name string
		r    door.ReaderStatus
		want []string
	}{
		{"one that says nothing of itself", door.ReaderStatus{}, []string{"reads"}},
		{"one without a card yet", door.ReaderStatus{Health: &badge.Health{}}, []string{"reads", "0 frames"}},
		{"a broken one", door.ReaderStatus{Fault: "cable cut", Keys: 2},
			[]string{"FAULTY: cable cut", "2 keys typed, which no rule here asks for"}},
		{"an ill one", door.ReaderStatus{Likely: "no common ground", Health: &badge.Health{
			Frames: 40, Refused: map[string]uint64{"parity": 3, "edges were lost": 1}, Ghosts: 9, Foreign: 2, Last: last,
		}}, []string{"reads", "LIKELY WRONG: no common ground",
			"40 frames, the last good one at 2026-03-01 09:30:00; 1 refused: edges were lost; 3 refused: parity; 9 ghost bits; 2 NOT IN THE READER'S TIMING"}},
	} {
		if got := readerWords(tt.r); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %s", tt.name, cmp.Diff(tt.want, got))
		}
	}
}

func TestAReadersHealthIsInTheMetrics(t *testing.T) {
	r := door.ReaderStatus{Name: "a-in", Likely: "no common ground", Keys: 2, Health: &badge.Health{
		Frames: 40, Refused: map[string]uint64{"parity": 3}, Ghosts: 9, Foreign: 2, Last: time.UnixMilli(1772000000500),
		Spacing: []badge.Bucket{{Below: time.Millisecond, Count: 5}, {Below: math.MaxInt64, Count: 1}},
	}}
	c := metrics.Collector(func(v metrics.Values) { collectReader(v, "a", r) })
	labels := `{door="a",reader="a-in"}`
	want := map[string]string{
		"gatehouse_reader_faulty" + labels:                                               "0",
		`gatehouse_reader_ill{door="a",likely="no common ground",reader="a-in"}`:         "1",
		"gatehouse_reader_keys_total" + labels:                                           "2",
		"gatehouse_reader_frames_total" + labels:                                         "40",
		`gatehouse_reader_refused_total{door="a",reader="a-in",reason="parity"}`:         "3",
		"gatehouse_reader_ghost_bits_total" + labels:                                     "9",
		"gatehouse_reader_foreign_total" + labels:                                        "2",
		"gatehouse_reader_last_read_timestamp_seconds" + labels:                          "1.7720000005e+09",
		`gatehouse_reader_bit_spacing_seconds_bucket{door="a",reader="a-in",le="0.001"}`: "5",
		"gatehouse_reader_bit_spacing_seconds_count" + labels:                            "6",
	}
	text := exposed(t, c)
	for series, value := range want {
		if !strings.Contains(text, "\n"+series+" "+value+"\n") {
			t.Errorf("no %s %s in\n%s", series, value, text)
		}
	}
}

// exposed is what Prometheus reads of a collector.
func exposed(t *testing.T, c metrics.Collector) string {
	t.Helper()
	registry := metrics.NewRegistry("test")
	registry.MustRegister(c)
	server, err := metrics.Listen(metrics.Options{
		Listen: "127.0.0.1:0", Registry: registry,
		Health: func(context.Context) []metrics.Fault { return nil },
		Status: func(context.Context) (any, error) { return nil, nil },
	})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	defer func() {
		stop()
		must(t, <-ended)
	}()
	r, err := http.Get("http://" + server.Addr() + "/metrics")
	must(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	must(t, err)
	return string(b)
}
