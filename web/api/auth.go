package api

import (
	"errors"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

const (
	maxFailures  = 10          // that an address may have at once
	failureEvery = time.Minute // and one more for each of these
	maxAddresses = 4096        // that are remembered
)

// authenticate finds out who calls: by the certificate that TLS verified, or by a
// bearer token. Whoever is known is let in, whatever failed at the same address:
// that may be a proxy's, or that of a program which was shut out and asks on.
func (a *API) authenticate(r *http.Request) (clients.Client, error) {
	c, err := a.identify(r)
	if !errors.Is(err, clients.ErrUnknown) {
		return c, err
	}
	a.turned.Add(1)
	from, now := address(r.RemoteAddr), a.o.Clock()
	if wait := a.failures.wait(from, now); wait > 0 {
		p := problem("too-many", "from %s no valid token or certificate came: mend that, and try again later", from)
		p.retry = int(math.Ceil(wait.Seconds()))
		return clients.Client{}, p
	}
	a.failures.add(from, now)
	// Neither the token nor the name that it claims: it may be a stray.
	a.o.Logger.Warn("a caller of the API was turned away", "address", from.String())
	return clients.Client{}, problem("unauthorised", "send a valid token as a bearer, or use a client certificate that this CRM knows")
}

func (a *API) identify(r *http.Request) (clients.Client, error) {
	header := r.Header.Values("Authorization")
	if len(header) > 0 {
		scheme, token, _ := strings.Cut(header[0], " ")
		if len(header) > 1 || !strings.EqualFold(scheme, "Bearer") {
			return clients.Client{}, clients.ErrUnknown
		}
		return a.o.Clients.WithToken(r.Context(), token)
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return a.o.Clients.WithCertificate(r.Context(), r.TLS.VerifiedChains[0][0])
	}
	return clients.Client{}, clients.ErrUnknown
}

// address is where a request is from, of IPv6 the network of one subscriber.
func address(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is6() {
		ip = netip.PrefixFrom(ip, 64).Masked().Addr()
	}
	return ip
}

// failures count failed attempts of authentication by address: each may have a
// few at once, and then one in a while, so that nobody fills the log. No token is
// guessed, however often one tries.
type failures struct {
	mu sync.Mutex
	// until is when all failures of an address are forgiven: one failure puts it
	// off by failureEvery.
	until map[netip.Addr]time.Time
}

// wait is how long an address has to wait; 0: it may try.
func (f *failures) wait(from netip.Addr, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(0, f.until[from].Add(-(maxFailures-1)*failureEvery).Sub(now))
}

// add counts a failure.
func (f *failures) add(from netip.Addr, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.until) >= maxAddresses {
		maps.DeleteFunc(f.until, func(_ netip.Addr, until time.Time) bool { return !until.After(now) })
	}
	for any := range f.until { // somebody has thousands of addresses
		if len(f.until) < maxAddresses {
			break
		}
		delete(f.until, any)
	}
	if f.until == nil {
		f.until = make(map[netip.Addr]time.Time)
	}
	was := f.until[from]
	if was.Before(now) {
		was = now
	}
	f.until[from] = was.Add(failureEvery)
}
