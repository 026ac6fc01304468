package biometric

// Action is what a person is to do while something is enrolled.
type Action string

// The actions.
const (
	Place Action = "place" // the finger on the sensor
	Lift  Action = "lift"  // it off again
	Again Action = "again" // put it on once more: too little was seen of it
	Look  Action = "look"  // into the camera
)

// Step is what a person is to do next.
type Step struct {
	Action   Action
	Capture  int // which one, from 1
	Captures int // of how many; 0: not known
}

// Capture is what a scanner is asked to enrol.
type Capture struct {
	Part   Part
	Slot   uint32     // where to keep it, of a scanner that keeps what it enrols
	Duress bool       // for a scanner that knows such fingers itself
	Tell   func(Step) // may be nil; it may not call the scanner
}

// Captured is what came of a Capture.
type Captured struct {
	Template Template // of a scanner that keeps nothing; the caller clears it
	Quality  int      // 1 to 100; 0: the scanner does not say
}
