package badge

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// errHexLength is for hexadecimal text that could be any of several lengths.
var errHexLength = errors.New("a hexadecimal frame must say how many bits it has, as in 0x2F623AE/26: its first digit may stand for fewer than four")

// ParseText reads a frame as people and other tools write it: as 0 and 1, or
// as a hexadecimal number whose last bit is the last on the wire, such as
// 0x2F623AE/26. Spaces and the separators _ : - . are left out. Bits is the
// length where the text does not say it, 0 if it is not known; then, what is
// not exactly that many 0 and 1 is taken as hexadecimal. No error text holds
// the frame.
func ParseText(text string, bits int) (Frame, error) {
	text = strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n_:-.", r) {
			return -1
		}
		return r
	}, text)
	if digits, length, ok := strings.Cut(text, "/"); ok {
		n, err := strconv.Atoi(length)
		if err != nil || n < 1 || n > MaxBits {
			return Frame{}, fmt.Errorf("%q is not a number of bits from 1 to %d", length, MaxBits)
		}
		text, bits = digits, n
	}
	if bits < 0 || bits > MaxBits {
		return Frame{}, fmt.Errorf("%d is not a number of bits from 1 to %d", bits, MaxBits)
	}
	digits, marked := strings.CutPrefix(text, "0x")
	if !marked {
		digits, marked = strings.CutPrefix(text, "0X")
	}
	binary := strings.Trim(digits, "01") == ""
	switch {
	case digits == "":
		return Frame{}, errors.New("the frame is empty")
	case !marked && binary && (bits == 0 || len(digits) == bits):
		return ParseFrame(digits)
	case !marked && binary && len(digits)*4 < bits:
		return Frame{}, fmt.Errorf("the frame has %d bits, not %d", len(digits), bits)
	}
	for i := range len(digits) {
		if !isHex(digits[i]) {
			return Frame{}, fmt.Errorf("%q at position %d is no digit of a frame: write it as 0 and 1, or as a hexadecimal number", digits[i], i)
		}
	}
	if bits == 0 {
		return Frame{}, errHexLength
	}
	return parseHex(digits, bits)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func parseHex(digits string, bits int) (Frame, error) {
	digits = strings.TrimLeft(digits, "0")
	if len(digits) > MaxBits/4 {
		return Frame{}, fmt.Errorf("the frame has more than %d bits", MaxBits)
	}
	var b strings.Builder
	for i := range len(digits) {
		v, err := strconv.ParseUint(digits[i:i+1], 16, 4)
		if err != nil {
			return Frame{}, fmt.Errorf("%q is not a hexadecimal digit", digits[i])
		}
		fmt.Fprintf(&b, "%04b", v)
	}
	significant := strings.TrimLeft(b.String(), "0")
	if len(significant) > bits {
		return Frame{}, fmt.Errorf("the hexadecimal number has %d bits, more than %d", len(significant), bits)
	}
	return ParseFrame(strings.Repeat("0", bits-len(significant)) + significant)
}

// Hex writes a frame in clear as ParseText reads it, such as 0x2F623AE/26. It
// identifies a card, like Bits.
func (f Frame) Hex() string {
	padded := strings.Repeat("0", (4-len(f.bits)%4)%4) + f.bits
	var b strings.Builder
	b.WriteString("0x")
	for i := 0; i < len(padded); i += 4 {
		var v uint64
		for _, bit := range []byte(padded[i : i+4]) {
			v = v<<1 | uint64(bit&1)
		}
		b.WriteByte("0123456789ABCDEF"[v])
	}
	return b.String() + "/" + strconv.Itoa(len(f.bits))
}
