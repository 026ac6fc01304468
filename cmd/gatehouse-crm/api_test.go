package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
)

// addresses hands on where a daemon listens, as its log tells.
type addresses chan string

func (a addresses) Write(line []byte) (int, error) {
	var l struct {
		Message string `json:"msg"`
		Address string `json:"address"`
	}
	if json.Unmarshal(line, &l) == nil && l.Message == "API" {
		a <- l.Address
	}
	return len(line), nil
}

func TestTheDaemonAnswersByTokensThatTheCommandMakes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "crm")
	command := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if status := cli.Run(t.Context(), newRoot(), append(args, "--data", dir), &out, &errs); status != 0 {
			t.Fatalf("gatehouse-crm %s: %s", strings.Join(args, " "), errs.String())
		}
		return out.String()
	}
	command("pki", "init", "--host", "127.0.0.1", "--timezone", "UTC")
	file := filepath.Join(t.TempDir(), "crm.token")
	command("token", "add", "crm", "--scope", "site:write,policy:read", "--out", file, "--by", "m.jansen", "--why", "CHG-1")
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.ParseCRM("crm.toml", `
data = "`+dir+`"
timezone = "UTC"
[mqtt]
listen = "127.0.0.1:0"
[http]
listen = "127.0.0.1:0"
[api]
listen = "127.0.0.1:0"
`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	listens, done := make(addresses, 1), make(chan error, 1)
	go func() { done <- runCRM(ctx, cfg, slog.New(slog.NewJSONHandler(listens, nil))) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	var address string
	select {
	case address = <-listens:
	case err := <-done:
		done <- err
		t.Fatal("the daemon ended")
	case <-time.After(time.Minute):
		t.Fatal("there is no API")
	}

	ca, err := pki.ReadCertificate(filepath.Join(dir, "tls", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}, Timeout: time.Minute}
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, "https://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		req.Header.Set("Gatehouse-Why", "CHG-2")
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	if status, text := ask("POST", "/v1/areas", `{"area":"lab"}`); status != http.StatusCreated {
		t.Fatalf("%d %s", status, text)
	}
	if status, text := ask("GET", "/v1/policy/status", ""); status != http.StatusOK || text != `{"items":[]}` {
		t.Errorf("policy: %d %s", status, text)
	}
	if out := command("areas", "list"); !strings.Contains(out, "lab") {
		t.Errorf("areas: %s", out)
	}
	if out := command("registry", "audit", "--json", "--kind", "area"); !strings.Contains(out, `"by":"crm","why":"CHG-2","action":"create","kind":"area","id":"lab"`) {
		t.Errorf("audit: %s", out)
	}
	command("token", "revoke", "crm", "--by", "m.jansen", "--why", "INC-1")
	if status, text := ask("POST", "/v1/areas", `{"area":"roof"}`); status != http.StatusUnauthorized {
		t.Errorf("after it was revoked: %d %s", status, text)
	}
}

func TestATokenIsShownOnATerminal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "crm")
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(screen) // it ends with an error when the terminal is closed
		shown <- string(b)
	}()
	for _, args := range [][]string{
		{"pki", "init", "--host", "127.0.0.1", "--timezone", "UTC"},
		{"token", "add", "crm", "--scope", "site:read", "--by", "m.jansen", "--why", "CHG-1"},
		{"token", "list"},
	} {
		if status := cli.Run(t.Context(), newRoot(), append(args, "--data", dir), tty, tty); status != 0 {
			t.Errorf("%v: status %d", args, status)
		}
	}
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	text := <-shown
	if err := screen.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(regexp.MustCompile(`gatehouse\.crm\.[A-Za-z0-9_-]{43}`).FindAllString(text, -1)); n != 1 {
		t.Errorf("the token is shown %d times:\n%s", n, text)
	}
}
