// Package spelling deals with text that came from outside: it finds the word
// that somebody may have meant, and shows text on a terminal.
package spelling

import (
	"strings"
	"unicode"
)

// Printable keeps text from steering the terminal that shows it, and to one
// line: control and other unprintable characters become "?".
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// Nearest is the known word that is most like a mistyped one; empty if none is
// like it.
func Nearest(word string, known []string) string {
	best, distance := "", max(1, len(word)/3)+1
	for _, k := range known {
		if n := Distance(word, k); n < distance {
			best, distance = k, n
		}
	}
	return best
}

// Distance is the number of bytes to change, add or leave out to make a into b
// (Levenshtein).
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
