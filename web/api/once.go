package api

import (
	"context"
	"encoding/base32"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

// kept is an answer as it is kept, for a request that comes again.
type kept struct {
	Status int             `json:"status"`
	Header http.Header     `json:"header,omitempty"`
	Kind   string          `json:"kind,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
}

// once does what a POST asks for once, however often it comes with the same
// Idempotency-Key: whoever comes again is told what was answered the first time.
// Where the CRM stopped between the change and the keeping of its answer, an
// object that got its id here gets the same again, and so is not made twice.
func (a *API) once(c *call, rt route) (*answer, error) {
	key, err := one(c.Header, keyHeader)
	if err != nil {
		return nil, err
	}
	if key == "" {
		return rt.do(c)
	}
	if !fields.IsName(key) {
		return nil, problem("malformed", "%s: %s", keyHeader, fields.NameRule)
	}
	// With the reason and the version: a request that gives others is another.
	text := []byte(strings.Join([]string{"\x00api request\x00" + c.client.Name, key, c.Method, c.URL.Path, c.Header.Get(whyHeader), c.Header.Get("If-Match"), ""}, "\x00"))
	request := a.o.Index.Index(append(text, c.body...))
	if !a.pending.begin(c.client.Name, key) {
		p := problem("under-way", "try again later")
		p.retry = 1
		return nil, p
	}
	defer a.pending.end(c.client.Name, key)
	was, err := a.o.Clients.Answered(c.Context(), c.client.Name, key, request)
	if errors.Is(err, clients.ErrOtherRequest) {
		return nil, problem("key-used", "take a new %s for each request", keyHeader)
	}
	if err != nil {
		return nil, err
	}
	if was != nil {
		return reopen(was)
	}
	c.newID = func(prefix string) string {
		return prefix + "-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(request[:10]))
	}
	c.again = true
	out, err := rt.do(c)
	if err != nil {
		p, internal := problemOf(err)
		if internal || p.Status >= http.StatusInternalServerError {
			return nil, err // which is worth another try
		}
		out = p.answer()
	}
	if out.secret {
		return out, nil // what is shown once is kept nowhere
	}
	if err := a.keep(c, key, request, out); err != nil {
		// It is done, and is told so.
		a.o.Logger.Error("the API's answer was not kept", "client", c.client.Name, "error", err)
	}
	return out, nil
}

func (a *API) keep(c *call, key string, request [16]byte, out *answer) error {
	k := kept{Status: out.status, Header: out.header, Kind: out.kind}
	if out.body != nil {
		body, err := encode(out.body)
		if err != nil {
			return err
		}
		k.Body = body
	}
	text, err := encode(k)
	if err != nil {
		return err
	}
	// The change is made: whoever asked for it may have gone meanwhile.
	return a.o.Clients.Keep(context.WithoutCancel(c.Context()), c.client.Name, key, request, text)
}

func reopen(text []byte) (*answer, error) {
	var k kept
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, err
	}
	a := &answer{status: k.Status, header: k.Header, kind: k.Kind}
	if k.Body != nil {
		a.body = k.Body
	}
	return a, nil
}

// pending are the keys of the requests that are under way.
type pending struct {
	mu   sync.Mutex
	keys map[[2]string]bool
}

func (p *pending) begin(client, key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys[[2]string{client, key}] {
		return false
	}
	if p.keys == nil {
		p.keys = make(map[[2]string]bool)
	}
	p.keys[[2]string{client, key}] = true
	return true
}

func (p *pending) end(client, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.keys, [2]string{client, key})
}
