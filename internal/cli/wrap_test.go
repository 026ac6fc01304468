package cli

import (
	"strings"
	"testing"
)

func TestWrapFitsATerminalAndLosesNoWord(t *testing.T) {
	text := strings.Repeat("Keys are files that only their owner can read. ", 9) + strings.Repeat("x", lineWidth+5)
	got := Wrap(text)
	if strings.Join(strings.Fields(got), " ") != text {
		t.Errorf("words were lost: %q", got)
	}
	for line := range strings.Lines(got) {
		if line = strings.TrimSuffix(line, "\n"); len(line) > lineWidth && strings.Contains(line, " ") {
			t.Errorf("line of %d characters: %q", len(line), line)
		}
	}
	if Wrap("") != "" {
		t.Error("nothing was wrapped to something")
	}
}
