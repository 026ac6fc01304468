package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Problem is an answer that says what went wrong, as RFC 9457 has it.
type Problem struct {
	Type   string  `json:"type"` // urn:gatehouse:problem: and one of the words below
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Detail string  `json:"detail,omitempty"`
	Faults []Fault `json:"faults,omitempty"` // of an object, or of an import
	More   int     `json:"more,omitempty"`   // faults that are not listed

	retry int // seconds after which it may be tried again; 0: that would not help
}

// Fault is one thing that is wrong with what was sent. It has no card number and
// no digit of a PIN.
type Fault struct {
	Line  int    `json:"line,omitempty"`  // of an import, from 1
	Field string `json:"field,omitempty"` // of an object
	Text  string `json:"text"`
}

const problemType = "urn:gatehouse:problem:"

// The problems, and what they are answered with.
var problems = map[string]struct {
	status int
	title  string
}{
	"malformed":      {http.StatusBadRequest, "The request cannot be read"},
	"why-missing":    {http.StatusBadRequest, "A change says why it is made"},
	"unauthorised":   {http.StatusUnauthorized, "Who calls is not known"},
	"forbidden":      {http.StatusForbidden, "The caller may not do this"},
	"not-found":      {http.StatusNotFound, "It is not there"},
	"method":         {http.StatusMethodNotAllowed, "This cannot be done here"},
	"exists":         {http.StatusConflict, "It is there already"},
	"in-use":         {http.StatusConflict, "Others name it"},
	"refused":        {http.StatusConflict, "As things stand it cannot be done"},
	"under-way":      {http.StatusConflict, "The same request is under way"},
	"changed":        {http.StatusPreconditionFailed, "It changed meanwhile"},
	"too-large":      {http.StatusRequestEntityTooLarge, "The request is too large"},
	"media-type":     {http.StatusUnsupportedMediaType, "The body is of another type"},
	"invalid":        {http.StatusUnprocessableEntity, "What was sent is not valid"},
	"key-used":       {http.StatusUnprocessableEntity, "The key was used for another request"},
	"if-match":       {http.StatusPreconditionRequired, "Say which version the change is for"},
	"too-many":       {http.StatusTooManyRequests, "Too many failed attempts"},
	"internal":       {http.StatusInternalServerError, "The CRM failed"},
	"busy":           {http.StatusServiceUnavailable, "The CRM is busy"},
	"not-publishing": {http.StatusServiceUnavailable, "This CRM publishes no policy"},
}

// Error is the problem as a log has it.
func (p *Problem) Error() string { return p.Type + ": " + p.Detail }

func problem(word, format string, args ...any) *Problem {
	known, ok := problems[word]
	if !ok {
		panic("api: no problem is called " + word)
	}
	return &Problem{Type: problemType + word, Title: known.title, Status: known.status, Detail: fmt.Sprintf(format, args...)}
}

// fault is what is wrong with a field of a body, found while it was read.
type fault struct{ field, text string }

func (e *fault) Error() string { return e.field + ": " + e.text }

// errBody is that a body cannot be read.
func errBody(err error) error {
	if f, ok := errors.AsType[*fault](err); ok {
		return &Problem{Type: problemType + "invalid", Title: problems["invalid"].title, Status: problems["invalid"].status, Faults: []Fault{{Field: f.field, Text: f.text}}}
	}
	return problem("malformed", "%v", err)
}

// problemOf says what an error is to the caller. What is nobody's business comes
// back as internal, and is to be logged.
func problemOf(err error) (p *Problem, internal bool) {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p, false
	}
	if invalid, ok := errors.AsType[*registry.Invalid](err); ok {
		p := problem("invalid", "%s", "")
		for _, f := range invalid.Faults {
			p.Faults = append(p.Faults, Fault{Field: f.Field, Text: f.Text})
		}
		return p, false
	}
	if faults, ok := errors.AsType[*fields.Faults](err); ok {
		p := problem("invalid", "nothing was changed")
		for _, f := range faults.List {
			p.Faults = append(p.Faults, Fault{Line: f.Line, Text: f.Text})
		}
		p.More = faults.More
		return p, false
	}
	if refused, ok := errors.AsType[*registry.Refused](err); ok {
		return problem("refused", "%s", refused), false
	}
	for _, known := range [...]struct {
		is   error
		word string
	}{
		{registry.ErrNotFound, "not-found"}, {registry.ErrExists, "exists"}, {registry.ErrChanged, "changed"}, {registry.ErrInUse, "in-use"},
		{ErrNotPublishing, "not-publishing"},
	} {
		if errors.Is(err, known.is) {
			return problem(known.word, "%v", err), false
		}
	}
	if errors.Is(err, registry.ErrBusy) {
		return busy("another program is writing to the registry, such as an import"), false
	}
	if errors.Is(err, context.DeadlineExceeded) {
		p := problem("busy", "it took too long")
		p.retry = 1
		return p, true
	}
	return problem("internal", "what it was stands in the CRM's log"), true
}

// answer is the problem as it is sent.
func (p *Problem) answer() *answer {
	a := &answer{status: p.Status, kind: "application/problem+json", body: p, header: make(http.Header)}
	if p.Status == http.StatusUnauthorized {
		a.header.Set("WWW-Authenticate", `Bearer realm="gatehouse"`)
	}
	if p.retry > 0 {
		a.header.Set("Retry-After", strconv.Itoa(p.retry))
	}
	return a
}
