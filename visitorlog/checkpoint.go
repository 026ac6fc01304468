package visitorlog

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Origin names a log in its checkpoints (C2SP tlog-checkpoint) and is the
// name of its note key: one for each epoch of each controller.
func Origin(controller, epoch string) string { return "gatehouse/" + controller + "/" + epoch }

var originForm = regexp.MustCompile(`^gatehouse/([a-z0-9][a-z0-9-]{0,62})/([0-9a-f]{32})$`)

// SplitOrigin is the inverse of Origin.
func SplitOrigin(origin string) (controller, epoch string, err error) {
	m := originForm.FindStringSubmatch(origin)
	if m == nil {
		return "", "", fmt.Errorf("%q is not the origin of a controller's log", origin)
	}
	return m[1], m[2], nil
}

// Checkpoint is the signed part of a checkpoint: that the log Origin had Root
// as its root when it held Size records.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   tlog.Hash
}

// Text is the text that is signed: three lines, each with its newline.
func (c Checkpoint) Text() string {
	return string(log.Checkpoint{Origin: c.Origin, Size: c.Size, Hash: c.Root[:]}.Marshal())
}

// maxSize is the largest size of a tree that tlog can count.
const maxSize = 1<<62 - 1

// ParseCheckpoint parses the text of a checkpoint strictly: the origin is a
// controller's log, there are no extension lines, and the text is the only
// way to write what it says.
func ParseCheckpoint(text string) (Checkpoint, error) {
	var in log.Checkpoint
	rest, err := in.Unmarshal([]byte(text))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	c := Checkpoint{Origin: in.Origin, Size: in.Size}
	switch {
	case len(rest) > 0:
		return Checkpoint{}, errors.New("checkpoint: more than three lines")
	case len(in.Hash) != tlog.HashSize:
		return Checkpoint{}, fmt.Errorf("checkpoint: root of %d bytes", len(in.Hash))
	case in.Size > maxSize:
		return Checkpoint{}, fmt.Errorf("checkpoint: size %d is out of range", in.Size)
	case !bytes.Equal(in.Marshal(), []byte(text)):
		return Checkpoint{}, errors.New("checkpoint: not in its canonical form")
	}
	if _, _, err := SplitOrigin(in.Origin); err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	copy(c.Root[:], in.Hash)
	return c, nil
}

// OpenCheckpoint verifies a signed checkpoint and parses it. At least one of
// its signatures must be of a known verifier and none of a known verifier may
// be wrong. To demand several signatures (the log's and the cosigner's), open
// it once with each.
func OpenCheckpoint(signed string, known ...note.Verifier) (Checkpoint, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(known...))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	return ParseCheckpoint(n.Text)
}

// readCheckpoint parses a signed checkpoint without verifying its signatures.
func readCheckpoint(signed string) (Checkpoint, error) {
	text, _, ok := strings.Cut(signed, "\n\n")
	if !ok {
		return Checkpoint{}, errors.New("checkpoint: no signatures")
	}
	return ParseCheckpoint(text + "\n")
}

func signCheckpoint(c Checkpoint, signer func(origin string) (note.Signer, error)) (string, error) {
	s, err := signer(c.Origin)
	if err != nil {
		return "", fmt.Errorf("checkpoint signer: %w", err)
	}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, s)
	if err != nil {
		return "", fmt.Errorf("sign checkpoint: %w", err)
	}
	return string(signed), nil
}
