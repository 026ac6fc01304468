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
