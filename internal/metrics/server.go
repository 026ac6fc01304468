package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/loopback"
	"github.com/gatehouse-acs/gatehouse/internal/serve"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	headerTimeout   = 2 * time.Second
	readTimeout     = 5 * time.Second
	answerTimeout   = 5 * time.Second // for what is asked of the program itself
	writeTimeout    = 10 * time.Second
	idleTimeout     = 30 * time.Second
	shutdownTimeout = time.Second
	maxHeader       = 8 << 10
	maxScrapes      = 4 // at once
)

// Fault is one reason why the program is not healthy.
type Fault struct {
	Part string `json:"part"` // such as "reader a-in" or "records"
	What string `json:"what"` // what is wrong with it, in words
}

// Health is the answer of /healthz.
type Health struct {
	Status string  `json:"status"` // ok or failing
	Faults []Fault `json:"faults,omitempty"`
}

// Options make a Server.
type Options struct {
	// Listen is a loopback address with a port, such as 127.0.0.1:9180; port
	// 0 takes a free one.
	Listen   string
	Registry *prometheus.Registry
	// Health returns what is wrong at the moment; nothing means healthy.
	Health func(context.Context) []Fault
	// Status returns what /status shows as JSON. Nothing in it may identify
	// a card.
	Status func(context.Context) (any, error)
	Logger *slog.Logger
}

// Server answers /healthz, /metrics and /status.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen opens the address, which must be a loopback one: what the server
// shows is meant for this machine, and nobody has to sign in.
func Listen(o Options) (*Server, error) {
	if err := loopback.CheckListen(o.Listen); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, err
	}
	// A name may stand for anything: what counts is what was opened.
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		l.Close()
		return nil, fmt.Errorf("%q stands for %s, which is not a loopback address", o.Listen, l.Addr())
	}
	return &Server{
		listener: l,
		http: &http.Server{
			Handler:           Handler(o),
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		},
	}, nil
}

// Addr is the address that was opened.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run answers until ctx ends, and then lets answers under way finish for up
// to a second. It returns nil when ctx ended it.
func (s *Server) Run(ctx context.Context) error {
	return serve.Run(ctx, s.http, s.listener, shutdownTimeout)
}

// Handler is the server's pages.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		h := Health{Status: "ok", Faults: o.Health(r.Context())}
		code := http.StatusOK
		if len(h.Faults) > 0 {
			h.Status, code = "failing", http.StatusServiceUnavailable
		}
		writeJSON(w, code, h)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		s, err := o.Status(r.Context())
		if err != nil {
			writeJSON(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
			return
		}
		writeJSON(w, http.StatusOK, s)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
		Registry:            o.Registry,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             answerTimeout,
	}))
	return local(mux)
}

// local refuses requests that a browser was tricked into: a page of another
// site whose name was rebound to 127.0.0.1 still sends that name.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback.Is(hostOnly(r.Host)) {
			http.Error(w, fmt.Sprintf("host %q is not this machine", r.Host), http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, "encoding the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(b, '\n')) // an error here is the client's, who has gone
}

// hostOnly is a Host header without its port and brackets.
func hostOnly(h string) string {
	if host, _, err := net.SplitHostPort(h); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(h, "["), "]")
}
