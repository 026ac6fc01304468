package rig

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/door"
)

// unmarked is how long after a break-glass opening its record may be written
// without a word of it.
const unmarked = time.Second

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

// Readable are the records of one of the controller's databases that can be
// read, whatever the others are like; none if it is no database any longer.
func (c *Controller) Readable(database string) (records []Record) {
	c.T.Helper()
	stdout, stderr, err := Run(c.T, "gatehouse", "log", "list", "--data", c.Data, "--database", database, "--json")
	lines := json.NewDecoder(strings.NewReader(stdout))
	for lines.More() {
		var line struct {
			Epoch  string
			Seq    uint64
			Record *Record
		}
		if derr := lines.Decode(&line); derr != nil {
			c.T.Fatal(derr)
		}
		if r := line.Record; r != nil {
			r.Epoch, r.Seq = line.Epoch, line.Seq
			records = append(records, *r)
		}
	}
	if err != nil {
		c.T.Logf("%s: %s: %d records can be read: %s", c.Name, database, len(records), strings.TrimSpace(stderr))
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

// Carried are the leaf hashes of the records that the CRM has of a controller's
// epoch in records of later ones alone, in the order in which it lists them,
// and their sequences.
func (s *Site) Carried(controller, epoch string) (leaves []string, seqs []uint64) {
	s.T.Helper()
	lines := json.NewDecoder(strings.NewReader(Tool(s.T, "gatehouse-crm", "log", "list", "--data", s.CRMDir(), "--controller", controller, "--epoch", epoch, "--last", "0", "--json")))
	for lines.More() {
		var line struct {
			Seq       uint64
			Leaf      string
			CarriedBy string `json:"carried_by"`
		}
		if err := lines.Decode(&line); err != nil {
			s.T.Fatal(err)
		}
		if line.CarriedBy != "" {
			leaves, seqs = append(leaves, line.Leaf), append(seqs, line.Seq)
		}
	}
	return leaves, seqs
}

// Unaccounted are the movements of strikes that none of the records accounts
// for. One that does is a grant of its own at that door, and older. A record
// that came late accounts for break-glass alone: others may not have opened.
func Unaccounted(unlocks []Unlock, records []Record) (left []Unlock) {
	grants := make(map[string][]time.Time)
	for _, r := range records {
		breakGlass := r.Data.Reason == string(access.ReasonGrantedBreakGlass)
		if r.Data.Decision != "granted" || r.Data.Late && !breakGlass {
			continue
		}
		at := r.Time
		if r.Data.Occurred != nil {
			at = *r.Data.Occurred
		}
		if breakGlass {
			at = at.Add(-unmarked)
		}
		grants[r.Data.Door] = append(grants[r.Data.Door], at)
	}
	for d := range grants {
		slices.SortFunc(grants[d], time.Time.Compare)
	}
	for _, u := range unlocks {
		// Nobody waits for longer than door.Patience. Those before that either
		// moved the strike already, or came while it was unlocked.
		of := grants[u.Door]
		for len(of) > 0 && of[0].Before(u.At.Add(-door.Patience)) {
			of = of[1:]
		}
		if len(of) == 0 || of[0].After(u.At) {
			left = append(left, u)
			continue
		}
		grants[u.Door] = of[1:]
	}
	return left
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
