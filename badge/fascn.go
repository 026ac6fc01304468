package badge

import (
	"fmt"
	"strings"
)

// FASC-N, the 200-bit number of a United States federal (PIV) card: 40
// characters of four data bits, least significant first, and odd parity. It is
// the one format of decimal digits and so beyond a Spec's words.
const (
	codecFASCN = "fasc-n"
	charBits   = 5
	fascnChars = 40
	fascnBits  = fascnChars * charBits

	fascnStart     = 0xB
	fascnSeparator = 0xD
	fascnEnd       = 0xF
	fascnLRC       = fascnChars - 1 // exclusive or of all characters before it
)

// fascnFixed are the characters that are the same in every FASC-N.
var fascnFixed = map[int]struct {
	value byte
	name  string
}{
	0: {fascnStart, "start sentinel"},
	5: {fascnSeparator, "field separator"}, 10: {fascnSeparator, "field separator"}, 17: {fascnSeparator, "field separator"},
	19: {fascnSeparator, "field separator"}, 21: {fascnSeparator, "field separator"},
	38: {fascnEnd, "end sentinel"},
}

// fascnDigits are the characters of each field, most significant first, and
// the parts of a FASC-N that they are made of.
var fascnDigits = [fieldCount]struct {
	characters []int
	parts      string
}{
	fieldFacility: {[]int{1, 2, 3, 4, 6, 7, 8, 9}, "agency, system"},
	fieldNumber:   {[]int{11, 12, 13, 14, 15, 16, 18, 20}, "credential, series, individual issue"},
	fieldIssue:    {[]int{22, 23, 24, 25, 26, 27, 28, 29, 30, 31}, "person"},
	fieldOEM:      {[]int{32, 33, 34, 35, 36, 37}, "organisational category, organisation, association"},
}

func fascnFields() (fields [fieldCount]field) {
	for i, digits := range fascnDigits {
		most := uint64(1)
		for range digits.characters {
			most *= 10
		}
		list := fmt.Sprintf("characters %s (%s)", formatPositions(digits.characters), digits.parts)
		fields[i] = field{name: fieldNames[i], list: list, max: most - 1}
	}
	return fields
}

func fascnLayout() string {
	l := []byte(encodeFASCN([fieldCount]uint64{}).bits)
	for i, digits := range fascnDigits {
		for _, ch := range digits.characters {
			for b := range charBits - 1 {
				l[ch*charBits+b] = fieldLetters[i]
			}
		}
	}
	for ch := range fascnChars {
		l[ch*charBits+charBits-1] = 'O'
	}
	for b := range charBits - 1 {
		l[fascnLRC*charBits+b] = 'X'
	}
	return string(l)
}

func decodeFASCN(bits string) (values [fieldCount]uint64, faults []error) {
	var chars [fascnChars]byte
	var lrc byte
	for i := range chars {
		var ones byte
		for b := range charBits {
			bit := bits[i*charBits+b] & 1
			ones ^= bit
			if b < charBits-1 {
				chars[i] |= bit << b
			}
		}
		if ones != 1 {
			faults = append(faults, &CharacterError{Character: i, Problem: "odd parity is wrong"})
		}
		if fixed, ok := fascnFixed[i]; ok && chars[i] != fixed.value {
			faults = append(faults, &CharacterError{Character: i, Problem: "it is not the " + fixed.name})
		}
		lrc ^= chars[i]
	}
	if lrc != 0 {
		faults = append(faults, &CharacterError{Character: fascnLRC, Problem: "the longitudinal check (LRC) is wrong"})
	}
	for i, digits := range fascnDigits {
		for _, ch := range digits.characters {
			if chars[ch] > 9 {
				faults = append(faults, &CharacterError{Character: ch, Problem: "it is not a decimal digit"})
			}
			values[i] = values[i]*10 + uint64(chars[ch])
		}
	}
	return values, faults
}

// encodeFASCN writes values that are within their fields' ranges.
func encodeFASCN(values [fieldCount]uint64) Frame {
	var chars [fascnChars]byte
	for i, fixed := range fascnFixed {
		chars[i] = fixed.value
	}
	for i, digits := range fascnDigits {
		v := values[i]
		for j := len(digits.characters) - 1; j >= 0; j-- {
			chars[digits.characters[j]] = byte(v % 10)
			v /= 10
		}
	}
	for _, ch := range chars[:fascnLRC] {
		chars[fascnLRC] ^= ch
	}
	var b strings.Builder
	b.Grow(fascnBits)
	for _, ch := range chars {
		parity := byte(1)
		for i := range charBits - 1 {
			bit := ch >> i & 1
			parity ^= bit
			b.WriteByte('0' + bit)
		}
		b.WriteByte('0' + parity)
	}
	return Frame{b.String()}
}
