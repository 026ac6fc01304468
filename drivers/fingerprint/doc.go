// Package fingerprint is what the serial fingerprint modules have in common:
// what a door asks of one ([Module]), the outcomes and errors that it is told, and
// the keeping of a connection ([Keep]).
//
// The families are in the folders below: zfm (ZFM, R30x, R503, AS608), sfm
// (Suprema) and gt521 (GT-511C3, GT-521F52). The package sim simulates them.
//
// Nothing on the wire of these modules is authenticated or encrypted: whoever
// reaches the wires behind the reader can say "this was finger 7". The serial
// number that Keep compares finds a module that was exchanged by mistake or in
// a hurry, not one that was made to lie. Such a reader is a second factor, or
// stands on the secure side, or inside a housing whose tamper contact is
// watched.
package fingerprint
