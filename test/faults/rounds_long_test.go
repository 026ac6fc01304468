//go:build long

package faults

import "time"

const (
	rounds      = 1000
	crmRounds   = 100
	overloadFor = time.Minute
)
