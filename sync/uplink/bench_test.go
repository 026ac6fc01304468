package uplink_test

import (
	"testing"
	"time"
)

// BenchmarkLiveRecord is the time from a record's commit at the controller to
// its receipt there: read, checkpoint signed, stored by the CRM, countersigned,
// verified. The broker is left out.
func BenchmarkLiveRecord(b *testing.B) {
	d := newController(b, "north-1", newCRM(b, newPipe(b, 1, fate{})), nil)
	d.settle(time.Minute)
	live(b, d)
}

// BenchmarkBacklog is how fast a backlog drains, all the way.
func BenchmarkBacklog(b *testing.B) {
	c := newCRM(b, newPipe(b, 1, fate{}))
	d := newController(b, "north-1", c, nil)
	const n = 5000
	var draining time.Duration
	for b.Loop() {
		d.stop()
		d.write(n)
		began := time.Now()
		d.start()
		d.settle(time.Minute)
		draining += time.Since(began)
	}
	b.ReportMetric(float64(n*b.N)/draining.Seconds(), "records/s")
	b.ReportMetric(0, "ns/op")
}
