// Package badgeview shows card formats, frames and cards to people, and reads
// what they say of them.
package badgeview

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
)

// Find finds formats by the names that a person typed; the error names every
// one that there is not.
func Find(table *badge.Table, names []string) ([]*badge.Format, error) {
	var formats []*badge.Format
	var faults []error
	for _, name := range names {
		f, err := table.Find(name)
		if err != nil {
			faults = append(faults, fmt.Errorf("%w (\"gatehouse badge formats\" lists all)", err))
			continue
		}
		if !slices.Contains(formats, f) {
			formats = append(formats, f)
		}
	}
	return formats, errors.Join(faults...)
}

// FormatsJSON prints formats in the words of a [[format]], one object a line.
func FormatsJSON(w io.Writer, formats []*badge.Format) error {
	for _, f := range formats {
		err := cli.PrintJSON(w, struct {
			badge.Spec
			Protected bool   `json:"protected"`
			Unchecked string `json:"unchecked,omitempty"`
			Layout    string `json:"layout"`
		}{f.Spec(), f.Protected(), f.Unchecked(), f.Layout()})
		if err != nil {
			return err
		}
	}
	return nil
}

// List prints formats, one a line.
func List(out io.Writer, formats []*badge.Format) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tBITS\tFIELDS\tCHECK\tOF")
	for _, f := range formats {
		var fields []string
		for _, d := range f.Fields() {
			fields = append(fields, d.Name+" "+shorten(d.Positions))
		}
		switch s := f.Spec(); {
		case s.Codec != "":
			fields = []string{"facility, number, issue, oem in decimal digits"}
		case s.ReverseBytes:
			fields = append(fields, "bytes reversed")
		}
		checks := checksOf(f)
		for i, c := range checks {
			if head, mask, ok := strings.Cut(c, "("); ok {
				checks[i] = head + "(" + shorten(strings.TrimSuffix(mask, ")")) + ")"
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", f.Name(), f.Bits(), strings.Join(fields, ", "), cmp.Or(strings.Join(checks, " "), "UNPROTECTED"), f.Note())
	}
	return w.Flush()
}

// shorten keeps a position list short enough for a column.
func shorten(list string) string {
	const most = 14
	if len(list) <= most {
		return list
	}
	return list[:strings.LastIndexByte(list[:most], ',')+1] + "…"
}

// checksOf is what a format has against misreads; none if it is unprotected.
func checksOf(f *badge.Format) []string {
	s := f.Spec()
	checks := s.Parity
	if s.XOR > 0 {
		checks = append(checks, fmt.Sprintf("XOR of %d bits", s.XOR))
	}
	if s.Codec != "" {
		checks = append(checks, "odd parity and LRC")
	}
	return checks
}

// Describe prints formats bit by bit.
func Describe(w io.Writer, formats []*badge.Format) error {
	for i, f := range formats {
		if i > 0 {
			fmt.Fprintln(w)
		}
		s := f.Spec()
		fmt.Fprintf(w, "%s: %d bits. %s\n\n", f.Name(), f.Bits(), f.Note())
		const width = 50
		for at := 0; at < f.Bits(); at += width {
			fmt.Fprintf(w, "  %4d  %s\n", at, f.Layout()[at:min(at+width, f.Bits())])
		}
		fmt.Fprintln(w)
		for _, d := range f.Fields() {
			values := fmt.Sprintf("0 to %d", d.Max)
			switch {
			case d.Fixed:
				values = fmt.Sprintf("always %d", d.Initial)
			case d.Initial != 0:
				values += fmt.Sprintf(", %d unless said otherwise", d.Initial)
			}
			fmt.Fprintf(w, "  %-9s %s: %s\n", d.Name, d.Positions, values)
		}
		if s.ReverseBytes {
			fmt.Fprintf(w, "  %-9s the number's bytes come last first\n", "bytes")
		}
		if s.IgnoreUnused {
			fmt.Fprintf(w, "  %-9s bits that belong to nothing may be 1\n", "unused")
		}
		checks := checksOf(f)
		for _, c := range checks {
			fmt.Fprintf(w, "  %-9s %s\n", "check", c)
		}
		switch open := f.Unchecked(); {
		case len(checks) == 0:
			fmt.Fprintf(w, "  %-9s none: UNPROTECTED, a misread frame fits too\n", "check")
		case open != "":
			fmt.Fprintf(w, "  %-9s nothing covers bits %s: a misread there goes unnoticed\n", "unchecked", open)
		}
	}
	_, err := fmt.Fprintln(w, "\nF facility, N number, I issue, M maker's code (oem), E and O even and odd parity,\nX check, 0 and 1 always so, . unused. The first bit on the wire is bit 0.")
	return err
}
