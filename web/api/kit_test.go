package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

// site is an API on a real TLS listener, with the keys and certificates of a real
// CRM and a registry in a file.
type site struct {
	*testing.T
	dir      string
	address  string
	keys     *keys.CRMKeys
	registry *registry.Registry
	clients  *clients.Store
	api      *API
	contract *contract
	token    string // of whoever asks; "": nobody's
	http     *http.Client
	log      *lines
	mu       sync.Mutex
	at       time.Time
}

// lines is what a logger wrote.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (s *site) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

func (s *site) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = s.at.Add(d)
}

// newSite is one whose caller may do everything, by a token.
func newSite(t *testing.T, with ...func(*Options)) *site {
	t.Helper()
	s := &site{T: t, dir: filepath.Join(t.TempDir(), "crm"), at: time.Now().UTC().Truncate(time.Second), contract: readContract(t), log: new(lines)}
	must(pki.InitSite(s.dir, pki.SiteOptions{Hosts: []string{"127.0.0.1"}, Timezone: "Europe/Amsterdam", Now: time.Now()}))(t)
	s.keys = must(keys.LoadCRM(keys.File(pki.KeysDir(s.dir)), "127.0.0.1"))(t)
	ctx := context.Background()
	s.registry = must(registry.Open(ctx, filepath.Join(s.dir, registry.FileName), registry.Options{Index: s.keys.Pepper, Sealer: s.keys.Registry, Formats: badge.Builtin(), Clock: s.now}))(t)
	t.Cleanup(func() { s.closed(s.registry.Close()) })
	s.clients = must(clients.Open(ctx, filepath.Join(s.dir, clients.FileName), clients.Options{Sealer: s.keys.Registry, Clock: s.now}))(t)
	t.Cleanup(func() { s.closed(s.clients.Close()) })
	o := Options{
		Registry: s.registry, Clients: s.clients, Index: s.keys.Pepper, Formats: badge.Builtin(), Zone: must(time.LoadLocation("Europe/Amsterdam"))(t),
		Clock: s.now, Logger: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range with {
		f(&o)
	}
	s.api = New(o)
	s.address = s.serve(must(pki.APITLS(s.dir, s.keys.Broker, time.Now))(t))
	s.token = s.let("crm", clients.Scopes...)
	s.http = s.client()
	return s
}

// serve answers until the test ends, and returns the address.
func (s *site) serve(config *tls.Config) string {
	s.Helper()
	server := must(Listen("127.0.0.1:0", s.api, config))(s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		s.closed(<-done)
	})
	return server.Addr()
}

func (s *site) closed(err error) {
	if err != nil {
		s.Error(err)
	}
}

// let lets a client in, and returns its token.
func (s *site) let(name string, scopes ...clients.Scope) string {
	s.Helper()
	_, token, err := s.clients.AddToken(context.Background(), clients.New{Name: name, Scopes: scopes, Until: s.now().Add(24 * time.Hour), By: "m.jansen", Why: "CHG-1"})
	if err != nil {
		s.Fatal(err)
	}
	return token.Reveal()
}

// request is what a test sends.
type request struct {
	method, path string
	body         any // a string, or what becomes JSON; nil: none
	kind         string
	header       map[string]string
	noWhy        bool
}

// answered is what came back.
type answered struct {
	status int
	header http.Header
	body   []byte
}

func (a answered) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// into decodes the body.
func (a answered) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%s: %v", a, err)
	}
}

// client is one that trusts the site's authority, and shows a certificate.
func (s *site) client(shows ...tls.Certificate) *http.Client {
	s.Helper()
	ca := must(pki.ReadCertificate(filepath.Join(s.dir, "tls", "ca.crt")))(s)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: shows}, ForceAttemptHTTP2: true}
	s.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport,
		Timeout:   time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// send sends a request, and holds the answer to the contract.
func (s *site) send(r request) answered {
	s.Helper()
	var body io.Reader
	switch v := r.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(v)
	default:
		body = bytes.NewReader(must(json.Marshal(v))(s))
	}
	req := must(http.NewRequest(r.method, "https://"+s.address+r.path, body))(s)
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	if !r.noWhy {
		req.Header.Set("Gatehouse-Why", "CHG-2")
	}
	if r.kind == "" {
		r.kind = "application/json"
		if r.method == http.MethodPatch {
			r.kind = "application/merge-patch+json"
		}
	}
	if r.body != nil {
		req.Header.Set("Content-Type", r.kind)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	res := must(s.http.Do(req))(s)
	defer res.Body.Close()
	a := answered{res.StatusCode, res.Header, must(io.ReadAll(res.Body))(s)}
	s.contract.hold(s.T, s.api, req, a)
	return a
}

// want sends a request and checks the status of its answer.
func (s *site) want(status int, method, path string, body any, header ...string) answered {
	s.Helper()
	r := request{method: method, path: path, body: body, header: make(map[string]string)}
	for i := 0; i+1 < len(header); i += 2 {
		r.header[header[i]] = header[i+1]
	}
	a := s.send(r)
	if a.status != status {
		s.Fatalf("%s %s: %s, want %d", method, path, a, status)
	}
	return a
}

