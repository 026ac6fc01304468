package enrolled

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
)

// State is what has become of a row. Only an Active one matches.
type State uint8

// The states of a row, in the order in which it passes through them. They are
// stored: append only.
const (
	// Pending is not approved yet. If its session is gone it is undone.
	Pending State = iota + 1
	Active
	// Revoked matches no more; that is still to be recorded.
	Revoked
	// Owed is recorded as revoked; its slot is still to be emptied.
	Owed
)

var stateNames = map[State]string{Pending: "pending", Active: "active", Revoked: "revoked", Owed: "owed"}

func (s State) String() string {
	if name, ok := stateNames[s]; ok {
		return name
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Session names one session of enrolment at one scanner. What it enrolled is
// approved as a whole, or not at all.
type Session [16]byte

// Place is where something was enrolled.
type Place struct {
	Scanner string `json:"scanner"`          // its name in the configuration
	Serial  string `json:"serial,omitempty"` // of the scanner itself; "": it tells none
	// Slot is where the scanner keeps it. Of a scanner that keeps nothing it is a
	// number that no other row of the scanner has.
	Slot uint32 `json:"slot"`
}

// Row is one finger or eye of one person at one scanner.
type Row struct {
	Place
	State    State          `json:"state"`
	Session  Session        `json:"-"`
	Person   string         `json:"person"`
	Part     biometric.Part `json:"part"`
	Duress   bool           `json:"duress,omitempty"` // given only under a threat
	Notice   string         `json:"notice,omitempty"` // version of the notice that the person agreed to
	At       time.Time      `json:"at"`               // when it was enrolled; whole seconds
	Operator string         `json:"operator"`         // who enrolled it, or revoked it
	Approver string         `json:"approver,omitempty"`
	From     string         `json:"from,omitempty"` // the scanner that it was copied from
	// Template is there where the scanner keeps nothing. List leaves it out.
	Template biometric.Template `json:"-"`
	// Fault says why the row does not open. Then only its Place and its State are
	// known, and the State only by what the file says.
	Fault error `json:"-"`

	id int64
}

const (
	bodyVersion = 1

	flagDuress = 1 << 0
	flagsKnown = flagDuress

	maxText     = 256     // bytes of a text in a row
	maxTemplate = 1 << 16 // bytes
)

// texts are the texts of a body, in their order.
func (r *Row) texts() [6]*string {
	return [...]*string{&r.Person, (*string)(&r.Part), &r.Notice, &r.Operator, &r.Approver, &r.From}
}

// check refuses what could not be read back.
func (r *Row) check() error {
	for _, t := range r.texts() {
		if len(*t) > maxText {
			return fmt.Errorf("enrolment: a text of %d bytes: more than %d", len(*t), maxText)
		}
	}
	switch {
	case r.Person == "":
		return errors.New("enrolment of nobody")
	case !r.Part.Valid():
		return fmt.Errorf("enrolment: %q is no finger and no eye", r.Part)
	case len(r.Template.Bytes()) > maxTemplate:
		return fmt.Errorf("enrolment: a template of %d bytes: more than %d", len(r.Template.Bytes()), maxTemplate)
	}
	return nil
}

// body is what is sealed of a row: version, flags, the time as Unix seconds,
// the texts and the template, each with its length. The caller clears it.
func (r *Row) body() []byte {
	template := r.Template.Bytes()
	// Made at once, so that no copy is left where it grew.
	b := make([]byte, 0, 2+binary.MaxVarintLen64*(len(r.texts())+2)+maxText*len(r.texts())+len(template))
	var flags byte
	if r.Duress {
		flags |= flagDuress
	}
	b = append(b, bodyVersion, flags)
	b = binary.AppendVarint(b, r.At.Unix())
	for _, t := range r.texts() {
		b = append(binary.AppendUvarint(b, uint64(len(*t))), *t...)
	}
	return append(binary.AppendUvarint(b, uint64(len(template))), template...)
}

// parseBody reads what body wrote, and nothing else, into r. The template is a
// copy: b stays the caller's to clear.
func (r *Row) parseBody(b []byte) error {
	d := decoder{b: b}
	version, flags := d.byte(), d.byte()
	if d.err == nil && version != bodyVersion {
		return fmt.Errorf("row is of version %d, this program reads version %d", version, bodyVersion)
	}
	if flags&^flagsKnown != 0 {
		return fmt.Errorf("row has flags %#x: not known", flags)
	}
	r.Duress = flags&flagDuress != 0
	r.At = time.Unix(d.varint(), 0).UTC()
	for _, t := range r.texts() {
		*t = string(d.bytes(maxText))
	}
	template := d.bytes(maxTemplate)
	switch {
	case d.err != nil:
		return d.err
	case len(d.b) > 0:
		return fmt.Errorf("row has %d bytes too many", len(d.b))
	}
	if err := r.check(); err != nil {
		return err
	}
	if len(template) > 0 {
		r.Template = biometric.NewTemplate(append([]byte(nil), template...))
	}
	return nil
}

// decoder reads from b until it finds something wrong, which stays in err.
type decoder struct {
	b   []byte // what is left
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errors.New("row is cut short or damaged")
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

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 || n != len(binary.AppendVarint(nil, v)) { // one way only to write a number
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes are the next text, which stays a part of b.
func (d *decoder) bytes(most uint64) []byte {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n != len(binary.AppendUvarint(nil, v)) || v > most || v > uint64(len(d.b)-n) {
		d.fail()
		return nil
	}
	t := d.b[n : n+int(v)]
	d.b = d.b[n+int(v):]
	return t
}
