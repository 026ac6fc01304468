package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Confirm asks a person a question, who has to type "yes". Where nobody sits
// at a terminal it asks nothing and returns asked as false.
func Confirm(in io.Reader, out io.Writer, question string) (yes, asked bool, err error) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false, false, nil
	}
	if _, err := fmt.Fprintf(out, "%s Type yes or no: ", question); err != nil {
		return false, true, err
	}
	line, err := bufio.NewReader(io.LimitReader(f, 64)).ReadString('\n')
	if err != nil {
		return false, true, fmt.Errorf("read the answer: %w", err)
	}
	return strings.TrimSpace(line) == "yes", true, nil
}
