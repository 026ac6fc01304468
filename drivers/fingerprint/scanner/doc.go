// Package scanner is the driver of the serial fingerprint modules as a door's
// scanners. It opens a module, looks at each connection whether it is the one
// that was set up, and tells what is wrong while it cannot be used.
//
//	device = { driver = "fingerprint", family = "zfm", port = "/dev/serial0", serial = "B46BEE12F1E0A7C3", security = 4 }
//
// A module finds out who somebody is among all that it keeps (1:N), and
// compares with what is enrolled of one person (1:1). A person of whom several
// fingers are enrolled is looked for among all, and counts if it is one of
// those; any other finger is nobody's. What is enrolled stays in the module, a
// slot for each finger, and templates can be copied to another of the same
// family and make. A finger for a threat is one like others to the module: that
// it is one stands with the reference to its slot. A Suprema module that has
// such fingers of its own says so too.
//
// # What is not authenticated
//
// Nothing on the wire of these modules is authenticated or encrypted: whoever
// reaches it can answer in the module's place, with any finger and with the
// right serial number. The number finds a module that was exchanged, not one
// that lies; so does the password, which goes over the wire in clear. Such a
// scanner is a second factor, behind a badge, unless the configuration says
// otherwise in so many words.
//
// # The lamp
//
// A module whose lamp has colours breathes blue while it waits for a finger,
// flashes green for a match, red for none, and yellow when too little was seen.
// A lamp that fails is no fault of the scanner.
package scanner
