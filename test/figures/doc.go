// Package figures measures the programs as they are shipped, each value beside
// what the machine or the bare libraries do in the same run. `make bench` runs
// it; docs/performance.md says what is measured and how.
package figures
