// Package gt521 speaks the protocol of ADH-Tech's fingerprint modules
// GT-511C3 and GT-521F52.
//
// Numbers are little-endian. Commands and answers have 12 bytes: 55 AA, the
// device (2), a parameter (4), the command or ACK or NACK (2), and the sum (2)
// of the ten before. Data packets are 5A A5, the device, the data, and the sum;
// their length stands nowhere.
//
// An answer does not say what it answers. After one that did not come the
// driver waits until the line is silent and asks for the module's serial
// number, which no other answer looks like.
//
// The capacity is found by asking for IDs; there are no levels of security.
//
// Names and layouts are those of the SparkFun and Zephyr drivers.
package gt521
