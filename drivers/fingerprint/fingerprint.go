package fingerprint

import (
	"context"
	"errors"
	"fmt"

	"github.com/gatehouse-acs/gatehouse/biometric"
)

// ID is what a module knows a person or a finger by: the slot of a template
// (zfm, gt521) or a user's number, with up to ten templates (sfm).
type ID uint32

// Module is a fingerprint module on its line. Its methods may be called from
// any goroutine, one after the other; they return soon after their context
// ends. After an error that is not one of Refusal the connection is not to be
// trusted: close it and connect anew, as Keep does.
type Module interface {
	Matcher
	Database
	Copier
	Lamp
	// Info is what the module told of itself when it was opened.
	Info() Info
	// Ping asks whether the module is there, and still the one that it was when it
	// was opened.
	Ping(context.Context) error
	// Security is the module's own level of security, and SetSecurity changes it
	// for good. The package of the family says what the levels mean.
	Security(context.Context) (int, error)
	SetSecurity(ctx context.Context, level int) error
	Close() error
}

// Matcher compares a finger with what the module has stored.
type Matcher interface {
	// Identify waits for a finger and finds out whose it is (1:N). NoFinger means
	// that none came for a while, and is no error.
	Identify(context.Context) (Match, error)
	// Verify waits for a finger and compares it with what is stored under an ID
	// (1:1). An ID with nothing under it is ErrEmpty.
	Verify(context.Context, ID) (Match, error)
}

// Database is what the module has stored.
type Database interface {
	// Enroll takes a finger and gives the quality of what was seen, 1 to 100, or 0
	// where the module does not tell. When it returns an error nothing is stored
	// under the ID; a LeftError says otherwise.
	Enroll(context.Context, Enrollment) (quality int, err error)
	// List gives the IDs that are in use, rising.
	List(context.Context) ([]ID, error)
	// Delete removes an ID, and looks that it is gone. One that is not in use is
	// ErrEmpty.
	Delete(context.Context, ID) error
	// Wipe removes everything, and looks that it is gone.
	Wipe(context.Context) error
}

// Copier takes templates out of a module and puts them into another of the
// same family and make.
type Copier interface {
	// ReadTemplates gives what is stored under an ID, one template or several.
	// Whoever gets them calls Clear.
	ReadTemplates(context.Context, ID) ([]biometric.Template, error)
	// WriteTemplates stores templates under an ID that is free. The templates stay
	// the caller's to clear.
	WriteTemplates(context.Context, ID, []biometric.Template) error
}

// Lamp is the module's light.
type Lamp interface {
	// Show is ErrUnsupported where there is no light. One without colours shows
	// any as its own.
	Show(context.Context, Light) error
}

// Info is what a module tells of itself. What it cannot tell is zero.
type Info struct {
	Family       string // "zfm", "sfm", "gt521"
	Model        string
	Firmware     string
	Serial       string // of the module, in its family's way of writing; see CheckSerial
	Capacity     int    // how many templates fit in
	TemplateSize int    // bytes
	Baud         int    // at which it was found
	Coloured     bool   // its lamp has colours
}

// Outcome is what came of comparing a finger. The zero value lets nobody in.
type Outcome uint8

const (
	NoMatch  Outcome = iota // nobody's, or not the one's
	Matched                 // the ID's
	Duress                  // the ID's, and the finger that is kept for a threat
	Fake                    // not a live finger
	NoFinger                // none came
	TryAgain                // too little was seen of it
)

var outcomeNames = [...]string{"no match", "match", "duress", "fake finger", "no finger", "try again"}

func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// Match is the outcome of a comparison.
type Match struct {
	Outcome Outcome
	ID      ID  // of Matched and Duress
	Finger  int // which of the ID's templates, from 0, where the module tells
	Score   int // the module's own measure, which it has judged already; 0: it tells none
}

// Enrollment is what Enroll is to do.
type Enrollment struct {
	ID ID
	// Duress marks the finger as the one for a threat, where the family has such.
	Duress bool
	// Progress, if there is one, is told what the person is to do. It may not call
	// the module.
	Progress func(Step)
}

