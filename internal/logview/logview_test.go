package logview

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

func record(t visitorlog.Type) visitorlog.Record {
	return visitorlog.Record{
		Type: t, Subject: "p-1", Time: time.Date(2026, 3, 29, 0, 59, 0, 0, time.UTC),
		Data: visitorlog.Data{Controller: "north-1", Door: "a", Direction: access.In, Decision: "denied", Reason: access.ReasonNoRight,
			Kind: access.Visitor, Clock: visitorlog.Clock{State: access.ClockSynchronised}},
	}
}

func TestEveryTypeOfRecordHasWords(t *testing.T) {
	seen := map[string]visitorlog.Type{}
	for _, typ := range visitorlog.Types {
		r := record(typ)
		what := What(&r)
		if strings.HasPrefix(what, "gatehouse.") || what == "" {
			t.Errorf("%s is shown as %q", typ, what)
		}
		if other, ok := seen[what]; ok {
			t.Errorf("%s and %s are both shown as %q", typ, other, what)
		}
		seen[what] = typ
	}
}

func TestStatesSayWhetherTheyBeganOrEnded(t *testing.T) {
	for _, typ := range []visitorlog.Type{visitorlog.Tamper, visitorlog.Lockdown, visitorlog.ReaderFault} {
		began, ended := record(typ), record(typ)
		yes, no := true, false
		began.Data.Active, ended.Data.Active = &yes, &no
		if What(&began) == What(&ended) {
			t.Errorf("%s: beginning and end are both shown as %q", typ, What(&began))
		}
	}
}

func TestTheListSaysWithWhatSomebodyWasLetInAndWhatFailed(t *testing.T) {
	granted := record(visitorlog.DecisionGranted)
	granted.Data.Reason, granted.Data.Factors = access.ReasonGranted, []string{"badge", "iris"}
	denied := record(visitorlog.DecisionDenied)
	denied.Data.Reason, denied.Data.Factors = access.ReasonFactorMismatch, []string{"badge"}
	denied.Data.Outcomes = []visitorlog.FactorOutcome{
		{Factor: "badge", Outcome: visitorlog.OutcomeProved, Reader: "a-in"},
		{Factor: "fingerprint", Outcome: visitorlog.OutcomeNoMatch, Reader: "a-finger"},
	}
	broken := record(visitorlog.ReaderFault)
	broken.Data.Reason, broken.Data.Reader, broken.Data.Detail = "", "a-finger", "it does not answer"
	for _, c := range []struct {
		record visitorlog.Record
		want   string
	}{
		{granted, "by badge and iris"},
		{denied, "factor mismatch · fingerprint no match at a-finger"},
		{broken, "a-finger · it does not answer"},
	} {
		if got := Why(&c.record); got != c.want {
			t.Errorf("%s: %q, want %q", c.record.Type, got, c.want)
		}
	}
}

func TestTextFromRecordsCannotSteerTheTerminal(t *testing.T) {
	r := record(visitorlog.DoorForced)
	r.Data.Door = "a\x1b[31m"
	r.Data.Detail = "line\nbreak \u202e and bell \a"
	var out bytes.Buffer
	p := NewPrinter(&out, Options{Zone: time.UTC, Controllers: true})
	if err := p.Print(Row{Entry: visitorlog.Entry{Record: r}, Controller: "north\r-1"}); err != nil {
		t.Fatal(err)
	}
	if err := Show(&out, Row{Entry: visitorlog.Entry{Record: r}, Controller: "north-1", Note: "\x1b]0;x"}, nil, time.UTC); err != nil {
		t.Fatal(err)
	}
	for _, c := range out.String() {
		if c != '\n' && (c < ' ' || c == '\u202e' || c == 0x7f) {
			t.Fatalf("%q holds %q", out.String(), c)
		}
	}
}

