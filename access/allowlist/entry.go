package allowlist

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
)

// stored is the plain content of one row.
type stored struct {
	entry   access.Entry // without its rights
	profile uint64       // which rights
	name    string
	format  string
}

const (
	entryVersion = 1

	flagExtended   = 1 << 0
	flagBreakGlass = 1 << 1
	flagVisit      = 1 << 2
	flagFrom       = 1 << 3
	flagUntil      = 1 << 4
	flagsKnown     = 1<<5 - 1
)

// A kind or a state is stored as its place here: append only.
var (
	kinds  = [...]access.Kind{access.Staff, access.Contractor, access.Visitor}
	states = [...]access.State{access.Active, access.Lost, access.Revoked}
)

// place is the index of v, or -1.
func place[T comparable](all []T, v T) int {
	for i := range all {
		if all[i] == v {
			return i
		}
	}
	return -1
}

// appendEntry appends a row's plain content: four bytes (version, kind, state,
// flags), the bounds as Unix seconds, and the strings with their lengths.
func appendEntry(b []byte, s *stored) []byte {
	e := &s.entry
	var flags byte
	for _, f := range [...]struct {
		flag byte
		on   bool
	}{
		{flagExtended, e.Extended}, {flagBreakGlass, e.BreakGlass}, {flagVisit, e.Visit != nil},
		{flagFrom, !e.From.IsZero()}, {flagUntil, !e.Until.IsZero()},
	} {
		if f.on {
			flags |= f.flag
		}
	}
	b = append(b, entryVersion, byte(place(kinds[:], e.Kind)), byte(place(states[:], e.State)), flags)
	if flags&flagFrom != 0 {
		b = binary.AppendVarint(b, e.From.Unix())
	}
	if flags&flagUntil != 0 {
		b = binary.AppendVarint(b, e.Until.Unix())
	}
	b = binary.AppendUvarint(b, s.profile)
	b = appendString(appendString(appendString(b, e.Person), s.name), s.format)
	if v := e.Visit; v != nil {
		for _, f := range visitFields(v) {
			b = appendString(b, *f)
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func visitFields(v *access.Visit) [6]*string {
	return [...]*string{&v.Host, &v.Organisation, &v.Purpose, &v.Escort, &v.Authoriser, &v.IDForm}
}

// decodeEntry reads what appendEntry wrote, and nothing else.
func decodeEntry(b []byte) (stored, error) {
	d := decoder{b: b, text: string(b)}
	var s stored
	if v := d.byte(); v != entryVersion && d.err == nil {
		return s, fmt.Errorf("entry is of version %d, this program reads version %d", v, entryVersion)
	}
	kind, state, flags := d.byte(), d.byte(), d.byte()
	if d.err == nil && (int(kind) >= len(kinds) || int(state) >= len(states) || flags&^flagsKnown != 0) {
		return s, fmt.Errorf("entry has kind %d, state %d, flags %#x: not known", kind, state, flags)
	}
	if d.err == nil {
		s.entry.Kind, s.entry.State = kinds[kind], states[state]
	}
	s.entry.Extended = flags&flagExtended != 0
	s.entry.BreakGlass = flags&flagBreakGlass != 0
	if flags&flagFrom != 0 {
		s.entry.From = d.time()
	}
	if flags&flagUntil != 0 {
		s.entry.Until = d.time()
	}
	s.profile = d.uvarint()
	s.entry.Person, s.name, s.format = d.string(), d.string(), d.string()
	if flags&flagVisit != 0 {
		s.entry.Visit = new(access.Visit)
		for _, f := range visitFields(s.entry.Visit) {
			*f = d.string()
		}
	}
	if d.err != nil {
		return stored{}, d.err
	}
	if len(d.b) > 0 {
		return stored{}, fmt.Errorf("entry has %d bytes too many", len(d.b))
	}
	return s, nil
}

// decoder reads from b until it finds something wrong, which stays in err.
type decoder struct {
	b    []byte // what is left
	text string // all of it: the strings are parts of this one
	err  error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = fmt.Errorf("entry is cut short or damaged")
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) time() time.Time {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return time.Time{}
	}
	d.b = d.b[n:]
	return time.Unix(v, 0).UTC()
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return ""
	}
	from := len(d.text) - len(d.b)
	d.b = d.b[n:]
	return d.text[from : from+int(n)]
}
