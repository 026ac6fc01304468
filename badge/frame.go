package badge

import (
	"fmt"
	"log/slog"
	"time"
)

// MaxBits is the longest frame that any format may have.
const MaxBits = 1024

// Frame is the bits that a reader delivered, in wire order. It identifies a
// card, so every way of printing it but Bits masks it.
type Frame struct{ bits string }

// ParseFrame reads a frame written as '0' and '1', first bit on the wire
// first.
func ParseFrame(s string) (Frame, error) {
	if s == "" {
		return Frame{}, fmt.Errorf("frame is empty")
	}
	if len(s) > MaxBits {
		return Frame{}, fmt.Errorf("frame has %d bits, more than %d", len(s), MaxBits)
	}
	for i := range len(s) {
		if s[i] != '0' && s[i] != '1' {
			return Frame{}, fmt.Errorf("frame has %q at position %d: only 0 and 1 are bits", s[i], i)
		}
	}
	return Frame{s}, nil
}

// Len is the number of bits.
func (f Frame) Len() int { return len(f.bits) }

// Bits is the frame in clear, first bit on the wire first. It identifies a
// card: it never goes into a record, a log line or a metric.
func (f Frame) Bits() string { return f.bits }

// String masks the bits.
func (f Frame) String() string { return fmt.Sprintf("frame of %d bits", len(f.bits)) }

// GoString masks the bits.
func (f Frame) GoString() string { return f.String() }

// Format masks the bits under every verb, those that String does not serve too.
func (f Frame) Format(s fmt.State, _ rune) { fmt.Fprint(s, f.String()) }

// LogValue masks the bits.
func (f Frame) LogValue() slog.Value { return slog.StringValue(f.String()) }

// Read is one presentation at a reader: a card's frame or one keypad burst.
type Read struct {
	Frame  Frame
	At     time.Time // when the last bit was seen, with Go's monotonic reading
	Keypad bool      // a keypad burst, not a card
	// Refused says why the frame is not to be trusted, such as "edges were lost";
	// it then counts for nothing but its length. Empty: nothing is known against it.
	Refused string
	// Foreign: the bits did not come in the time that was learned of this reader.
	// Something else may be sending on its wires.
	Foreign bool
}
