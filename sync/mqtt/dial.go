package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
)

// target is a checked broker URL.
type target struct {
	tls  bool
	host string
	port string
}

func (t target) String() string {
	scheme := "tcp"
	if t.tls {
		scheme = "tls"
	}
	return scheme + "://" + net.JoinHostPort(t.host, t.port)
}

// parseTarget never repeats the URL in an error: it may hold a password.
func parseTarget(broker string) (target, error) {
	u, err := url.Parse(broker)
	if err != nil {
		return target{}, errors.New("mqtt: the broker's URL cannot be read")
	}
	if u.User != nil {
		return target{}, errors.New("mqtt: the broker's URL must not hold a user or password; controllers are known by their certificates")
	}
	var t target
	switch u.Scheme {
	case "tls":
		t = target{tls: true, port: "8883"}
	case "tcp":
		t = target{port: "1883"}
	default:
		return target{}, fmt.Errorf("mqtt: broker URL with scheme %q: want tls:// or, to this machine only, tcp://", u.Scheme)
	}
	if u.Opaque != "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return target{}, errors.New("mqtt: the broker's URL must hold a host and a port and nothing else")
	}
	if t.host = u.Hostname(); t.host == "" {
		return target{}, errors.New("mqtt: the broker's URL names no host")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return target{}, fmt.Errorf("mqtt: broker port %q is not in 1–65535", p)
		}
		t.port = p
	}
	return t, nil
}

// loopback returns an address of the host, if all of them are loopback.
func (t target) loopback(ctx context.Context) (netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", t.host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("mqtt: plaintext broker %q: %w", t.host, err)
	}
	for _, a := range addrs {
		if !a.Unmap().IsLoopback() {
			return netip.Addr{}, fmt.Errorf("mqtt: plaintext to %q (%s) is refused: tcp:// may only lead to this machine's loopback; use tls://", t.host, a)
		}
	}
	if len(addrs) == 0 {
		return netip.Addr{}, fmt.Errorf("mqtt: plaintext broker %q has no address", t.host)
	}
	return addrs[0], nil
}

func (t target) dial(ctx context.Context, tlsConfig func() (*tls.Config, error)) (net.Conn, error) {
	var d net.Dialer
	if !t.tls {
		// The very address that was checked is dialled.
		addr, err := t.loopback(ctx)
		if err != nil {
			return nil, err
		}
		return d.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), t.port))
	}
	cfg, err := t.clientTLS(tlsConfig)
	if err != nil {
		return nil, err
	}
	raw, err := d.DialContext(ctx, "tcp", net.JoinHostPort(t.host, t.port))
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// clientTLS enforces what does not depend on the site.
func (t target) clientTLS(get func() (*tls.Config, error)) (*tls.Config, error) {
	cfg, err := get()
	if err != nil {
		return nil, fmt.Errorf("TLS configuration: %w", err)
	}
	if cfg == nil {
		return nil, errors.New("TLS configuration: none")
	}
	cfg = cfg.Clone()
	switch {
	case cfg.InsecureSkipVerify:
		return nil, errors.New("TLS configuration: the broker's certificate must be verified")
	case cfg.RootCAs == nil:
		return nil, errors.New("TLS configuration: no CA for the broker's certificate")
	case len(cfg.Certificates) == 0 && cfg.GetClientCertificate == nil:
		return nil, errors.New("TLS configuration: no client certificate")
	}
	cfg.MinVersion = tls.VersionTLS13
	if cfg.ServerName == "" {
		cfg.ServerName = t.host
	}
	return cfg, nil
}
