//go:build !long

package faults

import "time"

const (
	rounds      = 50              // kills of the daemon
	crmRounds   = 6               // kills of the CRM, of each kind
	overloadFor = 5 * time.Second // of a thousand swipes a second
)
