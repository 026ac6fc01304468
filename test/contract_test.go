package test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestPayloadsAreAsAsyncAPISays holds what the programs write and accept to
// the published contract, both ways.
func TestPayloadsAreAsAsyncAPISays(t *testing.T) {
	const epoch, checkpoint = "000102030405060708090a0b0c0d0e0f", "gatehouse/north-1/000102030405060708090a0b0c0d0e0f\n1\nAAAA\n\n— x y\n"
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, schema string
		payload      interface{ Marshal() ([]byte, error) }
		parse        func([]byte) error
	}{
		{"batch", "batch", &wire.Batch{V: 1, Controller: "north-1", Epoch: epoch, Records: []string{"e30.e30.e30"}, Checkpoint: checkpoint}, parseBatch},
		{"early batch", "batch", &wire.Batch{V: 1, Controller: "north-1", Epoch: epoch, First: 7, Early: true, Records: []string{"e30.e30.e30"}}, parseBatch},
		{"state", "state", &wire.State{
			V: 1, Controller: "north-1", Online: true, Session: "5f0c7b1d9e3a4f6280a1b2c3d4e5f607", Number: 3, Time: now, Epoch: epoch, Checkpoint: checkpoint,
			PolicyVersion: 4, Clock: &visitorlog.Clock{State: "synchronised", Boot: "b", UptimeMS: 5},
		}, parseState},
		{"last will", "state", &wire.State{V: 1, Controller: "north-1", Session: "5f0c7b1d9e3a4f6280a1b2c3d4e5f607"}, parseState},
		{"receipt", "receipt", receipt{&wire.Receipt{V: 1, Controller: "north-1", Epoch: epoch, Size: 9, Checkpoint: checkpoint, Used: []string{}, Time: now}}, parseReceipt},
		{"receipt for nothing", "receipt", receipt{&wire.Receipt{V: 1, Controller: "north-1", Epoch: epoch, Used: []string{}, Time: now, State: "s/1"}}, parseReceipt},
		{"publication", "publication", &wire.Publication{V: 1, Controller: "north-1", Authority: []string{"e30.e30.e30"}, Manifest: "e30.e30.e30", Fresh: "e30.e30.e30"}, parsePublication},
		{"manifest", "manifest", signed{&wire.Manifest{V: 1, Controller: "north-1", Version: 9, Created: now, Expires: now.Add(time.Hour), Generation: epoch, Count: 3,
			Snapshot: wire.Blob{ID: epoch, To: 8, Rows: 3, Bytes: 100, Parts: []wire.Hash{{}}},
			Deltas:   []wire.Blob{{ID: epoch, From: 8, To: 9, Bytes: 100, Parts: []wire.Hash{{}}}}, Urgent: true}}, parseManifest},
		{"first manifest", "manifest", signed{&wire.Manifest{V: 1, Controller: "north-1", Version: 1, Created: now, Expires: now.Add(time.Hour), Generation: epoch,
			Snapshot: wire.Blob{ID: epoch, To: 1, Bytes: 100, Parts: []wire.Hash{{}}}, Deltas: []wire.Blob{}}}, parseManifest},
		{"fresh", "fresh", signed{&wire.Fresh{V: 1, Controller: "north-1", Version: 9, Time: now, Until: now.Add(time.Hour)}}, parseFresh},
		{"state with a nonce", "state", &wire.State{V: 1, Controller: "north-1", Online: true, Session: epoch, Number: 3, Time: now, Epoch: epoch, Nonce: epoch}, parseState},
		{"question for a nonce", "call", &wire.Call{V: 1, Controller: "north-1"}, parseCall},
		{"call", "call", &wire.Call{V: 1, Controller: "north-1", Authority: []string{"e30.e30.e30"}, Command: "e30.e30.e30"}, parseCall},
		{"unlock", "command", signed{&wire.Command{V: 1, Controller: "north-1", ID: epoch, Action: wire.ActionUnlock, Door: "a", Nonce: epoch, Issued: now, Expires: now.Add(wire.CommandFor),
			Operator: "guard-7", Why: "INC-12"}}, parseCommand},
		{"lockdown", "command", signed{&wire.Command{V: 1, Controller: "north-1", ID: epoch, Action: wire.ActionThreat, Nonce: epoch, Issued: now, Expires: now.Add(wire.CommandFor),
			Operator: "guard-7", Why: "INC-12", Threat: access.MaxThreat}}, parseCommand},
		{"guard's code", "command", signed{&wire.Command{V: 1, Controller: "north-1", ID: epoch, Action: wire.ActionCode, Door: "a", Nonce: epoch, Issued: now, Expires: now.Add(wire.CommandFor),
			Operator: "guard-7", Why: "INC-12", Person: "p-1", Kind: access.Visitor, Host: "p-2", Code: epoch}}, parseCommand},
		{"reset of an area", "command", signed{&wire.Command{V: 1, Controller: "north-1", ID: epoch, Action: wire.ActionResetOccupancy, Nonce: epoch, Issued: now, Expires: now.Add(wire.CommandFor),
			Operator: "guard-7", Why: "INC-12", Area: "server-rooms", Count: 2}}, parseCommand},
		{"fetch", "fetch", &wire.Fetch{V: 1, Controller: "north-1", Blob: epoch, Parts: []int{0, 7}, Have: 4}, parseFetch},
	} {
		t.Run(c.name, func(t *testing.T) {
			schema := messageSchema(t, c.schema)
			payload, err := c.payload.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(t, schema, payload); err != nil {
				t.Errorf("%s\n%v", payload, err)
			}
			if err := c.parse(payload); err != nil {
				t.Errorf("%s is not accepted: %v", payload, err)
			}
			// What the contract refuses the programs refuse too: each field
			// that must be there, and one that nobody knows.
			var fields map[string]any
			if err := json.Unmarshal(payload, &fields); err != nil {
				t.Fatal(err)
			}
			fields["surplus"] = 1
			refused(t, schema, c.parse, fields, "a field that nobody knows")
			delete(fields, "surplus")
			for name, v := range fields {
				delete(fields, name)
				if text, err := json.Marshal(fields); err != nil {
					t.Fatal(err)
				} else if validate(t, schema, text) != nil {
					refused(t, schema, c.parse, fields, "no "+name)
				}
				fields[name] = v
			}
		})
	}
}

