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

// entryVersion is what is written. Versions 1 and 2, which knew the first flags
// only, are read too: an allowlist stays as it is when the program is updated.
const entryVersion = 3

const (
	flagExtended = 1 << iota
	flagBreakGlass
	flagVisit
	flagFrom
	flagUntil
	flagOperator
	flagPIN
	flagDuressPIN
	flagInstead
	flagEscorted
	flagMayEscort
	flagSupervisor
	flagExempt
	flagClearance
	flagTOTP
	flagCode
	flagsEnd
)

// entryForm is what a version of entries may have.
type entryForm struct {
	flags  uint64
	visits int // fields of a visit
}

// entryForms are by version.
var entryForms = [...]entryForm{
	1:            {flagOperator - 1, 6},
	2:            {flagEscorted - 1, 6},
	entryVersion: {flagsEnd - 1, 8},
}

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

// appendEntry appends a row's plain content: three bytes (version, kind, state),
// the flags, the bounds as Unix seconds, the strings with their lengths, the
// hashes of the PINs, the substitutions, the clearance, the secret of the TOTP and
// the one-time code's id and door.
func appendEntry(b []byte, s *stored) []byte {
	e := &s.entry
	var flags uint64
	for _, f := range [...]struct {
		flag uint64
		on   bool
	}{
		{flagExtended, e.Extended}, {flagBreakGlass, e.BreakGlass}, {flagVisit, e.Visit != nil},
		{flagFrom, !e.From.IsZero()}, {flagUntil, !e.Until.IsZero()},
		{flagOperator, e.Operator}, {flagPIN, e.PIN != nil}, {flagDuressPIN, e.DuressPIN != nil}, {flagInstead, len(e.Instead) > 0},
		{flagEscorted, e.Escorted}, {flagMayEscort, e.MayEscort}, {flagSupervisor, e.Supervisor}, {flagExempt, e.Exempt},
		{flagClearance, e.Clearance > 0}, {flagTOTP, len(e.TOTP) > 0}, {flagCode, e.Code != nil},
	} {
		if f.on {
			flags |= f.flag
		}
	}
	b = append(b, entryVersion, byte(place(kinds[:], e.Kind)), byte(place(states[:], e.State)))
	b = binary.AppendUvarint(b, flags)
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
	b = append(append(b, e.PIN...), e.DuressPIN...)
	if len(e.Instead) > 0 {
		b = append(b, byte(len(e.Instead)))
		for _, v := range e.Instead {
			b = append(b, byte(v.Of), byte(v.By))
		}
	}
	if e.Clearance > 0 {
		b = append(b, byte(e.Clearance))
	}
	if len(e.TOTP) > 0 {
		b = append(append(b, byte(len(e.TOTP))), e.TOTP...)
	}
	if e.Code != nil {
		b = appendString(appendString(b, e.Code.ID), e.Code.Door)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// visitFields are in the order of visitNames: append only.
func visitFields(v *access.Visit) [8]*string {
	return [...]*string{&v.Host, &v.Organisation, &v.Purpose, &v.Escort, &v.Authoriser, &v.IDForm, &v.ID, &v.Ticket}
}

// decodeEntry reads what appendEntry wrote, and nothing else.
func decodeEntry(b []byte) (stored, error) {
	d := decoder{b: b, text: string(b)}
	var s stored
	v := d.byte()
	if d.err == nil && (v == 0 || int(v) >= len(entryForms)) {
		return s, fmt.Errorf("entry is of version %d, this program reads versions 1 to %d", v, entryVersion)
	}
	form := entryForms[v]
	kind, state, flags := d.byte(), d.byte(), d.uvarint()
	if d.err == nil && (int(kind) >= len(kinds) || int(state) >= len(states) || flags&^form.flags != 0) {
		return s, fmt.Errorf("entry has kind %d, state %d, flags %#x: not known", kind, state, flags)
	}
	if d.err == nil {
		s.entry.Kind, s.entry.State = kinds[kind], states[state]
	}
	s.entry.Extended = flags&flagExtended != 0
	s.entry.BreakGlass = flags&flagBreakGlass != 0
	s.entry.Operator = flags&flagOperator != 0
	s.entry.Escorted = flags&flagEscorted != 0
	s.entry.MayEscort = flags&flagMayEscort != 0
	s.entry.Supervisor = flags&flagSupervisor != 0
	s.entry.Exempt = flags&flagExempt != 0
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
		all := visitFields(s.entry.Visit)
		for _, f := range all[:form.visits] {
			*f = d.string()
		}
	}
	if flags&flagPIN != 0 {
		s.entry.PIN = d.bytes(pinHashSize)
	}
	if flags&flagDuressPIN != 0 {
		s.entry.DuressPIN = d.bytes(pinHashSize)
	}
	if flags&flagInstead != 0 {
		s.entry.Instead = d.instead()
	}
	if flags&flagClearance != 0 {
		s.entry.Clearance = access.Threat(d.between(1, byte(access.MaxThreat)))
	}
	if flags&flagTOTP != 0 {
		s.entry.TOTP = d.bytes(int(d.between(access.MinTOTPSecret, access.MaxTOTPSecret)))
	}
	if flags&flagCode != 0 {
		s.entry.Code = &access.Code{ID: d.string(), Door: d.string()}
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

func (d *decoder) between(least, most byte) byte {
	v := d.byte()
	if v < least || v > most {
		d.fail()
	}
	return v
}

// bytes are a part of b, which is the entry's own.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// instead reads at least one substitution.
func (d *decoder) instead() []access.Substitution {
	pairs := d.bytes(2 * int(d.byte()))
	if len(pairs) == 0 {
		d.fail()
	}
	out := make([]access.Substitution, 0, len(pairs)/2)
	for ; len(pairs) > 0; pairs = pairs[2:] {
		out = append(out, access.Substitution{Of: access.Factor(pairs[0]), By: access.Factor(pairs[1])})
	}
	return out
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
