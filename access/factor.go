package access

import (
	"fmt"
	"math/bits"
	"strings"
)

// Factor is a way for a person to prove who they are. Factors add up to a set.
type Factor uint8

// The factors.
const (
	Badge Factor = 1 << iota
	PIN
	Fingerprint
	Iris
	// OneTimeCode is typed in the place of a badge, once.
	OneTimeCode
	// TOTP is the code of RFC 6238 that the person's device shows.
	TOTP

	allFactors = 1<<iota - 1
)

var factorNames = [...]string{"badge", "pin", "fingerprint", "iris", "code", "totp"}

// Has reports whether all of g is in f.
func (f Factor) Has(g Factor) bool { return f&g == g }

// Count is how many factors f is.
func (f Factor) Count() int { return bits.OnesCount8(uint8(f & allFactors)) }

// Names are the names of the factors, in a fixed order.
func (f Factor) Names() []string {
	var names []string
	for i, name := range factorNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String writes a set as badge+fingerprint.
func (f Factor) String() string { return strings.Join(f.Names(), "+") }

// ParseFactors reads a set such as badge+fingerprint; none, one that is not
// known, and one twice are errors.
func ParseFactors(s string) (Factor, error) {
	var f Factor
	for _, word := range strings.Split(s, "+") {
		g, ok := parseFactor(strings.TrimSpace(word))
		switch {
		case !ok:
			return 0, fmt.Errorf("%q is not a factor: use %s, joined by +", word, strings.Join(factorNames[:], ", "))
		case f.Has(g):
			return 0, fmt.Errorf("%q names %s twice", s, g)
		}
		f |= g
	}
	return f, nil
}

func parseFactor(name string) (Factor, bool) {
	for i, n := range factorNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// Rule is what a door asks of people within a schedule: any one of the sets.
type Rule struct {
	Schedule *Schedule
	AnyOf    []Factor
}

// Substitution is another factor of a person who cannot give one.
type Substitution struct{ Of, By Factor }
