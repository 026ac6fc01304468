// Package panel makes OSDP peripherals the parts of a door: readers with their
// keypads, contacts at a reader's inputs, its tamper switch, its lights, buzzer
// and display, and scanners of fingers and eyes that compare with templates
// which the panel holds.
//
// Several parts may be of one peripheral, and several peripherals on one line.
// The bus has to know all of a line's peripherals before it speaks, so a line
// begins to run when the first of its parts is used, and gives out none after
// that.
//
// A peripheral has a key in the ring of its line and address, put there by
//
//	gatehouse osdp keyset --install
//
// or is said to be clear_text in so many words. Nothing that it tells counts but
// over the Secure Channel, or in clear text where that was said: in every other
// state all its parts are faulty, with the reason, until the channel is back.
// What waited to be read when a channel was lost is dropped.
//
// A peripheral's own outputs are no strikes: whoever takes the reader off the
// wall has their wires in hand.
package panel
