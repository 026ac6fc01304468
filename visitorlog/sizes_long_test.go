//go:build long

package visitorlog

// sizes of the logs that are compared.
var sizes = []int64{1e4, 1e5, 1e6, 1e7}

const growthAppends = 10_000
