package main

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric/enroll"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
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
			[]string{"FAULTY: cable cut", "2 keys typed that nobody was asked for"}},
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

func TestStatusShowsScannersWhoIsAskedForWhatAndWhoIsLockedOut(t *testing.T) {
	until := time.Date(2026, 3, 1, 9, 30, 7, 0, time.Local)
	s := status{
		Enrolled: &enroll.Status{
			Rows: map[string]int{enrolled.Active.String(): 6}, Checked: until,
			Found: map[enroll.Kind]int{enroll.SlotWithoutRow: 2}, Unchecked: []enroll.Unchecked{{Scanner: "b-eye"}},
		},
		Doors: []door.Status{{
			Door: "a", Locked: true, Contact: door.NoContact,
			Scanners: []door.ScannerStatus{{Name: "a-finger", Factor: "fingerprint"}, {Name: "a-eye", Factor: "iris", Fault: "no reply"}},
			Attempts: []door.AttemptStatus{{
				Direction: access.In, Person: "p-1001", Given: []string{"badge"}, Asked: []string{"fingerprint", "iris"}, Until: until,
			}},
			Lent:    []access.Direction{access.Out},
			Waiting: []door.AttemptStatus{{Direction: access.In, Person: "p-1003", Until: until}},
		}, {
			Door: "b", Free: true, Contact: door.DoorClosed,
		}, {
			Door: "c", Locked: true, Contact: door.DoorClosed, Threat: 3, Disabled: "the frame is painted",
		}},
		Areas:     []areaStatus{{Name: "hall", People: 2, At: 5, Passback: "hard"}, {Name: "cage", Damaged: true}, {Name: "yard", People: 7}},
		LockedOut: lockedOut{People: []string{"p-1002"}, Readers: []string{"a-in"}},
		Warnings:  []metrics.Fault{{Part: "door a, rules", What: "on the way out opens to nobody: x"}},
	}
	var out bytes.Buffer
	must(t, s.print(&out))
	text := regexp.MustCompile(` {2,}`).ReplaceAllString(out.String(), " ")
	for _, want := range []string{
		"enrolled 6 fingers and eyes, the scanners were checked at 2026-03-01 09:30:07, 2 " + string(enroll.SlotWithoutRow) + ", 1 scanners were not looked into\n",
		" scanner a-finger ready for fingerprint\n",
		" scanner a-eye FAULTY: no reply\n",
		" on the way in p-1001 has given badge and is asked for fingerprint or iris until 09:30:07\n",
		" on the way out somebody is being enrolled: it opens to nobody\n",
		" on the way in p-1003 waits for another person until 09:30:07\n",
		"door b unlocked for everybody by its schedule, contact closed\n",
		"door c locked, contact closed, THREAT 3, DISABLED: the frame is painted\n",
		"area hall 2 of 5 in it, anti-passback hard\n",
		"area cage NOBODY KNOWS how many are in it, and it counts as full: reset it\n",
		"area yard 7 in it\n",
		"locked out person p-1002\n",
		"locked out reader a-in\n",
		"WARNING door a, rules: on the way out opens to nobody: x\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
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
