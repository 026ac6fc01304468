//go:build !long

package allowlist

// long says whether tests may take minutes.
const long = false
