// Package guest is a machine to test on that has what no build machine has: a
// GPIO chip. It is a small linux/arm64 under QEMU, with the kernel's gpio-sim
// as its chip; the program in the folder init is all that runs in it besides
// what a test brings along. The script kernel makes its kernel, once.
//
// A test drives the guest through a virtio serial port that is QEMU's standard
// input and output: Requests in, Messages out, one JSON value a line.
package guest

import "time"

// The chip, as the kernel and the guest's environment name it.
const (
	Chip     = "pinctrl-sim" // its label
	Lines    = 32            // named GPIO0 to GPIO31
	PortName = "gatehouse.test"
)

// Places in the guest.
const (
	DataDir = "/data" // the disk, if the guest has one
	Address = "10.0.2.15"
	Host    = "10.0.2.2" // the machine that runs QEMU, in its user network
)

// Request asks the guest for one thing; the first field that is set says what.
type Request struct {
	ID    uint64
	Run   *Command // to its end
	Start *Command // and go on: its lines come as Said, its end as Ended
	Kill  *Signal
	Play  []Step
	Watch []int  // tell each change of these lines, from now on, as Moved
	Clock *Clock // set it
	// Read is a file, or an http:// address; Reply.Output is what is there.
	Read string
}

// Command is a program with its arguments. It runs in DataDir.
type Command struct {
	Name string // of what is started, for Said, Ended and Kill
	Args []string
	Env  []string // added to the guest's
}

// Signal goes to what was started by that name.
type Signal struct {
	Name   string
	Signal int
}

// Clock sets the guest's clock; the real-time clock stays as it is.
type Clock struct {
	Set time.Time
	// Synchronised says that a time service did it.
	Synchronised bool
}

// Step is one thing that the outside world does to the lines, and takes its
// time of the kernel's monotonic clock. Exactly one field is set.
type Step struct {
	Frame *Frame        `json:",omitempty"`
	Pull  *Pull         `json:",omitempty"`
	Await *Await        `json:",omitempty"`
	Clock *Clock        `json:",omitempty"`
	Sleep time.Duration `json:",omitempty"`
}

// Frame sends bits as a Wiegand reader does: a low pulse on D0 for each 0, and
// on D1 for each 1.
type Frame struct {
	D0, D1  int
	Bits    string        // of '0' and '1'
	Spacing time.Duration // from one pulse's begin to the next
	Pulse   time.Duration // for which the line is low
}

// Pull pulls a line up, or else down. An output of the guest's programs is
// not moved by it.
type Pull struct {
	Line int
	Up   bool
}

// Await waits for a line to be high, or else low.
type Await struct {
	Line   int
	High   bool
	Within time.Duration
}

// Message is what the guest says.
type Message struct {
	Reply  *Reply  `json:",omitempty"`
	Said   *Said   `json:",omitempty"`
	Ended  *Ended  `json:",omitempty"`
	Moved  *Moved  `json:",omitempty"`
	Booted *Booted `json:",omitempty"` // first of all
}

// Reply answers the request of that ID.
type Reply struct {
	ID     uint64
	Error  string `json:",omitempty"`
	Output []byte `json:",omitempty"` // of Run, standard output and error; of Read
	Exit   int    `json:",omitempty"` // of Run
	PID    int    `json:",omitempty"` // of Start
	Played []Done `json:",omitempty"`
}

// Done is what came of a step.
type Done struct {
	// At is when it was done: a frame's last falling edge, the moment when an
	// awaited line was first seen as it should be, or was given up.
	At time.Duration
	OK bool `json:",omitempty"` // an awaited line came in time
	// Worst is the largest difference between the spacing of two pulses and
	// what was asked for.
	Worst time.Duration `json:",omitempty"`
}

// Said is a line that a started program wrote.
type Said struct{ Name, Line string }

// Ended says that a started program has.
type Ended struct{ Name, State string }

// Moved says that a watched line has changed.
type Moved struct {
	Line int
	High bool
	At   time.Duration
}

// Booted says that the machine is there.
type Booted struct {
	ID string // of this boot, as the kernel tells it
}