// Tell calls Progress.
func (e Enrollment) Tell(s Step) {
	if e.Progress != nil {
		e.Progress(s)
	}
}

// Step is what a person is to do while a finger is taken.
type Step struct {
	Action   Action
	Capture  int // from 1
	Captures int // 0: the module does not say
}

// Action is what a person is to do.
type Action uint8

const (
	Place Action = iota // put the finger on
	Lift                // take it off
	Again               // put it on once more: too little was seen of it
)

func (a Action) String() string {
	switch a {
	case Place:
		return "place the finger"
	case Lift:
		return "lift the finger"
	case Again:
		return "place the finger again"
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// Light is what a module's lamp shows.
type Light struct {
	Colour Colour
	Effect Effect
	Times  uint8 // of Flash and Breathe; 0: until told otherwise
}

// Colour of a lamp.
type Colour uint8

const (
	Dark Colour = iota
	Red
	Blue
	Purple
	Green
	Yellow
	Cyan
	White
)

// Effect is how a lamp shows its colour.
type Effect uint8

const (
	Steady Effect = iota
	Breathe
	Flash
)

// Refusal is an error that a module answered, where the exchange itself went
// well. Those of the families are Refusals.
type Refusal interface {
	error
	Refused()
}

// IsRefusal reports whether the module is well and has said no.
func IsRefusal(err error) bool {
	var r Refusal
	return errors.As(err, &r)
}

// Errors that all families have. What a module answers is its family's own
// type, which errors.Is tells to be one of these.
var (
	ErrSilent      = errors.New("fingerprint: the module does not answer: look at its power, its wires and its rate")
	ErrGarbled     = errors.New("fingerprint: what came is no answer of such a module: look at its family, its wires and its rate")
	ErrNotFound    = errors.New("fingerprint: no module answers at any rate: look at its power, its wires, its address and its family")
	ErrWrongModule = errors.New("fingerprint: this is another module than the one that was set up")

	ErrRestarted = errors.New("fingerprint: the module has started anew and forgotten what it was told: connect again")

	ErrLocked      = errors.New("fingerprint: the module wants another password")
	ErrUnsupported = errors.New("fingerprint: the module cannot do that")
	ErrNoSuchID    = errors.New("fingerprint: the module has no such ID")
	ErrEmpty       = errors.New("fingerprint: nothing is stored under this ID")
	ErrInUse       = errors.New("fingerprint: something is stored under this ID already")
	ErrDuplicate   = errors.New("fingerprint: this finger is stored already")
	ErrFull        = errors.New("fingerprint: the module is full")
	ErrPoorFinger  = errors.New("fingerprint: too little was seen of the finger: clean it and the sensor, and try again")
	ErrNoFinger    = errors.New("fingerprint: no finger was placed")
	ErrFake        = errors.New("fingerprint: this is not a live finger")
	ErrTemplate    = errors.New("fingerprint: this is no template for this module")
	ErrFailed      = errors.New("fingerprint: the module failed")
)

// refusal is one that the driver gives in the module's place.
type refusal struct{ error }

func (refusal) Refused()        {}
func (r refusal) Unwrap() error { return r.error }

// Refuse makes a Refusal of a family's driver that wraps cause.
func Refuse(cause error, format string, args ...any) error {
	return refusal{fmt.Errorf("%w: "+format, append([]any{cause}, args...)...)}
}

// WrongModuleError is an ErrWrongModule.
type WrongModuleError struct{ Want, Got string }

func (e *WrongModuleError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("%v: it tells no serial number, and %q was set up", ErrWrongModule, e.Want)
	}
	return fmt.Sprintf("%v: its serial number is %q, and %q was set up", ErrWrongModule, e.Got, e.Want)
}

func (*WrongModuleError) Unwrap() error { return ErrWrongModule }

// CheckSerial compares a module's serial number with the one that was set up;
// "" is any. It is asked at every connection.
func CheckSerial(want string, got Info) error {
	if want != "" && got.Serial != want {
		return &WrongModuleError{want, got.Serial}
	}
	return nil
}
