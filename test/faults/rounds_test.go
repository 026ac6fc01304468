//go:build !long

package faults

const (
	rounds    = 24   // kills of the daemon
	crmRounds = 4    // kills of the CRM, of each kind
	overload  = 3000 // swipes, a thousand a second
)
