package visitorlog

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/mod/sumdb/tlog"
)

const testEpoch = "000102030405060708090a0b0c0d0e0f"

// validRecord is a record with every field that the schema knows.
func validRecord() Record {
	yes, cause := true, uint64(4)
	when := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	return Record{
		SpecVersion: "1.0", ID: testEpoch + "-17", Source: "/controllers/north-1", Type: DecisionGranted, Subject: "p-1", Time: when,
		DataContentType: "application/json",
		Data: Data{
			Controller: "north-1", Epoch: testEpoch, Sequence: 17, Previous: tlog.RecordHash(nil).String(),
			Clock: Clock{State: access.ClockDrifting, Boot: "b", UptimeMS: 5}, Salt: "AAECAwQFBgcICQoLDA0ODw==",
			Door: "a", Reader: "a-in", Direction: access.In, Decision: "granted", Reason: "granted", Factors: []string{"badge", "pin"}, Kind: access.Visitor,
			Visit:  &access.Visit{Host: "h", Organisation: "O", Purpose: "P", Escort: "e", Authoriser: "u", IDForm: "passport"},
			Policy: &Policy{Version: 3, AgeSeconds: 60, Freshness: access.Stale},
			Cause:  &cause, Active: &yes, Detail: "d", Late: true, Occurred: &when, Former: &Head{Epoch: testEpoch, Size: 9, Root: tlog.RecordHash(nil).String()},
			Foreign: true, Trials: []Trial{{Door: "a", Part: "strike", Result: TrialPassed}},
			Carried: &Carried{Epoch: testEpoch, Sequence: 3, JWS: "eyJh.eyJi.c2ln"},
		},
	}
}

