// Package api is the CRM's HTTP interface for programs: JSON over TLS, for the
// registry's people, credentials, groups, doors and visits, its audit, and the
// publishing of what it says to the doors. configs/registry.openapi.json is the
// contract.
//
// Who calls is known by a client certificate or a bearer token, and stands in the
// audit with the reason that each change gives. Every route is a line in one
// table, with the scopes that it needs.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

const (
	answerTimeout = 20 * time.Second // of all but an import
	importTimeout = 10 * time.Minute
	maxAtOnce     = 64 // requests
	whyHeader     = "Gatehouse-Why"
	keyHeader     = "Idempotency-Key"
	typeJSON      = "application/json"
	typePatch     = "application/merge-patch+json"
	typeCSV       = "text/csv"
)

// Options is what an API needs from outside.
type Options struct {
	Registry *registry.Registry
	Clients  *clients.Store
	Index    registry.Indexer // keyed: it tells requests that come again
	Formats  *badge.Table     // of cards
	Zone     *time.Location   // of an import's dates
	Policy   Policy           // nil: this CRM publishes none
	Doors    Doors            // nil: as Policy
	Clock    func() time.Time
	Logger   *slog.Logger // nil: nobody listens
}

// API answers requests.
type API struct {
	o         Options
	mux       *http.ServeMux
	failures  failures
	slots     chan struct{} // one for each request under way
	importing chan struct{} // one may be
	pending   pending
	answers   [6]atomic.Uint64 // by the first digit of their status
	turned    atomic.Uint64    // callers that were turned away
}

// TurnedAway counts the callers that nobody had let in.
func (a *API) TurnedAway() uint64 { return a.turned.Load() }

// Answers counts what was answered, by the class of status, such as 4xx.
func (a *API) Answers() map[string]uint64 {
	counts := make(map[string]uint64)
	for class := 2; class < len(a.answers); class++ {
		counts[strconv.Itoa(class)+"xx"] = a.answers[class].Load()
	}
	return counts
}

// New is an API.
func New(o Options) *API {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &API{o: o, mux: http.NewServeMux(), slots: make(chan struct{}, maxAtOnce), importing: make(chan struct{}, 1)}
	methods := make(map[string][]string)
	for _, r := range a.routes() {
		a.mux.Handle(r.method+" "+r.path, a.handle(r))
		methods[r.path] = append(methods[r.path], r.method)
	}
	for path, allowed := range methods {
		slices.Sort(allowed)
		a.mux.Handle(path, a.answering(func(*call) (*answer, error) {
			p := problem("method", "use %s", strings.Join(allowed, ", ")).answer()
			p.header.Set("Allow", strings.Join(allowed, ", "))
			return p, nil
		}))
	}
	a.mux.Handle("/", a.answering(func(*call) (*answer, error) { return nil, errNoPath() }))
	return a
}

// route is one thing that can be asked of the API.
type route struct {
	method, path string
	scopes       []clients.Scope // all are needed
	changes      bool            // so it says why, and who is known
	media        []string        // types of the body; none: it has none
	limit        int64           // bytes of the body
	timeout      time.Duration
	query        []string // the names that its query may have
	do           func(*call) (*answer, error)
}

// call is a request under way.
type call struct {
	*http.Request
	client clients.Client
	change registry.Change // of a route that changes something
	body   []byte
	newID  func(prefix string) string // of a new object
	again  bool                       // it may have been here before
}

// answer is what is sent.
type answer struct {
	status int
	header http.Header
	kind   string // of the body; "": JSON
	body   any    // nil: none
	secret bool   // it is given once, and not kept
}

// ServeHTTP answers a request. Who is not known learns of no path whether it is
// there.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	default:
		a.send(w, busy("%d requests are under way", maxAtOnce).answer())
		return
	}
	c, err := a.authenticate(r)
	if err != nil {
		a.fail(w, r, c, err)
		return
	}
	// The mux would redirect from a path that is not clean, which programs that do
	// not follow take for success.
	if p := r.URL.EscapedPath(); path.Clean(p) != p {
		a.fail(w, r, c, errNoPath())
		return
	}
	a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, c)))
}

type clientKey struct{}

func errNoPath() error { return problem("not-found", "there is no such path") }

func busy(format string, args ...any) *Problem {
	p := problem("busy", format, args...)
	p.retry = 1
	return p
}

