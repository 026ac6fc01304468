//go:build !long

package guest_test

const cuts = 3 // of the power
