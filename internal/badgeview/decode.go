package badgeview

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
)

// Decoder says of frames what cards they are.
type Decoder struct {
	Stdout, Stderr io.Writer
	All            *badge.Table
	Asked          *badge.Table // only these formats; nil: all
	Bits           int          // of a frame that is written in hexadecimal without its length; 0: it must say
	Printed        *Printed     // what stands on the cards; nil: unknown

	failed bool
	noted  map[string]bool
}

// Failed says that a frame was no card.
func (d *Decoder) Failed() bool { return d.failed }

// Decode prints what one frame is. The error is that of Stdout; a frame at
// fault is only noted.
func (d *Decoder) Decode(label, text string) error {
	frame, err := badge.ParseText(text, d.Bits)
	if err != nil {
		d.fail("%s: %v", label, err)
		return nil
	}
	table := cmp.Or(d.Asked, d.All)
	report := table.Identify(frame)
	fits := report.Fits
	if d.Printed != nil {
		fits = slices.DeleteFunc(slices.Clone(fits), func(c badge.Credential) bool { return !d.Printed.matches(c) })
	}
	for _, c := range fits {
		err := cli.PrintJSON(d.Stdout, card{c.Format, frame.Len(), c.Facility, c.Number, c.Issue, c.OEM})
		if err != nil {
			return err
		}
	}
	switch {
	case len(report.Fits) == 0:
		d.explain(label, frame, report)
		return nil
	case len(fits) == 0:
		d.fail("%s (%d bits) fits %s, but not with the number that is printed", label, frame.Len(), names(report.Fits))
		d.locate(frame)
	default:
		d.note(table, fits)
	}
	for _, hint := range report.Hints {
		fmt.Fprintf(d.Stderr, "%s: %s\n", label, hint)
	}
	return nil
}

func (d *Decoder) fail(format string, args ...any) {
	d.failed = true
	fmt.Fprintf(d.Stderr, format+"\n", args...)
}

// explain says why a frame fits nothing.
func (d *Decoder) explain(label string, frame badge.Frame, report badge.Report) {
	say := func(text string) { fmt.Fprintf(d.Stderr, "  %s\n", text) }
	if d.Asked == nil {
		d.fail("%s (%d bits) fits no format", label, frame.Len())
		for _, miss := range report.Misses {
			say(miss.Error())
		}
		if report.Nearest != "" {
			say(report.Nearest)
		}
	} else {
		d.fail("%s (%d bits) does not fit", label, frame.Len())
		for _, f := range d.Asked.Formats() {
			if _, err := f.Decode(frame); err != nil {
				say(err.Error())
			}
		}
		if others := d.All.Identify(frame).Fits; len(others) > 0 {
			say("It fits " + names(others) + ", not asked for here.")
			report.Advice = ""
		}
	}
	d.locate(frame)
	for _, hint := range report.Hints {
		say(hint)
	}
	if report.Advice != "" {
		say(report.Advice)
	}
}

// locate says where the printed number stands in a frame.
func (d *Decoder) locate(frame badge.Frame) {
	if d.Printed == nil {
		return
	}
	found := badge.Locate(frame, d.Printed.number)
	for _, list := range found {
		fmt.Fprintf(d.Stderr, "  The printed number stands in bits %s; a [[format]] with number = %q reads it, or a longer list if zeros lead.\n", list, list)
	}
	if found == nil {
		fmt.Fprintln(d.Stderr, "  The printed number does not stand in the frame as such: it may be shortened, or the maker's own.")
	}
}

// note says once of each set of formats what a person should know of them.
func (d *Decoder) note(table *badge.Table, fits []badge.Credential) {
	once := func(text string) {
		if !d.noted[text] {
			if d.noted == nil {
				d.noted = map[string]bool{}
			}
			d.noted[text] = true
			fmt.Fprintln(d.Stderr, "note:", text)
		}
	}
	if len(fits) > 1 {
		once(fmt.Sprintf("%s fit alike: the frame cannot tell them apart. Give the number on the card with --printed, or the reader's format with --format.", names(fits)))
	}
	var open []badge.Credential
	for _, c := range fits {
		if f, ok := table.Format(c.Format); ok && !f.Protected() {
			open = append(open, c)
		}
	}
	if len(open) > 0 {
		once(fmt.Sprintf("unprotected, so a misread frame fits too: %s", names(open)))
	}
}

func names(credentials []badge.Credential) string {
	list := make([]string, len(credentials))
	for i, c := range credentials {
		list[i] = c.Format
	}
	return strings.Join(list, ", ")
}

// Printed is the number that stands on a card.
type Printed struct {
	facility    uint64
	hasFacility bool
	number      uint64
}

// ParsePrinted reads the number on a card, or facility code and number as in
// 123,4567.
func ParsePrinted(s string) (*Printed, error) {
	p := &Printed{}
	facility, number, both := strings.Cut(s, ",")
	if !both {
		number = s
	}
	var err error
	if p.number, err = strconv.ParseUint(strings.TrimSpace(number), 10, 64); err == nil && both {
		p.hasFacility = true
		p.facility, err = strconv.ParseUint(strings.TrimSpace(facility), 10, 64)
	}
	if err != nil {
		return nil, errors.New("--printed takes the number on the card, or facility code and number as in 123,4567")
	}
	return p, nil
}

func (p *Printed) matches(c badge.Credential) bool {
	return c.Number == p.number && (!p.hasFacility || c.Facility == p.facility)
}
