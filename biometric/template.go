package biometric

import (
	"fmt"
	"io"
	"log/slog"
)

// Template is a finger or an eye as its scanner writes it. It is a secret:
// every way of printing one shows its length only, inside of other values too,
// and it is cleared after use.
type Template struct {
	// Behind two pointers: package fmt may not call the methods of a field that is
	// not exported, and prints what it is; for a verb that does not fit, what its
	// pointer points to as well.
	secret *secret
}

type secret struct{ b *[]byte }

// NewTemplate makes a template of bytes, which become the template's: Clear
// clears them.
func NewTemplate(b []byte) Template { return Template{&secret{&b}} }

// Bytes are the template's own, until Clear.
func (t Template) Bytes() []byte {
	if t.secret == nil {
		return nil
	}
	return *t.secret.b
}

// Empty reports whether there is nothing in it.
func (t Template) Empty() bool { return len(t.Bytes()) == 0 }

// Clear overwrites the template, and all copies of this value with it.
func (t Template) Clear() {
	if t.secret != nil {
		clear(*t.secret.b)
		*t.secret.b = nil
	}
}

// ClearAll clears templates.
func ClearAll(templates []Template) {
	for _, t := range templates {
		t.Clear()
	}
}

// String shows the length only.
func (t Template) String() string { return fmt.Sprintf("[template of %d bytes]", len(t.Bytes())) }

// Format is String, with every verb.
func (t Template) Format(f fmt.State, _ rune) { io.WriteString(f, t.String()) }

// LogValue is String.
func (t Template) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText is String.
func (t Template) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
