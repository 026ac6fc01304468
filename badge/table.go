package badge

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

// Table is a set of formats. It may be read by several goroutines once the
// last format has been added.
type Table struct {
	formats []*Format
	byName  map[string]*Format // by name in lower case
}

var builtinFormats = sync.OnceValue(func() []*Format {
	formats := make([]*Format, len(builtin))
	for i, s := range builtin {
		f, err := NewFormat(s)
		if err != nil {
			panic(fmt.Sprintf("badge: the built-in table is at fault: %v", err)) // a test reads the whole table
		}
		formats[i] = f
	}
	return formats
})

// Builtin is a new Table of all built-in formats.
//
// Those up to IR56 are the layouts of proxmark3 (Iceman fork, commit 1c8c3b78d,
// wiegand_formats.c), held to its encoder's frames by testdata; the others are
// from their makers' manuals.
//
// Left out, because no complete layout could be found: HPP32 (proxmark3's
// encoder loses the number), H10320 (its encoder and decoder disagree), AWID
// 34, 36 and 37 (fields known, parity not), ZKTeco 37 (the manual contradicts
// itself), EM 42 and FASC-N 75 (parity masks not stated), Kantech XSF, Paxton
// Net2, XceedID 40, Indala 33, Lenel, Chubb 36 and HID Inner Range 36. A site with
// such cards adds its own format, with IgnoreUnused where only the fields
// are known.
func Builtin() *Table {
	return Only(builtinFormats()...)
}

// Only is a table of some formats, such as those of one reader.
func Only(formats ...*Format) *Table {
	t := &Table{byName: map[string]*Format{}}
	for _, f := range formats {
		t.add(f)
	}
	return t
}

func (t *Table) add(f *Format) {
	t.formats = append(t.formats, f)
	t.byName[strings.ToLower(f.Name())] = f
}

// Add checks a Spec and puts it at the table's end. The error joins a
// *SpecError for every fault; the table is then unchanged. A name that is
// taken, in whatever case, is a fault.
func (t *Table) Add(s Spec) error {
	f, err := NewFormat(s)
	if taken, ok := t.byName[strings.ToLower(s.Name)]; ok {
		dup := &SpecError{Format: s.Name, Key: "name", Err: fmt.Errorf("there is a format %q already", taken.Name())}
		return joinFaults(err, dup)
	}
	if err != nil {
		return err
	}
	t.add(f)
	return nil
}

// Format finds a format by its exact name.
func (t *Table) Format(name string) (*Format, bool) {
	f, ok := t.byName[strings.ToLower(name)]
	if !ok || f.Name() != name {
		return nil, false
	}
	return f, true
}

// Find finds a format by its name in any case, as people type it. The error
// names those that may have been meant.
func (t *Table) Find(name string) (*Format, error) {
	low := strings.ToLower(name)
	if f, ok := t.byName[low]; ok {
		return f, nil
	}
	var near []string
	nearest := 2 // letters that may be wrong
	for _, f := range t.formats {
		other := strings.ToLower(f.Name())
		d := spelling.Distance(other, low)
		if low != "" && strings.Contains(other, low) {
			d = 0
		}
		if d < nearest {
			near, nearest = nil, d
		}
		if d == nearest {
			near = append(near, f.Name())
		}
	}
	if low == "" || near == nil {
		return nil, fmt.Errorf("there is no format %q", name)
	}
	return nil, fmt.Errorf("there is no format %q; is it %s?", name, orList(near))
}

// Formats are all formats in the order of the table.
func (t *Table) Formats() []*Format { return slices.Clone(t.formats) }

// orList writes "a", "a or b", "a, b or c".
func orList(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
