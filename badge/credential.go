package badge

import (
	"encoding/binary"
	"fmt"
	"log/slog"
)

// Credential is a decoded card. The four numbers are the fields that the
// format defines; a field that it does not define is zero.
type Credential struct {
	Format   string // name in the table, such as H10301
	Facility uint64 // facility (site) code
	Number   uint64 // card number
	Issue    uint64 // issue level
	OEM      uint64 // maker's code
}

// Canonical is the byte string that stands for the credential in a keyed
// index: the format's name, a zero byte, and the four fields as big-endian
// 64-bit numbers. It identifies a card: hash it with a key, never store it.
func (c Credential) Canonical() []byte {
	b := make([]byte, 0, len(c.Format)+1+4*8)
	b = append(b, c.Format...)
	b = append(b, 0)
	for _, v := range [...]uint64{c.Facility, c.Number, c.Issue, c.OEM} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

// String masks all of the card number but its last two digits.
func (c Credential) String() string { return fmt.Sprintf("%s ••%02d", c.Format, c.Number%100) }

// GoString masks like String.
func (c Credential) GoString() string { return c.String() }

// LogValue names only the format: a log is read by more people than a screen.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.Format) }
