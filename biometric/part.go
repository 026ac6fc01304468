package biometric

import (
	"slices"
	"strings"
)

// Modality is a kind of biometric.
type Modality string

// The modalities.
const (
	Fingerprint Modality = "fingerprint"
	Iris        Modality = "iris"
)

// Part is a finger or an eye.
type Part string

// The parts.
const (
	RightThumb  Part = "right-thumb"
	RightIndex  Part = "right-index"
	RightMiddle Part = "right-middle"
	RightRing   Part = "right-ring"
	RightLittle Part = "right-little"
	LeftThumb   Part = "left-thumb"
	LeftIndex   Part = "left-index"
	LeftMiddle  Part = "left-middle"
	LeftRing    Part = "left-ring"
	LeftLittle  Part = "left-little"
	RightIris   Part = "right-iris"
	LeftIris    Part = "left-iris"
)

var parts = [...]Part{
	RightThumb, RightIndex, RightMiddle, RightRing, RightLittle,
	LeftThumb, LeftIndex, LeftMiddle, LeftRing, LeftLittle,
	RightIris, LeftIris,
}

// Parts are all parts of a modality, the right hand's first.
func Parts(m Modality) []Part {
	return slices.DeleteFunc(slices.Clone(parts[:]), func(p Part) bool { return p.Modality() != m })
}

// Valid reports whether p is one of the parts.
func (p Part) Valid() bool { return slices.Contains(parts[:], p) }

// Modality is what p is of.
func (p Part) Modality() Modality {
	if p == RightIris || p == LeftIris {
		return Iris
	}
	return Fingerprint
}

// Words are the part in words, such as "right index finger".
func (p Part) Words() string {
	side, what, _ := strings.Cut(string(p), "-")
	switch what {
	case "iris":
		return side + " eye"
	case "thumb":
		return side + " thumb"
	}
	return side + " " + what + " finger"
}
