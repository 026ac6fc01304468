package visitorlog

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Fault is what is wrong with a stored log, and where: the records First to
// Last. Both are -1 where the fault is not in a record or in a node over
// some.
type Fault struct {
	First, Last int64
	What        string
}

// Error names the sequences and what is wrong.
func (f *Fault) Error() string {
	switch {
	case f.First < 0:
		return f.What
	case f.First == f.Last:
		return fmt.Sprintf("record %d: %s", f.First, f.What)
	}
	return fmt.Sprintf("records %d to %d: %s", f.First, f.Last, f.What)
}

func recordFault(seq int64, what string) *Fault { return &Fault{First: seq, Last: seq, What: what} }

// nodeFault names a node by the records that it covers.
func nodeFault(ix int64, what string) *Fault {
	level, n := tlog.SplitStoredHashIndex(ix)
	return &Fault{First: n << level, Last: (n+1)<<level - 1, What: fmt.Sprintf("their tree node (stored hash %d, level %d) %s", ix, level, what)}
}
