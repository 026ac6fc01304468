package biometric

import (
	"fmt"
	"log/slog"
)

// Template is a finger or an eye as its scanner writes it. It is a secret:
// every way of printing one shows its length only, also inside of other
// values, and whoever has used one clears it.
type Template struct{ bytes *[]byte }

// NewTemplate makes a template of b, which becomes the template's own.
func NewTemplate(b []byte) Template { return Template{&b} }

// Bytes are the template's own, until Clear.
func (t Template) Bytes() []byte {
	if t.bytes == nil {
		return nil
	}
	return *t.bytes
}

// Empty reports whether there is nothing in it.
func (t Template) Empty() bool { return len(t.Bytes()) == 0 }

// Clear overwrites the template, and all copies of this value with it.
func (t Template) Clear() {
	if t.bytes != nil {
		clear(*t.bytes)
		*t.bytes = nil
	}
}

// String masks the template.
func (t Template) String() string { return fmt.Sprintf("template of %d bytes", len(t.Bytes())) }

// Format masks the template under every verb.
func (t Template) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// LogValue masks the template.
func (t Template) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText masks the template.
func (t Template) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
