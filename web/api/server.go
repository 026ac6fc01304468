package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/loopback"
	"github.com/gatehouse-acs/gatehouse/internal/serve"
)

const (
	headerTimeout   = 5 * time.Second
	readTimeout     = 20 * time.Second // of a whole request; an import has more
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second
	maxHeader       = 16 << 10
)

// Server is an API on an address.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen opens the address for an API. Without TLS it must be a loopback one.
func Listen(address string, a *API, config *tls.Config) (*Server, error) {
	if config == nil {
		if err := loopback.CheckListen(address); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	// A name may stand for anything: what counts is what was opened.
	if at, ok := l.Addr().(*net.TCPAddr); config == nil && (!ok || !at.IP.IsLoopback()) {
		l.Close()
		return nil, fmt.Errorf("%q stands for %s, which is not a loopback address, and there is no TLS", address, l.Addr())
	}
	return &Server{
		listener: l,
		http: &http.Server{
			Handler:           a,
			TLSConfig:         config,
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      readTimeout + answerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			// Whoever knocks without TLS, or with another authority's certificate,
			// is nothing to wake somebody for.
			ErrorLog: slog.NewLogLogger(a.o.Logger.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Addr is the address that was opened.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run answers until ctx ends, and then lets answers under way finish for a few
// seconds. It returns nil when ctx ended it.
func (s *Server) Run(ctx context.Context) error {
	return serve.Run(ctx, s.http, s.listener, shutdownTimeout)
}
