//go:build !long

package visitorlog

// long says whether tests may take minutes.
const long = false
