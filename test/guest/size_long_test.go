//go:build long

package guest_test

const cuts = 100 // of the power
