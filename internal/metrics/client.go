package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/loopback"
)

const (
	clientTimeout = 10 * time.Second
	maxAnswer     = 4 << 20
)

// Status asks the program that listens on addr for its status, and decodes
// the answer into v.
func Status(ctx context.Context, addr string, v any) error {
	code, body, err := get(ctx, addr, "/status")
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("status of %s: %d: %q", addr, code, body)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("status of %s: %w", addr, err)
	}
	return nil
}

// CheckHealth asks the program that listens on addr how it is. An answer that
// names faults is no error.
func CheckHealth(ctx context.Context, addr string) (Health, error) {
	code, body, err := get(ctx, addr, "/healthz")
	if err != nil {
		return Health{}, err
	}
	var h Health
	if code != http.StatusOK && code != http.StatusServiceUnavailable {
		return Health{}, fmt.Errorf("health of %s: %d: %q", addr, code, body)
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return Health{}, fmt.Errorf("health of %s: %w", addr, err)
	}
	return h, nil
}

// direct never goes through a proxy: the other end is this machine.
var direct = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   clientTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	},
}

func get(ctx context.Context, addr, path string) (int, []byte, error) {
	if err := loopback.CheckListen(addr); err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := direct.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("nothing answers on %s (is the program running?): %w", addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("answer of %s: %w", addr, err)
	}
	return resp.StatusCode, body, nil
}
