package allowlist

import (
	"crypto/subtle"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
)

// The length of a PIN, in decimal digits.
const minPIN, maxPIN = 4, 16

// pinHashSize is the length of a PIN as it is kept.
const pinHashSize = 16

// Beside the cards, whose canonical form begins with the name of a format, the
// keyed hash stands for people and for their PINs. No format's name begins so.
const (
	personPrefix = "\x00person\x00"
	pinPrefix    = "\x00pin\x00"
)

// personKey is the key of the row of somebody who may be identified without a
// card.
func personKey(index Indexer, person string) [16]byte {
	return index.Index([]byte(personPrefix + person))
}

// hashPIN is a PIN as it is kept: without the key it says nothing, and of two
// people with the same PIN it is not the same.
func hashPIN(index Indexer, person string, digits []byte) [pinHashSize]byte {
	b := make([]byte, 0, len(pinPrefix)+len(person)+1+len(digits)) // at once: no copy is left behind
	b = append(append(append(b, pinPrefix...), person...), 0)
	b = append(b, digits...)
	defer clear(b)
	return index.Index(b)
}

// validPIN says whether s is as many decimal digits as a PIN has.
func validPIN(s string) bool {
	return minPIN <= len(s) && len(s) <= maxPIN && strings.Trim(s, "0123456789") == ""
}

func checkPIN(index Indexer, e *access.Entry, digits []byte) (ok, duress bool) {
	sum := hashPIN(index, e.Person, digits)
	plain, threat := samePIN(sum, e.PIN), samePIN(sum, e.DuressPIN)
	return plain|threat == 1, threat == 1
}

// samePIN is 1 if a PIN is the one that was kept. A PIN that is not there takes
// as long as another one.
func samePIN(sum [pinHashSize]byte, kept []byte) int {
	var k [pinHashSize]byte
	copy(k[:], kept)
	return subtle.ConstantTimeEq(int32(len(kept)), int32(len(k))) & subtle.ConstantTimeCompare(sum[:], k[:])
}
