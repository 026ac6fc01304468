// Package zfm speaks the protocol of the fingerprint modules whose packets
// begin with EF 01: ZFM-20 and ZFM-60, R30x, R503, AS608, FPM10A.
//
// Numbers are big-endian. A packet is EF 01, the module's address (4 bytes), a
// packet identifier, the length of what follows (2), the payload, and the sum
// (2) of the bytes from the identifier on. The first byte of an answer is a
// [Code].
//
// Sizes and capacities are the module's word. The R308, which does not know
// ReadSysPara and so cannot give it, is refused. Levels of security are 1, the
// weakest, to 5.
//
// Names and layouts are those of the R503 manual 1.2.2 and of the Zephyr and
// Adafruit drivers.
package zfm
