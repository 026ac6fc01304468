// Package gpio is the driver of a door that is wired to the controller's own
// lines: a strike or a magnet behind a relay, contacts, buttons, lights and a
// beeper; and it reads the two data lines of a reader for the driver wiegand.
//
//	[drivers.gpio]
//	chip = "pinctrl-rp1"        # label; may be left out on a Raspberry Pi
//
//	strike    = { driver = "gpio", line = "GPIO17", wiring = "fail-secure", active = "low" }
//	contact   = { driver = "gpio", line = "GPIO22", normally = "closed" }
//	rex       = { driver = "gpio", line = "GPIO27", normally = "open", bias = "up", debounce = "50ms" }
//	tamper    = { driver = "gpio", adc = "ads1015/in_voltage0", normally = "closed" }
//	indicator = { driver = "gpio", green = "GPIO5", red = "GPIO6", beeper = "GPIO13" }
//
// Chips go by their label and lines by their name: a chip's number changes
// from kernel to kernel, and a line's from chip to chip.
//
// # Safe states
//
// A line that drives something has its off level, in which a strike or a
// magnet is locked, from its very first level on, gets it back on Close, and is
// then released. If the program dies the kernel releases the line. What that
// means is the kernel's affair: most make the line an input again, with the
// resistor in the chip pulling it to the off level as it was asked to; those of
// Raspberry Pi OS go on driving the last level unless they are told otherwise.
// To open and close a strike's line is therefore also the way to make it safe
// after such a death.
//
// # What lights and beeper say
//
// Up to two lights and a beeper show each pattern by its rhythm, so that it can
// be told without telling red from green, and without hearing.
//
//	idle             red
//	waiting          a beep, then green on and off, evenly and slowly
//	granted          a long beep, then green
//	denied           three beeps with red, then red flashing fast
//	fault            both lights and a beep, then red and green by turns
//	held_warning     red and beeps by turns, until the door is closed
//	ask_badge        a beep; green flashes once, pauses, flashes once …
//	ask_fingerprint  as ask_badge, with two flashes
//	ask_iris         as ask_badge, with three
//	ask_pin          as ask_badge, with four
//	ask_company      as ask_badge, with five: another person is waited for
//	identify         both lights on and off, evenly
//	try_again        two beeps with red, then green, red and a pause
//
// # Whose code drives the lines
//
// periph drives all that it can drive safely: inputs, and outputs whose off
// level is low. Those whose off level is high, and the pair of a reader, are
// requested through the kernel's interface; openRaised and kernelPair say why.
package gpio
