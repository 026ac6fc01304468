//go:build long

package scanner_test

func init() { everyFault = true }
