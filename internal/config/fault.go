package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong in a configuration file.
type Fault struct {
	File string
	Line int    // from 1
	Path string // of the field, such as door[0].unlock; empty: the whole file
	What string // what is wrong and what to do
}

func (f Fault) Error() string {
	if f.Path == "" {
		return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.What)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Path, f.What)
}

// Faults is everything that is wrong in a configuration file, in the order of
// its lines. Its text has one line for each.
type Faults []Fault

func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each fault to errors.As.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// report gathers the faults of one file.
type report struct {
	file   string
	lines  positions
	faults Faults
}

// add reports a fault at a path. Where the path is at fault already nothing is
// added: what does not decode is not missing or out of range besides.
func (r *report) add(path, format string, args ...any) {
	if slices.ContainsFunc(r.faults, func(f Fault) bool { return f.Path == path }) {
		return
	}
	r.faults = append(r.faults, Fault{File: r.file, Line: r.lines.near(path), Path: path, What: fmt.Sprintf(format, args...)})
}

// faulty reports whether a path, or something below it, is at fault.
func (r *report) faulty(path string) bool {
	return slices.ContainsFunc(r.faults, func(f Fault) bool {
		rest, below := strings.CutPrefix(f.Path, path)
		return below && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// err is all that was reported, in the order of the lines; nil if nothing.
func (r *report) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(r.faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Path, b.Path))
	})
	return r.faults
}
