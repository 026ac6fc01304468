// Package sfm speaks the packet protocol of Suprema's UniFinger modules (SFM
// 3000 to 6000).
//
// Numbers are little-endian. A packet has 13 bytes: 40, the command, a
// parameter (4), a size (4), a flag or an error, the sum of all before, and 0A;
// on RS-485 it has 15, with 41 and the terminal's number (2) in front. Data
// may follow, as many as size says, and another 0A. What a finger is scanned
// for is answered twice: SCAN_SUCCESS first, and what came of it.
//
// The level of security is the value of the module's parameter 66: 0x33 is a
// false acceptance rate of 1/10,000, 0x34 of 1/100,000, 0x35 of 1/1,000,000,
// 0x50 to 0x52 are automatic. SetSecurity refuses what is weaker than 0x33.
//
// The layout, commands, parameters and errors are those of the maker's
// UF_Protocol_Manual and of the SDK's headers. Neither shows, and so this
// package infers from the SDK's calls and from older manuals: that SR answers
// with the value in size and SW takes it there, the parameter in the flag; the
// entries of LT; that RT sends one packet for each template, CONTINUE but for
// the last; that DT takes flag 0 for all of a user; that ES has the quality of
// the image, up to 100, in the size. Each is checked for sense, and what makes
// none is an error, or no quality.
package sfm
