// Package badge turns the bits that a reader delivers into a credential, and
// back. A card format is data: a Spec says with position lists, fixed bits and
// parity masks how a frame is laid out, for the built-in table and for the
// formats that a site adds in its configuration alike.
//
// Bits are numbered from 0, the first on the wire. A frame seldom says which
// format it has: many share their length and even their parity, so a reader is
// told its formats, and [Table.Identify] helps where nobody knows them.
package badge
