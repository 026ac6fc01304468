// Package loopback tells addresses of this machine from all others.
package loopback

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Is reports whether a host, without port and brackets, is a loopback address
// or localhost.
func Is(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// CheckListen says what is wrong with host:port as an address to listen on
// for this machine alone. The port is a number, 0 for any free one.
func CheckListen(addr string) error {
	host, err := CheckHostPort(addr)
	if err != nil {
		return err
	}
	if !Is(host) {
		return fmt.Errorf("%q is not a loopback address: use 127.0.0.1 or [::1], for nobody has to sign in there", addr)
	}
	return nil
}

// CheckHostPort says what is wrong with host:port, and returns the host. The
// port is a number.
func CheckHostPort(addr string) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port: write it like 127.0.0.1:9180", addr)
	}
	if _, err := netip.ParseAddrPort("127.0.0.1:" + port); err != nil {
		return "", fmt.Errorf("%q has no port from 0 to 65535", addr)
	}
	return host, nil
}
