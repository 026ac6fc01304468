package rig

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/mosquitto"
)

// Zone is the time zone of every site.
const Zone = "Etc/UTC"

// Site is a CRM with its controllers.
type Site struct {
	T   testing.TB // the test that it is for
	Dir string
	// Listen is where the broker inside listens, the same after each start.
	Listen string
	// Broker is the URL of another broker, to be set before the CRM starts and
	// controllers are enrolled; "": the one inside.
	Broker string
	// Policy is who says who may enter at the controllers that are enrolled: "crm",
	// or "site" for what is imported at each; "": the latter.
	Policy      string
	Fingerprint string   // the CRM's
	CRMEnv      []string // of its program, to be set before that starts
	CRM         *Process // nil: never started
	Controllers []*Controller

	crmHTTP string // where the CRM's pages are
}

// New makes the keys and certificates of a CRM. All ends with the test.
func New(t testing.TB) *Site {
	t.Helper()
	// Not t.TempDir: a socket's path has at most 107 bytes.
	dir, err := os.MkdirTemp("", "site-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Site{T: t, Dir: dir}
	t.Cleanup(func() {
		s.End()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Listen = l.Addr().String()
	l.Close() // free again, for each CRM
	Tool(t, "gatehouse-crm", "pki", "init", "--data", s.CRMDir(), "--host", "localhost", "--timezone", Zone)
	var shown struct{ Fingerprint string }
	if err := json.Unmarshal([]byte(Tool(t, "gatehouse-crm", "pki", "show", "--data", s.CRMDir(), "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	s.Fingerprint = shown.Fingerprint
	return s
}

// CRMDir is the CRM's folder.
func (s *Site) CRMDir() string { return filepath.Join(s.Dir, "crm") }

// Register runs a command of gatehouse-crm that changes the registry.
func (s *Site) Register(args ...string) string {
	s.T.Helper()
	return Tool(s.T, "gatehouse-crm", append(args, "--data", s.CRMDir(), "--by", "m.jansen", "--why", "CHG-1042")...)
}

// URL is that of the site's broker.
func (s *Site) URL() string {
	if s.Broker != "" {
		return s.Broker
	}
	return TLS(s.T, s.Listen)
}

// TLS is the URL of a loopback address by the name that the certificates have.
func TLS(t testing.TB, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return "tls://localhost:" + port
}

// Mosquitto starts a real one, which has the certificate that gatehouse-crm
// made for its broker, as the site's broker. Its files are in Dir/mosquitto.
func (s *Site) Mosquitto() *mosquitto.Broker {
	s.T.Helper()
	dir := filepath.Join(s.Dir, "mosquitto")
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.T.Fatal(err)
	}
	m, err := mosquitto.Start(dir, mosquitto.Files{
		CA:   filepath.Join(s.CRMDir(), "tls", "ca.crt"),
		Cert: filepath.Join(s.CRMDir(), "tls", "broker.crt"),
		Key:  filepath.Join(s.CRMDir(), "keys", "broker.key"),
	})
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() {
		if err := m.Kill(); err != nil {
			s.T.Error(err)
		}
		if s.T.Failed() {
			s.T.Logf("mosquitto:\n%s", m.Log())
		}
	})
	s.Broker = TLS(s.T, m.Addr)
	return m
}

// StartCRM starts the CRM's program and waits until it is ready.
func (s *Site) StartCRM() {
	s.T.Helper()
	s.LaunchCRM()
	s.AwaitCRM()
}

// LaunchCRM starts the CRM's program.
func (s *Site) LaunchCRM() {
	s.T.Helper()
	way := fmt.Sprintf("listen = %q", s.Listen)
	if s.Broker != "" {
		way = fmt.Sprintf("broker = %q", s.Broker)
	}
	config := filepath.Join(s.Dir, "crm.toml")
	Write(s.T, config, fmt.Sprintf("data = %q\ntimezone = %q\n[mqtt]\n%s\n[http]\nlisten = \"127.0.0.1:0\"\n", s.CRMDir(), Zone, way))
	s.CRM = Start(s.T, Options{Env: s.CRMEnv}, "gatehouse-crm", "run", "--config", config)
}

// AwaitCRM waits until the CRM's program is ready.
func (s *Site) AwaitCRM() {
	s.T.Helper()
	s.crmHTTP, _ = s.CRM.Ready(s.T)
}

// Metric adds up those of the CRM whose line begins so.
func (s *Site) Metric(prefix string) float64 { return metric(s.crmHTTP, prefix) }

// metric is 0 where nobody answers.
func metric(addr, prefix string) (sum float64) {
	client := http.Client{Timeout: 5 * time.Second}
	r, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			value := rest[strings.LastIndexByte(rest, ' ')+1:]
			if v, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				sum += v
			}
		}
	}
	return sum
}

// End ends all programs whatever state they are in. Where the test has failed
// they say first what they were about.
func (s *Site) End() {
	var all []*Process
	for _, c := range s.Controllers {
		all = append(all, c.Process)
	}
	for _, p := range append(all, s.CRM) {
		switch {
		case p == nil:
		case s.T.Failed():
			p.Confess()
			s.T.Log(p.Tail())
		default:
			p.End()
		}
	}
	for _, c := range s.Controllers {
		if c.Wires != nil {
			c.Wires.Close()
		}
	}
}
