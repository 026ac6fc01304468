//go:build long

package visitorlog

const long = true
