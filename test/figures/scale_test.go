//go:build !long

package figures

const (
	swipes  = 1200
	backlog = 100_000
	starts  = 5
)
