package registry

import "fmt"

// Refused is that something cannot be done as things stand, such as signing out
// somebody who is not in. Its text says why, and may be shown to whoever asked.
type Refused struct{ text string }

// Error is the text.
func (e *Refused) Error() string { return e.text }

func refused(format string, args ...any) error { return &Refused{fmt.Sprintf(format, args...)} }
