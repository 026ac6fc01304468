package scanner

import (
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// Hasten makes a driver as fast as simulated modules are.
func Hasten(s *Settings, wait time.Duration) {
	s.wait = wait
	s.idle = wait
	s.backoff = serial.Backoff{First: 10 * time.Millisecond, Most: 50 * time.Millisecond}
}
