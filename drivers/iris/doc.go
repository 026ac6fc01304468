// Package iris compares eyes with templates that the panel holds: the reader
// scans and compares, and keeps nothing. It does the same for fingers, with
// readers that take a finger's template from the panel.
//
// A reader is reached by OSDP's biometric messages, BIOREAD and BIOMATCH, for no
// maker of iris readers publishes a serial protocol of its own. There is no code
// for the format of an iris template: it goes as the maker's own, and a template
// that one make of reader has written is of no use to another. A maker's SDK is
// one more [Device]: a few methods that scan, and say whether the way to the
// scanner is secure.
//
// A reader that compares by itself, and tells who it was as a card number, is no
// scanner. It is an ordinary reader, on OSDP or on a Wiegand pair, that is bound
// to the factor in the door's configuration:
//
//	[[door.reader]]
//	factor = "iris"
//
// What the score of a comparison means is the reader's own affair, but for 0,
// which is no match, and 255, the best. So a [Scanner] has a threshold that
// somebody has set, and no default. A score that is high enough proves nothing
// by itself: it counts only if the reader says that the scan went well, and if
// the one Secure Channel stood before the scan, during it and after it.
package iris
