package rig

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Record is one of an export.
type Record struct {
	Epoch   string
	Seq     uint64
	JWS     string
	Invalid error `json:"-"` // its content cannot be read

	Type    string
	Subject string
	Time    time.Time
	Data    struct {
		Door, Decision, Reason, Detail string
		Late                           bool
		Occurred                       *time.Time
		Clock                          struct{ State string }
		Former                         *struct {
			Epoch string
			Size  uint64
		}
	}
}

// Export reads a log by the program that keeps it.
func Export(t testing.TB, program string, args ...string) (records []Record) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export.ndjson")
	Tool(t, program, append(append([]string{"log", "export"}, args...), "--out", path)...)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	epoch := ""
	for lines.Scan() {
		var line struct {
			Epoch string
			Seq   *uint64
			JWS   string
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line.Epoch != "" {
			epoch = line.Epoch
		}
		if line.JWS == "" {
			continue
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(line.JWS, ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		r := Record{Epoch: epoch, Seq: *line.Seq, JWS: line.JWS}
		r.Invalid = json.Unmarshal(payload, &r)
		records = append(records, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}

// Own are the controller's records of the present epoch.
func (c *Controller) Own() []Record {
	c.T.Helper()
	return Export(c.T, "gatehouse", "--data", c.Data)
}

// Stored are the CRM's records of a controller, in all its epochs.
func (s *Site) Stored(controller string) []Record {
	s.T.Helper()
	return Export(s.T, "gatehouse-crm", "--data", s.CRMDir(), "--controller", controller)
}

// Begins wants one list of records to begin with the other.
func Begins(t testing.TB, what string, got, want []Record) {
	t.Helper()
	if len(got) < len(want) {
		t.Errorf("%s: %d records, want %d", what, len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		a, b := got[i], want[i]
		if a.Epoch != b.Epoch || a.Seq != b.Seq || a.JWS != b.JWS {
			t.Fatalf("%s: place %d has record %d of epoch %s, want record %d of epoch %s; the same bytes: %t", what, i, a.Seq, a.Epoch, b.Seq, b.Epoch, a.JWS == b.JWS)
		}
	}
}

// Verify wants the controller's log, and what the CRM has of it, to verify.
func (c *Controller) Verify() {
	c.T.Helper()
	for program, args := range map[string][]string{
		"gatehouse":     {"log", "verify", "--data", c.Data},
		"gatehouse-crm": {"log", "verify", "--data", c.CRMDir(), "--controller", c.Name},
	} {
		if said := Tool(c.T, program, args...); !strings.HasPrefix(said, "ok:") {
			c.T.Errorf("%s: %s log verify: %s", c.Name, program, said)
		}
	}
}
