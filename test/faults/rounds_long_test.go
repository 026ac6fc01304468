//go:build long

package faults

const (
	rounds    = 1000
	crmRounds = 100
	overload  = 60_000
)
