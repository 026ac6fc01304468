package biometric

import (
	"context"
	"errors"
)

// ErrUnsupported is what a scanner returns when it is asked for something that
// it is not made for.
var ErrUnsupported = errors.New("the scanner cannot do that")

// Scanner compares a finger or an eye with what was enrolled. Its methods may
// be called from several goroutines; scans take turns.
//
// Any error other than a context's own means that the scanner is faulty, or
// that its channel is not secure: nobody has proved anything then. It may be
// asked again.
type Scanner interface {
	// Scan waits for a person and compares with the references alone (1:1). With
	// none, it finds out who it is among all that the scanner keeps (1:N), which
	// is ErrUnsupported where it keeps nothing. When nobody comes for a while the
	// outcome is Nobody. References stay the caller's to clear.
	Scan(ctx context.Context, with []Reference) (Match, error)
	// Watch calls changed with nil while the scanner can be used, and with what
	// is wrong while it cannot: at once and with each change, from one goroutine,
	// until ctx ends.
	Watch(ctx context.Context, changed func(fault error)) error
}

// Enroller is a Scanner that can enrol.
type Enroller interface {
	Scanner
	// Enroll takes a finger or an eye. After an error nothing is kept of it,
	// unless the error says so.
	Enroll(ctx context.Context, c Capture) (Captured, error)
	// About is what the scanner is; it fails while it cannot be reached.
	About(ctx context.Context) (About, error)
	// Slots are the slots in use, rising; none of a scanner that keeps nothing.
	Slots(ctx context.Context) ([]uint32, error)
	// Delete empties a slot, and reads back that it is empty. An empty one is no
	// error.
	Delete(ctx context.Context, slot uint32) error
}

// About is what a scanner is.
type About struct {
	Model    string
	Serial   string // enrolments are bound to it
	Modality Modality
	Capacity int    // slots, counted from First; 0: it keeps nothing, the templates are the panel's
	First    uint32 // the first slot
	Family   string // scanners of one family and make take each other's templates
}

// Copier is an Enroller whose slots can be read and written.
type Copier interface {
	Enroller
	// ReadSlot gives the templates of a slot. The caller clears them.
	ReadSlot(ctx context.Context, slot uint32) ([]Template, error)
	// WriteSlot fills an empty slot. The templates stay the caller's to clear.
	WriteSlot(ctx context.Context, slot uint32, templates []Template) error
}
