package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// start runs a server on a free port and returns its address. Its end is
// checked at the end of the test.
func start(t *testing.T, o Options) string {
	t.Helper()
	o.Listen = "127.0.0.1:0"
	if o.Registry == nil {
		o.Registry = NewRegistry("test")
	}
	if o.Health == nil {
		o.Health = func(context.Context) []Fault { return nil }
	}
	if o.Status == nil {
		o.Status = func(context.Context) (any, error) { return map[string]int{"doors": 2}, nil }
	}
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	return s.Addr()
}

func TestHealthNamesEveryFault(t *testing.T) {
	faults := []Fault{{"reader a-in", "no answer"}, {"records", "disk full"}}
	var now []Fault
	addr := start(t, Options{Health: func(context.Context) []Fault { return now }})

	got, err := CheckHealth(t.Context(), addr)
	if want := (Health{Status: "ok"}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("healthy: %+v, %v", got, err)
	}
	now = faults
	got, err = CheckHealth(t.Context(), addr)
	if want := (Health{Status: "failing", Faults: faults}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("with faults: %s", cmp.Diff(want, got))
	}
	resp, err := http.Get("http://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("with faults: status code %d, want 503", resp.StatusCode)
	}
}

func TestStatusIsWhatTheProgramSays(t *testing.T) {
	addr := start(t, Options{})
	var got map[string]int
	if err := Status(t.Context(), addr, &got); err != nil || got["doors"] != 2 {
		t.Errorf("status %v, %v", got, err)
	}
}

func TestAStatusThatFailsIsAnError(t *testing.T) {
	addr := start(t, Options{Status: func(context.Context) (any, error) { return nil, errors.New("records are locked") }})
	var got map[string]int
	if err := Status(t.Context(), addr, &got); err == nil || !strings.Contains(err.Error(), "records are locked") {
		t.Errorf("error %v", err)
	}
}

func TestAStatusThatHangsIsCutOff(t *testing.T) {
	got := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	addr := start(t, Options{Status: func(ctx context.Context) (any, error) {
		_, limited := ctx.Deadline()
		if !limited {
			got <- errors.New("the status has no deadline")
			return nil, nil
		}
		cancel() // nobody waits for it any more
		<-ctx.Done()
		got <- nil
		return nil, ctx.Err()
	}})
	if err := Status(ctx, addr, new(any)); err == nil {
		t.Error("a status that hangs was answered")
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestMetricsAreTheProgramsOwn(t *testing.T) {
	addr := start(t, Options{Registry: NewRegistry("v1.2.3")})
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`gatehouse_build_info{`, `version="v1.2.3"`, "process_resident_memory_bytes", "go_goroutines"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	for _, addr := range []string{"", ":9180", "0.0.0.0:9180", "[::]:9180", "192.0.2.1:9180", "door.example:9180", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:http", "localhost.example:80"} {
		if _, err := Listen(Options{Listen: addr}); err == nil {
			t.Errorf("%s was opened", addr)
		}
		if err := Status(t.Context(), addr, new(any)); err == nil {
			t.Errorf("%s was asked", addr)
		}
	}
}

func TestAReboundNameIsRefused(t *testing.T) {
	h := Handler(Options{
		Registry: NewRegistry("test"),
		Health:   func(context.Context) []Fault { return nil },
		Status:   func(context.Context) (any, error) { return nil, nil },
	})
	for host, want := range map[string]int{
		"127.0.0.1:9180": http.StatusOK, "localhost": http.StatusOK, "LOCALHOST:9180": http.StatusOK, "[::1]:9180": http.StatusOK, "[::1]": http.StatusOK,
		"evil.example": http.StatusMisdirectedRequest, "evil.example:9180": http.StatusMisdirectedRequest, "192.0.2.1:9180": http.StatusMisdirectedRequest,
		"127.0.0.1.evil.example": http.StatusMisdirectedRequest, "localhost.evil.example": http.StatusMisdirectedRequest, "": http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"/healthz", "/metrics", "/status"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s of host %q: %d, want %d", path, host, w.Code, want)
			}
		}
	}
}

func TestNothingIsChangedOverHTTP(t *testing.T) {
	addr := start(t, Options{})
	for _, path := range []string{"/healthz", "/metrics", "/status"} {
		resp, err := http.Post("http://"+addr+path, "text/plain", strings.NewReader("open"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d, want 405", path, resp.StatusCode)
		}
	}
}

func TestAClientThatStallsDoesNotHoldUpTheEnd(t *testing.T) {
	s, err := Listen(Options{Listen: "127.0.0.1:0", Registry: NewRegistry("test")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run ended with %v", err)
		}
	case <-time.After(shutdownTimeout + time.Minute):
		t.Error("the server waits for a client that sends nothing")
	}
}

func TestNothingAnswersIsAnErrorThatSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if err := Status(t.Context(), addr, new(any)); err == nil || !strings.Contains(err.Error(), "is the program running?") {
		t.Errorf("error %v", err)
	}
}
