package badge

import (
	"fmt"
	"strings"
)

// DecodeError says why a frame is not of a format. Faults holds everything
// that is wrong with it, each a *LengthError, *ParityError, *BitError,
// *XORError, *ValueError or *CharacterError; errors.As finds them. No text
// holds a frame or a number.
type DecodeError struct {
	Format string
	Faults []error
}

func (e *DecodeError) Error() string { return e.Format + ": " + e.Reason() }

// Reason is the text without the format's name.
func (e *DecodeError) Reason() string {
	parts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		parts[i] = f.Error()
	}
	return strings.Join(parts, "; ")
}

// Unwrap gives the faults to errors.Is and errors.As.
func (e *DecodeError) Unwrap() []error { return e.Faults }

// LengthError is a frame with another number of bits than the format's.
type LengthError struct{ Want, Got int }

func (e *LengthError) Error() string {
	return fmt.Sprintf("the frame has %d bits, not %d", e.Got, e.Want)
}

// ParityError is a parity bit that does not agree with the bits it is over.
type ParityError struct {
	Bit  int
	Odd  bool
	Over string // position list
}

func (e *ParityError) Error() string {
	return fmt.Sprintf("%s parity at bit %d over bits %s is wrong", parityWord(e.Odd), e.Bit, e.Over)
}

func parityWord(odd bool) string {
	if odd {
		return "odd"
	}
	return "even"
}

// BitError is a bit that is always the same in the format, and was not; an
// unused bit counts as always 0.
type BitError struct {
	Bit    int
	Want   byte // '0' or '1'
	Unused bool
}

func (e *BitError) Error() string {
	if e.Unused {
		return fmt.Sprintf("bit %d is 1, which this format does not use", e.Bit)
	}
	return fmt.Sprintf("bit %d is not %c, as it always is in this format", e.Bit, e.Want)
}

// XORError is a closing XOR group that does not agree with those before it.
type XORError struct{ From, To int }

func (e *XORError) Error() string {
	return fmt.Sprintf("the XOR check in bits %d-%d is wrong", e.From, e.To)
}

// ValueError is a field with another value than the only one it has in the
// format.
type ValueError struct {
	Field string
	Want  uint64
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("%s is not %d, as it always is in this format", e.Field, e.Want)
}

// CharacterError is a character of a frame of characters that is wrong.
type CharacterError struct {
	Character int // from 0
	Problem   string
}

func (e *CharacterError) Error() string {
	return fmt.Sprintf("character %d (bits %d-%d): %s", e.Character,
		e.Character*charBits, e.Character*charBits+charBits-1, e.Problem)
}

// SpecError is one fault of a Spec.
type SpecError struct {
	Format string // the Spec's name
	Key    string // the word at fault, such as facility or parity[1]
	Err    error
}

func (e *SpecError) Error() string {
	return fmt.Sprintf("format %q: %s: %v", e.Format, e.Key, e.Err)
}

// Unwrap gives the cause.
func (e *SpecError) Unwrap() error { return e.Err }