func refused(t *testing.T, schema *jsonschema.Schema, parse func([]byte) error, fields map[string]any, what string) {
	t.Helper()
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	if validate(t, schema, text) == nil {
		t.Errorf("the contract accepts %s", what)
	}
	if parse(text) == nil {
		t.Errorf("the program accepts %s", what)
	}
}

func parseBatch(b []byte) error   { _, err := wire.ParseBatch(b); return err }
func parseState(b []byte) error   { _, err := wire.ParseState(b); return err }
func parseReceipt(b []byte) error { _, err := wire.ParseReceipt(b); return err }

func parsePublication(b []byte) error { _, err := wire.ParsePublication(b); return err }
func parseManifest(b []byte) error    { _, err := wire.ParseManifest(b); return err }
func parseFresh(b []byte) error       { _, err := wire.ParseFresh(b); return err }
func parseFetch(b []byte) error       { _, err := wire.ParseFetch(b); return err }
func parseCall(b []byte) error        { _, err := wire.ParseCall(b); return err }
func parseCommand(b []byte) error     { _, err := wire.ParseCommand(b); return err }

// signed marshals what is only ever signed.
type signed struct {
	p interface {
		Sign(wire.Signer) (string, error)
	}
}

func (v signed) Marshal() ([]byte, error) {
	var s keepPayload
	_, err := v.p.Sign(&s)
	return s.payload, err
}

// receipt marshals a receipt as it is signed.
type receipt struct{ r *wire.Receipt }

func (r receipt) Marshal() ([]byte, error) {
	var s keepPayload
	_, err := r.r.Sign(&s)
	return s.payload, err
}

type keepPayload struct{ payload []byte }

func (s *keepPayload) Sign(payload []byte) (string, error) {
	s.payload = payload
	return "e30.e30.e30", nil
}

func messageSchema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(filepath.Join("..", "configs", "asyncapi.json") + "#/components/schemas/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}
