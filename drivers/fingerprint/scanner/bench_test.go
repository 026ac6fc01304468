package scanner_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/scanner"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
)

// BenchmarkIdentify is the time from a touch to its outcome, over a terminal as
// slow as the wire at the family's rate, with a module that judges at once. The
// limit is the time that the bytes take, and where the module has to be asked
// again and again for a finger, half of the pause between.
func BenchmarkIdentify(b *testing.B) {
	const poll = 100 * time.Millisecond
	for _, f := range []struct {
		name  string
		bytes int // of the commands and answers from the touch on
		poll  time.Duration
	}{
		// GenImg, Img2Tz, Search, AuraLED.
		{"zfm", 12 + 12 + 13 + 12 + 17 + 16 + 16 + 12, poll},
		{"sfm", 13 + 13, 0}, // SCAN_SUCCESS, SUCCESS
		// IsPressFinger, CaptureFinger, Identify, CmosLed.
		{"gt521", 4 * (12 + 12), poll},
	} {
		b.Run(f.name, func(b *testing.B) {
			far := makes[f.name]("A")
			known := fill(b, far)
			s := beginAt(b, newWorld(b, far, sim.PlugPaced), scanner.Device{Family: f.name, Timeout: 10 * time.Second})
			usable(b, s)
			var took []time.Duration
			for b.Loop() {
				for at := time.Duration(0); at < poll; at += poll / 10 {
					took = append(took, touched(b, far, s, known[0].Slot, 300*time.Millisecond+at))
				}
			}
			slices.Sort(took)
			wire := time.Duration(f.bytes) * 10 * time.Second / time.Duration(bauds[f.name])
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "got-ms")
			b.ReportMetric(float64((wire+f.poll/2).Microseconds())/1e3, "limit-ms")
			b.ReportMetric(1.5, "max-ratio")
		})
	}
}

// touched is the time to its outcome from a touch that comes so long after the
// scan has begun.
func touched(b *testing.B, far *sim.Module, s biometric.Scanner, slot uint32, after time.Duration) time.Duration {
	b.Helper()
	got := make(chan biometric.Match, 1)
	go func() {
		m, err := s.Scan(b.Context(), nil)
		if err != nil {
			b.Error(err)
		}
		got <- m
	}()
	time.Sleep(after)
	start := time.Now()
	far.Touch(sim.Finger{Name: people[0]})
	m := <-got
	took := time.Since(start)
	far.Lift()
	if m != (biometric.Match{Outcome: biometric.Matched, Slot: slot}) {
		b.Errorf("it gave %+v", m)
	}
	return took
}
