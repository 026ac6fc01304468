// Package sim is the driver of a virtual site: readers, strikes, contacts and
// lights that exist only at the other end of a Unix socket. Nothing real
// moves, so a configuration that names it is refused outside the demo.
//
// The controller listens; one site at a time connects. The socket has mode
// 0600 and stands in a folder of mode 0700. Both directions carry JSON
// objects, one a line of at most 4096 bytes. A line (in the sense of a wire)
// has a name of up to 64 of A-Z a-z 0-9 . _ -, and means what the device that
// the configuration gives that name is.
//
// # From the site
//
// The first line says which wires are active (a contact is active while its
// door is open) and which are broken; every other wire is inactive and whole.
// It is complete: a site that connects again says everything again.
//
//	{"site":1,"active":["a.contact"],"faults":{"b-in":"cable cut"}}
//
// Then, as things happen, a frame at a reader (first bit on the wire first),
// up to 32 keys of its keypad (0 to 9, * and #, which are delivered one by one
// in the 4-bit encoding), a change of an input, and a wire that breaks or, with
// an empty text, is mended:
//
//	{"line":"a-in","frame":"10111101100010001110101110"}
//	{"line":"a-in","keys":"4711#"}
//	{"line":"a.contact","active":false}
//	{"line":"b-in","fault":""}
//
// # From the controller
//
// One line of welcome, the present state of every strike and of every
// indicator that was told to show something, then each change. A strike is
// locked or unlocked; an indicator shows idle, waiting, granted, denied, fault,
// held_warning, try_again, ask_badge, ask_fingerprint, ask_iris, ask_pin,
// ask_company or identify.
//
//	{"welcome":1}
//	{"line":"a.strike","state":"unlocked","at":"2026-03-01T08:00:00.123456789Z"}
//
// A site that breaks these rules is told why and is disconnected:
//
//	{"error":"…"}
//
// # What is a fault
//
// While no site is connected every reader and input is faulty: there is
// nothing there to read. Strikes and indicators keep what they were told and
// say it to whoever connects. A site that loses the controller takes every
// strike as locked, as a relay falls back when nobody drives it.
package sim