// refused is want for a problem, which it checks.
func (s *site) refused(word, says, method, path string, body any, header ...string) Problem {
	s.Helper()
	a := s.want(problems[word].status, method, path, body, header...)
	var p Problem
	a.into(s, &p)
	if text := string(a.body); p.Type != problemType+word || !strings.Contains(text, says) {
		s.Fatalf("%s %s: %s, want %s and %q", method, path, a, word, says)
	}
	return p
}

// certify makes a client certificate of the site's authority under a common name.
func (s *site) certify(common string) (tls.Certificate, *x509.Certificate) {
	s.Helper()
	key := must(keys.ParsePrivateKey(must(keys.GenerateKey(keys.ES256))(s)))(s)
	ca := must(pki.OpenAuthority(must(pki.ReadCertificate(filepath.Join(s.dir, "tls", "ca.crt")))(s), s.keys.CA))(s)
	cert := must(ca.Client(common, key.Public(), time.Now(), time.Hour))(s)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key.Signer()}, cert
}

// contract is the OpenAPI document.
type contract struct {
	doc struct {
		Paths      map[string]map[string]json.RawMessage `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					ReadOnly bool `json:"readOnly"`
				} `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	mu       sync.Mutex // of what follows
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema
	done     map[string]bool // what was answered well
}

// operation is one of the contract's.
type operation struct {
	Security []map[string][]string `json:"security"`
	Body     *struct {
		Content map[string]json.RawMessage `json:"content"`
	} `json:"requestBody"`
	Parameters []struct {
		Ref  string `json:"$ref"`
		Name string `json:"name"`
		In   string `json:"in"`
	} `json:"parameters"`
	Responses map[string]struct {
		Ref     string                     `json:"$ref"`
		Content map[string]json.RawMessage `json:"content"`
	} `json:"responses"`
}

const contractFile = "../../configs/registry.openapi.json"

func readContract(t testing.TB) *contract {
	t.Helper()
	text := readFile(t, contractFile)
	c := &contract{compiler: jsonschema.NewCompiler(), compiled: make(map[string]*jsonschema.Schema), done: make(map[string]bool)}
	if err := json.Unmarshal(text, &c.doc); err != nil {
		t.Fatal(err)
	}
	c.compiler.AssertFormat()
	doc := must(jsonschema.UnmarshalJSON(bytes.NewReader(text)))(t)
	if err := c.compiler.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return c
}

// schema compiles what a pointer points to.
func (c *contract) schema(t testing.TB, pointer string) *jsonschema.Schema {
	t.Helper()
	if c.compiled[pointer] == nil {
		c.compiled[pointer] = must(c.compiler.Compile("openapi.json#" + pointer))(t)
	}
	return c.compiled[pointer]
}

func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// operation is that of a route.
func (c *contract) operation(t testing.TB, method, path string) (operation, bool) {
	t.Helper()
	text, ok := c.doc.Paths[path][strings.ToLower(method)]
	var o operation
	if ok {
		if err := json.Unmarshal(text, &o); err != nil {
			t.Fatal(err)
		}
	}
	return o, ok
}

// hold holds an answer to the contract: that it may be given, and its body, and
// that of the request where it was done.
func (c *contract) hold(t testing.TB, a *API, r *http.Request, got answered) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if got.status >= 400 {
		if kind := got.header.Get("Content-Type"); kind != "application/problem+json" {
			t.Errorf("%s %s: %d of type %q", r.Method, r.URL.Path, got.status, kind)
		}
		c.validate(t, c.schema(t, "/components/schemas/Problem"), r, got)
		return
	}
	_, pattern := a.mux.Handler(r)
	method, path, _ := strings.Cut(pattern, " ")
	o, ok := c.operation(t, method, path)
	if !ok {
		t.Errorf("%s is not in the contract", pattern)
		return
	}
	status := fmt.Sprint(got.status)
	response, ok := o.Responses[status]
	if !ok {
		t.Errorf("%s answers %s, which the contract does not name", pattern, status)
		return
	}
	c.done[pattern] = true
	at := "/paths/" + escape(path) + "/" + strings.ToLower(method)
	if o.Body != nil {
		for kind := range o.Body.Content {
			if strings.HasSuffix(kind, "json") {
				sent := must(io.ReadAll(must(r.GetBody())(t)))(t)
				c.validate(t, c.schema(t, at+"/requestBody/content/"+escape(kind)+"/schema"), r, answered{body: sent})
			}
		}
	}
	if _, hasBody := response.Content["application/json"]; !hasBody {
		if len(got.body) > 0 {
			t.Errorf("%s answers %s with a body", pattern, status)
		}
		return
	}
	c.validate(t, c.schema(t, at+"/responses/"+status+"/content/application~1json/schema"), r, got)
}

func (c *contract) validate(t testing.TB, schema *jsonschema.Schema, r *http.Request, got answered) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(got.body))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s %s: %s: %v", r.Method, r.URL.Path, got, err)
	}
}
