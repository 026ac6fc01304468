//go:build long

package figures

const (
	swipes  = 20_000
	backlog = 1_000_000
	starts  = 25
)
