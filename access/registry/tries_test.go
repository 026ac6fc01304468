//go:build !long

package registry

// tries is how often each property is tried, unless the command line says it.
const tries = "20"