func TestColumnsLineUpAndTimesAreTheSites(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p := NewPrinter(&out, Options{Zone: zone})
	for i, door := range []string{"a", "a-door-with-a-long-name", "ä"} {
		r := record(visitorlog.DecisionDenied)
		r.Data.Door = door
		r.Time = r.Time.Add(time.Duration(i) * time.Minute) // into daylight-saving time
		if err := p.Print(Row{Entry: visitorlog.Entry{Seq: uint64(i), Record: r}}); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 || !strings.Contains(lines[1], "01:59:00 CET ") || !strings.Contains(lines[2], "03:00:00 CEST") {
		t.Errorf("%s", out.String())
	}
	col := func(line string) int { return strings.Index(strings.ReplaceAll(line, "ä", "a"), "p-1 (visitor)") }
	if col(lines[2]) != col(lines[3]) {
		t.Errorf("columns do not line up:\n%s", out.String())
	}
}

func TestFilter(t *testing.T) {
	r := record(visitorlog.DecisionDenied)
	for name, c := range map[string]struct {
		f    Filter
		want bool
	}{
		"nothing":        {Filter{}, true},
		"since":          {Filter{Since: r.Time}, true},
		"since later":    {Filter{Since: r.Time.Add(1)}, false},
		"until":          {Filter{Until: r.Time}, false},
		"until later":    {Filter{Until: r.Time.Add(1)}, true},
		"door":           {Filter{Door: "a"}, true},
		"other door":     {Filter{Door: "b"}, false},
		"person":         {Filter{Person: "p-1"}, true},
		"other person":   {Filter{Person: "p"}, false},
		"type":           {Filter{Types: []visitorlog.Type{visitorlog.DoorForced, visitorlog.DecisionDenied}}, true},
		"other type":     {Filter{Types: []visitorlog.Type{visitorlog.DoorForced}}, false},
		"decision":       {Filter{Decision: "denied"}, true},
		"other decision": {Filter{Decision: "granted"}, false},
		"reason":         {Filter{Reason: "no_right"}, true},
		"other reason":   {Filter{Reason: "lost"}, false},
		"foreign":        {Filter{Foreign: true}, false},
		"all of it":      {Filter{Door: "a", Person: "p-1", Decision: "granted"}, false},
	} {
		if got := c.f.Match(&r); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	r.Data.Foreign = true
	if !(Filter{Foreign: true}).Match(&r) || !strings.Contains(Why(&r), "NOT THE READER'S TIMING") {
		t.Errorf("a badge in another timing is not found, or shown as %q", Why(&r))
	}
}

func TestTimesOfTheCommandLine(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 29, 12, 0, 0, 0, zone)
	for text, want := range map[string]string{
		"2026-03-28":           "2026-03-27T23:00:00Z",
		"2026-03-29 03:30":     "2026-03-29T01:30:00Z",
		"2026-03-29 03:30:15":  "2026-03-29T01:30:15Z",
		"2026-03-29T03:30":     "2026-03-29T01:30:00Z",
		"2026-03-29T03:30:00Z": "2026-03-29T03:30:00Z",
		"90m":                  "2026-03-29T08:30:00Z",
		"1d":                   "2026-03-28T11:00:00Z", // the day is an hour short
		"":                     "0001-01-01T00:00:00Z",
	} {
		got, err := parseTime(text, now, zone, false)
		if err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q = %v, %v; want %s", text, got, err, want)
		}
	}
	if got, err := parseTime("2026-03-29", now, zone, true); err != nil || got.UTC().Format(time.RFC3339) != "2026-03-29T22:00:00Z" {
		t.Errorf("the end of a day = %v, %v", got, err)
	}
	for _, text := range []string{"yesterday", "-5m", "-3d", "3dd", "2026-13-01", "12:00"} {
		if got, err := parseTime(text, now, zone, false); err == nil {
			t.Errorf("%q = %v", text, got)
		}
	}
}

func entries(n int, fail error) iter.Seq2[visitorlog.Entry, error] {
	return func(yield func(visitorlog.Entry, error) bool) {
		for i := range n {
			if !yield(visitorlog.Entry{Seq: uint64(i), JWS: "eyJh.eyJi.c2ln"}, nil) {
				return
			}
		}
		if fail != nil {
			yield(visitorlog.Entry{}, fail)
		}
	}
}

func TestAnExportAppearsWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log.ndjson")
	signed := func() (string, error) { return "note", nil }
	broken := errors.New("broken")
	h := Header{Controller: "north-1", Size: 3, Keys: json.RawMessage("{}")}
	for name, export := range map[string]func() error{
		"source":   func() error { return Export(path, Section{h, entries(2, broken), signed}) },
		"too few":  func() error { return Export(path, Section{h, entries(2, nil), signed}) },
		"too many": func() error { return Export(path, Section{h, entries(4, nil), signed}) },
		"checkpoint": func() error {
			return Export(path, Section{h, entries(3, nil), func() (string, error) { return "", broken }})
		},
	} {
		if err := export(); err == nil {
			t.Errorf("%s: no error", name)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
	if err := Export(path, Section{h, entries(3, nil), signed}); err != nil {
		t.Fatal(err)
	}
	if err := Export(path, Section{h, entries(3, nil), signed}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second export: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Count(text, []byte("\n")) != 5 {
		t.Errorf("%s, %v", text, err)
	}
}