func marshal(tb testing.TB, v any) []byte {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestParseRecordGivesBackWhatWasWritten(t *testing.T) {
	want := validRecord()
	got, err := ParseRecord(marshal(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseRecordIgnoresWhatItDoesNotKnow(t *testing.T) {
	text := bytes.Replace(marshal(t, validRecord()), []byte(`"data":{`), []byte(`"traceparent":"00-1","data":{"colour":"red",`), 1)
	if _, err := ParseRecord(text); err != nil {
		t.Error(err)
	}
}

// schema is the published contract, compiled.
func schema(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(filepath.Join("..", "configs", "record.schema.json"))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// TestParseRecordIsAsStrictAsTheSchema breaks one thing at a time; the
// published schema refuses what it can express of it.
func TestParseRecordIsAsStrictAsTheSchema(t *testing.T) {
	s := schema(t)
	accepted := func(text []byte) bool {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return s.Validate(v) == nil
	}
	if !accepted(marshal(t, validRecord())) {
		t.Fatal("the schema refuses the valid record")
	}
	long := strings.Repeat("x", maxDetail+1)
	for name, c := range map[string]struct {
		change func(*Record)
		want   string
		beyond bool // more than a schema can say
	}{
		"specversion":          {func(r *Record) { r.SpecVersion = "0.3" }, "specversion", false},
		"id of another":        {func(r *Record) { r.ID = testEpoch + "-18" }, "id", true},
		"id without epoch":     {func(r *Record) { r.ID = "17" }, "id", false},
		"source of another":    {func(r *Record) { r.Source = "/controllers/south" }, "source", true},
		"source":               {func(r *Record) { r.Source = "north-1" }, "source", false},
		"type":                 {func(r *Record) { r.Type = "gatehouse.nonsense" }, "type", false},
		"subject":              {func(r *Record) { r.Subject = "Jane Doe" }, "subject", false},
		"content type":         {func(r *Record) { r.DataContentType = "text/plain" }, "datacontenttype", false},
		"zone":                 {func(r *Record) { r.Time = r.Time.In(time.FixedZone("", 3600)) }, "UTC", false},
		"nanoseconds":          {func(r *Record) { r.Time = r.Time.Add(1) }, "microsecond", false},
		"controller":           {func(r *Record) { r.Data.Controller = "North" }, "controller", false},
		"epoch":                {func(r *Record) { r.Data.Epoch = "1" }, "epoch", false},
		"sequence":             {func(r *Record) { r.Data.Sequence = 1 << 60 }, "sequence", false},
		"no previous":          {func(r *Record) { r.Data.Previous = "" }, "previous", true},
		"previous":             {func(r *Record) { r.Data.Previous = "abc" }, "previous", false},
		"salt":                 {func(r *Record) { r.Data.Salt = "AAAA" }, "salt", false},
		"clock":                {func(r *Record) { r.Data.Clock.State = "fine" }, "clock", false},
		"uptime":               {func(r *Record) { r.Data.Clock.UptimeMS = -1 }, "uptime", false},
		"door":                 {func(r *Record) { r.Data.Door = long }, "door", false},
		"direction":            {func(r *Record) { r.Data.Direction = "up" }, "direction", false},
		"decision":             {func(r *Record) { r.Data.Decision = "maybe" }, "decision", false},
		"decision of another":  {func(r *Record) { r.Data.Decision = "denied" }, "decision", false},
		"reason":               {func(r *Record) { r.Data.Reason = "No Right" }, "reason", false},
		"no reason":            {func(r *Record) { r.Data.Reason = "" }, "reason", false},
		"factor":               {func(r *Record) { r.Data.Factors = []string{"smell"} }, "factor", false},
		"factor twice":         {func(r *Record) { r.Data.Factors = []string{"pin", "pin"} }, "factor", false},
		"no factors":           {func(r *Record) { r.Data.Factors = nil }, "factors", false},
		"kind":                 {func(r *Record) { r.Data.Kind = "robot" }, "kind", false},
		"no subject":           {func(r *Record) { r.Subject = "" }, "subject", false},
		"no door":              {func(r *Record) { r.Data.Door = "" }, "door", false},
		"no reader":            {func(r *Record) { r.Data.Reader = "" }, "reader", false},
		"no policy":            {func(r *Record) { r.Data.Policy = nil }, "policy", false},
		"freshness":            {func(r *Record) { r.Data.Policy.Freshness = "crisp" }, "freshness", false},
		"age":                  {func(r *Record) { r.Data.Policy.AgeSeconds = -1 }, "age", false},
		"host":                 {func(r *Record) { r.Data.Visit.Host = "Jane Doe" }, "host", false},
		"organisation":         {func(r *Record) { r.Data.Visit.Organisation = long }, "organisation", false},
		"detail":               {func(r *Record) { r.Data.Detail = long }, "detail", false},
		"late without when":    {func(r *Record) { r.Data.Occurred = nil }, "occurred", false},
		"former epoch":         {func(r *Record) { r.Data.Former.Epoch = "x" }, "former", false},
		"former root":          {func(r *Record) { r.Data.Former.Root = "x" }, "former", false},
		"passage, no cause":    {func(r *Record) { r.Type, r.Data.Cause = PassageEntered, nil }, "cause", false},
		"forced, no door":      {func(r *Record) { r.Type, r.Data.Door = DoorForced, "" }, "door", false},
		"fault, began or not":  {func(r *Record) { r.Type, r.Data.Active = ReaderFault, nil }, "active", false},
		"tamper, began or not": {func(r *Record) { r.Type, r.Data.Active = Tamper, nil }, "active", false},
		"applied what":         {func(r *Record) { r.Type, r.Data.Policy = PolicyApplied, nil }, "policy", false},
		"trial without a part": {func(r *Record) { r.Data.Trials[0].Part = "" }, "part", false},
		"trial without a door": {func(r *Record) { r.Data.Trials[0].Door = "" }, "door", false},
		"trial, long part":     {func(r *Record) { r.Data.Trials[0].Part = long }, "part", false},
		"trial, result":        {func(r *Record) { r.Data.Trials[0].Result = "fine" }, "result", false},
		"too many trials":      {func(r *Record) { r.Data.Trials = slices.Repeat(r.Data.Trials, maxTrials+1) }, "trials", false},
		"carried by none":      {func(r *Record) { r.Type, r.Data.Carried = RecordCarried, nil }, "carried", false},
		"carried epoch":        {func(r *Record) { r.Data.Carried.Epoch = "1" }, "carried", false},
		"carried sequence":     {func(r *Record) { r.Data.Carried.Sequence = 1 << 60 }, "carried", false},
		"carried no JWS":       {func(r *Record) { r.Data.Carried.JWS = "eyJh" }, "carried", false},
		"carried, too long":    {func(r *Record) { r.Data.Carried.JWS = "a.b." + strings.Repeat("x", maxCarried) }, "carried", false},
		"commissioned by none": {func(r *Record) { r.Type, r.Data.Trials = Commissioned, nil }, "trials", false},
	} {
		r := validRecord()
		c.change(&r)
		text := marshal(t, r)
		if _, err := ParseRecord(text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if accepted(text) != c.beyond {
			t.Errorf("%s: accepted by the schema: %v", name, !c.beyond)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "null": "null", "array": "[]", "trailing": string(marshal(t, validRecord())) + "{}",
		"not UTF-8": strings.Replace(string(marshal(t, validRecord())), `"d"`, "\"\xff\"", 1),
		"too large": strings.Repeat(" ", MaxPayload) + string(marshal(t, validRecord())),
	} {
		if _, err := ParseRecord([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWhatTheLogWritesKeepsToTheSchema(t *testing.T) {
	s := schema(t)
	l := open(t, t.TempDir(), shared().options())
	appendN(t, l, 2)
	entries, err := l.Entries(context.Background(), 0, 10)
	if err != nil || len(entries) != 3 {
		t.Fatal(len(entries), err)
	}
	for _, e := range entries {
		payload, err := Payload(e.JWS)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("record %d: %v", e.Seq, err)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(marshal(f, validRecord()))
	first := validRecord()
	first.ID, first.Type = testEpoch+"-0", EpochStarted
	first.Data = Data{Controller: "north-1", Epoch: testEpoch, Clock: Clock{State: access.ClockUnset}, Salt: "AAECAwQFBgcICQoLDA0ODw=="}
	f.Add(marshal(f, first))
	f.Add([]byte(`{"specversion":"1.0"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := ParseRecord(payload)
		if err != nil {
			return
		}
		again, err := ParseRecord(marshal(t, r))
		if err != nil {
			t.Fatalf("what was accepted is refused when written anew: %v", err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzParseReceipt(f *testing.F) {
	f.Add(marshalReceipt(Receipt{Epoch: testEpoch, Size: 17, Root: tlog.RecordHash(nil), Time: time.Unix(1, 5), PolicyVersion: 3, JWS: "eyJh.eyJi.c2ln"}))
	f.Add([]byte(receiptHeader + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseReceipt(text)
		if err == nil && !bytes.Equal(marshalReceipt(r), text) {
			t.Fatalf("%+v was read from another text than it is written as", r)
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add(Checkpoint{Origin("north-1", testEpoch), 17, tlog.RecordHash(nil)}.Text())
	f.Add("gatehouse/north-1/" + testEpoch + "\n017\nAAAA\n")
	f.Add("example.com/log\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nextension\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCheckpoint(text)
		if err == nil && c.Text() != text {
			t.Fatalf("%+v was read from another text than it is written as", c)
		}
		if _, err := readCheckpoint(text); err == nil && !strings.Contains(text, "\n\n") {
			t.Fatal("a checkpoint without signatures was read as a signed one")
		}
	})
}

func TestAReceiptFileIsReadOnlyAsItWasWritten(t *testing.T) {
	good := marshalReceipt(Receipt{Epoch: testEpoch, Size: 17, Root: tlog.RecordHash(nil), Time: time.Unix(1, 5), PolicyVersion: 3, JWS: "eyJh.eyJi.c2ln"})
	if _, err := parseReceipt(good); err != nil {
		t.Fatal(err)
	}
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		if r, err := parseReceipt(bad); err == nil {
			t.Errorf("byte %d changed: read %+v", at, r)
		}
		if r, err := parseReceipt(good[:at]); err == nil {
			t.Errorf("cut at %d: read %+v", at, r)
		}
	}
}

func TestACheckpointIsReadOnlyInItsCanonicalForm(t *testing.T) {
	root := tlog.RecordHash(nil).String()
	origin := Origin("north-1", testEpoch)
	for name, text := range map[string]string{
		"leading zero":   origin + "\n017\n" + root + "\n",
		"plus":           origin + "\n+17\n" + root + "\n",
		"negative":       origin + "\n-1\n" + root + "\n",
		"too large":      origin + "\n9223372036854775807\n" + root + "\n",
		"short root":     origin + "\n17\nAAAA\n",
		"extension":      origin + "\n17\n" + root + "\nx\n",
		"no newline":     origin + "\n17\n" + root,
		"foreign origin": "example.com/log\n17\n" + root + "\n",
		"name of a CRM":  "gatehouse/North/" + testEpoch + "\n17\n" + root + "\n",
	} {
		if c, err := ParseCheckpoint(text); err == nil {
			t.Errorf("%s: read %+v", name, c)
		}
	}
}

func TestAnInterruptedWriteOfTheReceiptLeavesTheOldOne(t *testing.T) {
	dir := t.TempDir()
	r := Receipt{Epoch: testEpoch, Size: 17, Time: time.Unix(1, 0), JWS: "eyJh.eyJi.c2ln"}
	if err := writeReceipt(dir, r); err != nil {
		t.Fatal(err)
	}
	// A directory in the way of the new file stops the write where a full
	// disk would.
	if err := os.Mkdir(filepath.Join(dir, receiptFile+".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	next := r
	next.Size = 18
	if err := writeReceipt(dir, next); err == nil {
		t.Fatal("written")
	}
	if kept, err := readReceipt(dir); err != nil || kept == nil || kept.Size != 17 {
		t.Errorf("kept %+v, %v", kept, err)
	}
}
