package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxLine bounds a line of either side, in bytes.
const maxLine = 64 << 10

const (
	maxArgs = 16
	maxArg  = 256 // bytes of an argument, and of an answer
)

// Request is what the daemon is asked to do.
type Request struct {
	Do   string            `json:"do"`
	Args map[string]string `json:"args,omitempty"`
}

// fromClient is a line of the command's. One field is set.
type fromClient struct {
	Request *Request `json:"request,omitempty"` // the first line, and only that
	Answer  *string  `json:"answer,omitempty"`
	Stop    bool     `json:"stop,omitempty"` // end what goes on, and say when that is done
}

// fromServer is a line of the daemon's. One field is set.
type fromServer struct {
	Say      *string         `json:"say,omitempty"`
	Ask      *question       `json:"ask,omitempty"`
	Progress *progress       `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	End      *end            `json:"end,omitempty"` // the last line
}

type question struct {
	Text    string   `json:"text"`
	Choices []string `json:"choices,omitempty"`
}

type progress struct {
	What  string `json:"what"`
	Done  int    `json:"done"`
	Total int    `json:"total"`
}

type end struct {
	Error string `json:"error,omitempty"`
}

// parseClient reads a line of the command's.
func parseClient(line []byte) (m fromClient, err error) {
	if err := parse(line, &m); err != nil {
		return fromClient{}, err
	}
	if n := count(m.Request != nil, m.Answer != nil, m.Stop); n != 1 {
		return fromClient{}, fmt.Errorf("a line says %d things, want one", n)
	}
	if m.Answer != nil && len(*m.Answer) > maxArg {
		return fromClient{}, fmt.Errorf("an answer of %d bytes: more than %d", len(*m.Answer), maxArg)
	}
	if m.Request == nil {
		return m, nil
	}
	if m.Request.Do == "" || len(m.Request.Do) > maxArg {
		return fromClient{}, errors.New("a request for nothing, or for too much")
	}
	if n := len(m.Request.Args); n > maxArgs {
		return fromClient{}, fmt.Errorf("%d arguments: more than %d", n, maxArgs)
	}
	for name, value := range m.Request.Args {
		if len(name) > maxArg || len(value) > maxArg {
			return fromClient{}, fmt.Errorf("an argument of more than %d bytes", maxArg)
		}
	}
	return m, nil
}

// parseServer reads a line of the daemon's.
func parseServer(line []byte) (m fromServer, err error) {
	if err := parse(line, &m); err != nil {
		return fromServer{}, err
	}
	if n := count(m.Say != nil, m.Ask != nil, m.Progress != nil, m.Result != nil, m.End != nil); n != 1 {
		return fromServer{}, fmt.Errorf("a line says %d things, want one", n)
	}
	return m, nil
}

func count(set ...bool) (n int) {
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}

func parse(line []byte, v any) error {
	if !utf8.Valid(line) {
		return errors.New("a line is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("a line is not of this protocol: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more follows in a line")
	}
	return nil
}

// format writes a message as a line.
func format(m any) ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(b) >= maxLine {
		return nil, fmt.Errorf("a line of %d bytes: more than %d", len(b), maxLine)
	}
	return append(b, '\n'), nil
}
