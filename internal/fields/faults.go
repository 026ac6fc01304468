package fields

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

// maxFaults is how many faults are kept; the rest are counted.
const maxFaults = 50

// Fault is something wrong at a line of a file. Its text has no number of a card
// and no digit of a PIN.
type Fault struct {
	Line int    `json:"line"` // from 1
	Text string `json:"text"`
}

// Faults is all that is wrong with a file.
type Faults struct {
	List []Fault // the first 50; Err sorts them by their lines
	More int     // how many more there are
}

// Total is the number of faults.
func (f *Faults) Total() int { return len(f.List) + f.More }

// Error has a line for each fault that is kept.
func (f *Faults) Error() string {
	lines := make([]string, 0, len(f.List)+1)
	for _, v := range f.List {
		lines = append(lines, fmt.Sprintf("line %d: %s", v.Line, v.Text))
	}
	if f.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", f.More))
	}
	return strings.Join(lines, "\n")
}

// Add adds a fault. What would steer a terminal is taken out of its text.
func (f *Faults) Add(line int, format string, args ...any) {
	if len(f.List) == maxFaults {
		f.More++
		return
	}
	f.List = append(f.List, Fault{line, spelling.Printable(fmt.Sprintf(format, args...))})
}

// AddAll adds a fault for each line of err's text.
func (f *Faults) AddAll(line int, prefix string, err error) {
	for text := range strings.SplitSeq(err.Error(), "\n") {
		f.Add(line, "%s%s", prefix, text)
	}
}

// Err is f with its faults in the order of their lines; nil where there is none.
func (f *Faults) Err() error {
	if len(f.List) == 0 {
		return nil
	}
	slices.SortStableFunc(f.List, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return f
}
