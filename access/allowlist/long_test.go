//go:build long

package allowlist

const long = true
