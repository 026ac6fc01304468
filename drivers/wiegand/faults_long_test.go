//go:build long

package wiegand

import "testing"

func TestMillionsOfFaultyFramesGiveNoWrongCard(t *testing.T) { count(t, 2_000_000, 2) }
