// Package wiegand reads card readers and keypads on Wiegand's two data lines:
// D0 and D1 idle high, a low pulse on D0 is a 0, one on D1 a 1, the most
// significant bit first.
//
// The kernel gives each falling edge a time and a number in the interrupt
// (package gpio). From these alone a pure decoder makes frames, so that it does
// not matter when the program gets to read them: after a stall the frames of
// two cards are told apart as if there had been none.
//
// # What a reader may send
//
// Nothing needs to be configured for bits that come 200 µs to 20 ms apart, as
// pulses of 20 µs to 1 ms. A frame ends when its lines have been silent: for
// three of its own bits, but at least 2 ms, once it has the longest length that
// its reader's formats have, for the gap otherwise.
//
// # What is refused
//
// A frame counts only if there is silence before it and after it, if every
// edge in it and around it has arrived, if its bits came at an even pace, and
// if a format has its length and finds its checks in order. All else is refused
// and counted, with the reason; a person presents the card again.
//
// So no loss, reordering, splitting or merging makes another card's number, as
// long as a format with parity is used, with these bounds:
//
//   - Edges that the kernel saw and could not keep are always noticed, by their
//     numbers: it drops the oldest, so that newer ones are there.
//   - Pulses that never reached the kernel leave a hole in the pace wherever
//     they stood inside a frame. At its very beginning or end they leave
//     nothing: the frame is short. A reader that stops within a frame for longer than
//     the gap, or noise at its very pace right before or after one, change the
//     length as well. That refuses the frame, unless the same reader also has
//     formats of just that other length: then parity is the last guard. Give a
//     reader the formats of one length where that can be had.
//   - A card that is longer than every format of its reader is refused for its
//     length. If just those pulses never reach the kernel that follow the longest
//     of the formats, two or more, then what came before them has ended: parity is
//     the last guard here too.
//   - A pulse that is lost while noise makes another of the same line's number
//     and pace is a bit that was flipped: parity finds one, not two.
//   - Without the kernel's numbers and times (gpio's fallback) a lost edge shows
//     only as a hole or a missing bit, two bits that were exchanged before they
//     were read show only if they were read at once, and a frame may seem to be
//     over while its rest waits. The fallback is therefore used only if the
//     configuration allows it.
//
// # A reader that is gone
//
// A line that is low for a second (a short circuit, a reader without power), and
// lines that the kernel no longer has, are faults. A reader that was unplugged
// leaves both lines high, as one does that nobody uses: only its last frame grows
// old. Its tamper contact tells the two apart.
//
// # Timing
//
// A reader's pace is learned from its first good frames. What does not keep it
// later may come from something else on its wires; see [Timing].
package wiegand
