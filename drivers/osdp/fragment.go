package osdp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxMessage is the longest message in several parts that is put together, in
// bytes.
const MaxMessage = 16 << 10

// ErrFragment is the error of a part that does not follow the ones before it.
var ErrFragment = errors.New("a part of a message is out of place")

// Fragment is a part of a message that is longer than a frame: the head of
// every PIVDATAR, GENAUTHR and CRAUTHR, and of any other reply whose control
// byte has ControlMulti.
type Fragment struct {
	Total  uint16 // of the whole message
	Offset uint16
	Data   Secret
}

// AppendBinary appends the part as the data of a frame.
func (f Fragment) AppendBinary(b []byte) ([]byte, error) {
	b = binary.LittleEndian.AppendUint16(b, f.Total)
	b = binary.LittleEndian.AppendUint16(b, f.Offset)
	return appendSized(b, f.Data, CodeACK)
}

// ParseFragment reads a part. It keeps nothing of data.
func ParseFragment(data []byte) (Fragment, error) {
	r := &reading{b: data}
	f := Fragment{Total: r.u16(), Offset: r.u16()}
	f.Data = r.sized(int(r.u16()))
	return parsed(r, fragmentName{}, f)
}

type fragmentName struct{}

func (fragmentName) String() string { return "part of a message" }

// Assembler puts parts together. The zero Assembler is ready.
type Assembler struct{ parts Fragment }

// Add takes the next part. Once done, it gives the whole message and is ready
// for another. A part with no data at or behind the end means that the sender
// gave up; that is ErrFragment too, and so is a part of another message.
func (a *Assembler) Add(f Fragment) (message Secret, done bool, err error) {
	have := len(a.parts.Data)
	fail := func(format string, args ...any) (Secret, bool, error) {
		a.Reset()
		return nil, false, fmt.Errorf("%w: "+format, append([]any{ErrFragment}, args...)...)
	}
	switch {
	case f.Offset == 0 && len(f.Data) > 0:
		a.Reset() // a new message, whatever was before
		a.parts.Total = f.Total
		a.parts.Data = make(Secret, 0, min(f.Total, MaxMessage))
		have = 0
	case f.Offset >= f.Total && len(f.Data) == 0:
		return fail("the sender gave up")
	case have == 0 || f.Total != a.parts.Total || int(f.Offset) != have || len(f.Data) == 0:
		return fail("%d bytes at %d of %d after %d of %d", len(f.Data), f.Offset, f.Total, have, a.parts.Total)
	}
	if int(f.Total) > MaxMessage || have+len(f.Data) > int(f.Total) {
		return fail("%d bytes at %d of %d, and at most %d in all", len(f.Data), f.Offset, f.Total, MaxMessage)
	}
	a.parts.Data = append(a.parts.Data, f.Data...)
	if len(a.parts.Data) < int(f.Total) {
		return nil, false, nil
	}
	message = a.parts.Data
	a.parts = Fragment{}
	return message, true, nil
}

// Reset forgets the parts that came.
func (a *Assembler) Reset() {
	clear(a.parts.Data)
	a.parts = Fragment{}
}

// isMultiPart reports whether a reply's data are a Fragment.
func isMultiPart(f Frame) bool {
	switch ReplyCode(f.Code) {
	case CodePIVDATAR, CodeGENAUTHR, CodeCRAUTHR:
		return true
	}
	return f.Control&ControlMulti != 0
}
