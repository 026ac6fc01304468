package door

import (
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
)

// LockoutStates begin the keys of the log's state under which failures are
// kept.
const LockoutStates = "lockout/"

// LockedOut reads from those states who is locked out now. What cannot be read
// is left out: at the door it is a fault.
func LockedOut(states map[string][]byte, now access.Moment, limits access.Limits) (people, readers []string) {
	for _, key := range slices.Sorted(maps.Keys(states)) {
		f, err := access.ParseFailures(states[key])
		if err != nil {
			continue
		}
		if person, ok := strings.CutPrefix(key, personKey("")); ok && f.Locked(now, limits.PersonAfter, limits.For) {
			people = append(people, person)
		}
		if reader, ok := strings.CutPrefix(key, readerKey("")); ok && f.Locked(now, limits.ReaderAfter, limits.For) {
			readers = append(readers, reader)
		}
	}
	return people, readers
}