// answering is what do answers.
func (a *API) answering(do func(*call) (*answer, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{Request: r, client: r.Context().Value(clientKey{}).(clients.Client), newID: registry.NewID}
		defer func() {
			if p := recover(); p != nil {
				a.fail(w, r, c.client, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
		}()
		out, err := do(c)
		if err != nil {
			a.fail(w, r, c.client, err)
			return
		}
		a.send(w, out)
	})
}

// handle is a route with all that routes have in common.
func (a *API) handle(rt route) http.Handler {
	if rt.timeout == 0 {
		rt.timeout = answerTimeout
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), rt.timeout)
		defer cancel()
		// The server's own limits are those of short requests.
		until := time.Now().Add(rt.timeout)
		control := http.NewResponseController(w)
		if err := errors.Join(control.SetReadDeadline(until), control.SetWriteDeadline(until.Add(answerTimeout))); err != nil && !errors.Is(err, http.ErrNotSupported) {
			a.o.Logger.Debug("the connection keeps its deadlines", "error", err)
		}
		a.answering(func(c *call) (*answer, error) {
			if err := c.prepare(w, rt); err != nil {
				return nil, err
			}
			// What only reads is read anew: that stands in the audit.
			if rt.changes && c.Method == http.MethodPost {
				return a.once(c, rt)
			}
			return rt.do(c)
		}).ServeHTTP(w, r.WithContext(ctx))
	})
}

// prepare checks what all routes ask for, and reads the body.
func (c *call) prepare(w http.ResponseWriter, rt route) error {
	if !c.client.May(rt.scopes...) {
		words := make([]string, len(rt.scopes))
		for i, s := range rt.scopes {
			words[i] = string(s)
		}
		return problem("forbidden", "this needs the scope %s", strings.Join(words, " and "))
	}
	query, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return problem("malformed", "the query cannot be read")
	}
	for name, values := range query {
		if !slices.Contains(rt.query, name) || len(values) != 1 {
			return problem("malformed", "the query has %s, which is not known here or there twice", fields.Quote(name))
		}
	}
	if rt.changes {
		why, err := one(c.Header, whyHeader)
		if err != nil {
			return err
		}
		if why == "" {
			return problem("why-missing", "send a header %s with the reason, such as the number of a ticket; it stands in the audit, in clear", whyHeader)
		}
		c.change = registry.Change{By: c.client.Name, Why: why}
	}
	return c.read(w, rt)
}

func (c *call) read(w http.ResponseWriter, rt route) (err error) {
	limit := rt.limit
	if limit == 0 {
		limit = maxBody
	}
	if c.body, err = io.ReadAll(http.MaxBytesReader(w, c.Body, limit)); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return problem("too-large", "the body has more than %d bytes", limit)
		}
		return problem("malformed", "the body did not come")
	}
	if len(rt.media) == 0 {
		if len(c.body) > 0 {
			return problem("malformed", "this takes no body")
		}
		return nil
	}
	kind, _, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if err != nil || !slices.Contains(rt.media, kind) {
		return problem("media-type", "send the body as %s", strings.Join(rt.media, " or "))
	}
	return nil
}

// one is the one value of a header; "" where it is not there.
func one(h http.Header, name string) (string, error) {
	values := h.Values(name)
	if len(values) > 1 {
		return "", problem("malformed", "the header %s is there twice", name)
	}
	if len(values) == 0 {
		return "", nil
	}
	return strings.TrimSpace(values[0]), nil
}

// fail answers with what an error is to the caller.
func (a *API) fail(w http.ResponseWriter, r *http.Request, c clients.Client, err error) {
	p, internal := problemOf(err)
	if internal && !errors.Is(err, context.Canceled) {
		a.o.Logger.Error("the API failed", "client", c.Name, "method", r.Method, "path", r.Pattern, "error", err)
	}
	a.send(w, p.answer())
}

// send writes an answer.
func (a *API) send(w http.ResponseWriter, out *answer) {
	a.answers[out.status/100].Add(1)
	maps.Copy(w.Header(), out.header)
	if out.body == nil {
		w.WriteHeader(out.status)
		return
	}
	text, err := encode(out.body)
	if err != nil {
		a.o.Logger.Error("an answer cannot be written", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	kind := out.kind
	if kind == "" {
		kind = typeJSON
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(out.status)
	w.Write(text) // an error here is the client's, who has gone
}

// encode writes a body, which may be written already.
func encode(body any) (json.RawMessage, error) {
	if text, ok := body.(json.RawMessage); ok {
		return text, nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
