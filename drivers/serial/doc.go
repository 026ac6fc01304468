// Package serial opens serial lines through github.com/tarm/serial and avoids
// its traps: a read waits as long as it is told and not in steps of 100 ms, a
// converter that was unplugged is told from a silent one, a rate can be
// changed, a write that does not get through ends, and Close never hangs.
package serial
