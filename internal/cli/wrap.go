package cli

import "strings"

// lineWidth is how many characters a line of prose has at most.
const lineWidth = 78

// Wrap breaks a paragraph into lines that fit a terminal.
func Wrap(text string) string {
	var b strings.Builder
	n := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case n+1+len(word) > lineWidth:
			b.WriteByte('\n')
			n = 0
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += len(word)
	}
	return b.String()
}
