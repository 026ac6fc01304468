package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

func unlock() *Command {
	return &Command{V: 1, Controller: "north-1", ID: epoch, Action: ActionUnlock, Door: "a", Nonce: epoch, Issued: at, Expires: at.Add(CommandFor),
		Operator: "guard-7", Why: "INC-12: <locked out> & waiting"}
}

// ofAction are good commands of every action.
func ofAction() map[Action]*Command {
	change := func(a Action, f func(*Command)) *Command {
		c := unlock()
		c.Action = a
		if !a.AtDoor() {
			c.Door = ""
		}
		if f != nil {
			f(c)
		}
		return c
	}
	return map[Action]*Command{
		ActionUnlock:         change(ActionUnlock, nil),
		ActionThreat:         change(ActionThreat, func(c *Command) { c.Threat = access.MaxThreat }),
		ActionDisable:        change(ActionDisable, nil),
		ActionEnable:         change(ActionEnable, nil),
		ActionIdentify:       change(ActionIdentify, nil),
		ActionResetPassback:  change(ActionResetPassback, func(c *Command) { c.Person = "p-1001" }),
		ActionResetOccupancy: change(ActionResetOccupancy, func(c *Command) { c.Area, c.Count = "server-rooms", 2 }),
		ActionCode: change(ActionCode, func(c *Command) {
			c.Person, c.Kind, c.Host, c.Code = "p-2007", access.Visitor, "p-1001", epoch
		}),
	}
}

func marshalCommand(c *Command) ([]byte, error) { return marshal(c, MaxCommand, "command") }

func call() *Call {
	return &Call{V: 1, Controller: "north-1", Authority: []string{"e30.e30.c2ln"}, Command: "e30.e30.c2ln"}
}

func TestACommandThatIsWrittenIsTheOneThatIsRead(t *testing.T) {
	good := ofAction()
	for _, a := range Actions() {
		c := good[a]
		if c == nil {
			t.Fatalf("there is no command %q to try", a)
		}
		payload, err := marshalCommand(c)
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		if got, err := ParseCommand(payload); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s reads as %+v, %v", payload, got, err)
		}
	}
	for _, c := range []*Call{call(), {V: 1, Controller: "north-1"}} {
		payload, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseCall(payload); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s reads as %+v, %v", payload, got, err)
		}
	}
}

func TestACommandSaysWhatItsActionTakesAndNoMore(t *testing.T) {
	for name, change := range map[string]func(*Command){
		"version":                 func(c *Command) { c.V = 2 },
		"controller":              func(c *Command) { c.Controller = "+" },
		"id":                      func(c *Command) { c.ID = "1" },
		"no nonce":                func(c *Command) { c.Nonce = "" },
		"unknown action":          func(c *Command) { c.Action = "open" },
		"no door":                 func(c *Command) { c.Door = "" },
		"a long door":             func(c *Command) { c.Door = strings.Repeat("x", maxName+1) },
		"a door of two lines":     func(c *Command) { c.Door = "a\nb" },
		"no operator":             func(c *Command) { c.Operator = "" },
		"an operator with spaces": func(c *Command) { c.Operator = "Ada Lovelace" },
		"no reason":               func(c *Command) { c.Why = "" },
		"a long reason":           func(c *Command) { c.Why = strings.Repeat("x", maxWhy+1) },
		"no time":                 func(c *Command) { c.Issued = time.Time{} },
		"ends before it begins":   func(c *Command) { c.Expires = c.Issued },
		"lives too long":          func(c *Command) { c.Expires = c.Issued.Add(CommandFor + 1) },
		"a threat":                func(c *Command) { c.Threat = 1 },
		"a person":                func(c *Command) { c.Person = "p-1" },
		"a kind":                  func(c *Command) { c.Kind = access.Staff },
		"a host":                  func(c *Command) { c.Host = "p-1" },
		"a code":                  func(c *Command) { c.Code = epoch },
		"an area":                 func(c *Command) { c.Area = "x" },
		"a count":                 func(c *Command) { c.Count = 1 },
		"threat at a door":        func(c *Command) { c.Action = ActionThreat },
		"too high a threat":       func(c *Command) { c.Action, c.Door, c.Threat = ActionThreat, "", access.MaxThreat+1 },
		"passback of nobody":      func(c *Command) { c.Action, c.Door = ActionResetPassback, "" },
		"no area":                 func(c *Command) { c.Action, c.Door = ActionResetOccupancy, "" },
		"fewer than none":         func(c *Command) { c.Action, c.Door, c.Area, c.Count = ActionResetOccupancy, "", "x", -1 },
		"a crowd":                 func(c *Command) { c.Action, c.Door, c.Area, c.Count = ActionResetOccupancy, "", "x", maxCount+1 },
		"a code of nobody":        func(c *Command) { c.Action, c.Code = ActionCode, epoch },
		"digits instead of a code": func(c *Command) {
			c.Action, c.Person, c.Code = ActionCode, "p-1", "48213377"
		},
		"an unknown kind": func(c *Command) { c.Action, c.Person, c.Code, c.Kind = ActionCode, "p-1", epoch, "robot" },
	} {
		c := unlock()
		change(c)
		if _, err := marshalCommand(c); err == nil {
			t.Errorf("%s: written", name)
		}
		raw, err := encode(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseCommand(raw); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	for name, change := range map[string]func(*Call){
		"an authority for nothing": func(c *Call) { c.Command = "" },
		"no authority":             func(c *Call) { c.Authority = nil },
		"not a JWS":                func(c *Call) { c.Command = "{}" },
		"too much authority":       func(c *Call) { c.Authority = make([]string, MaxAuthority+1) },
		"a large command":          func(c *Call) { c.Command = strings.Repeat("x", MaxCommand+1) },
	} {
		c := call()
		change(c)
		if _, err := c.Marshal(); err == nil {
			t.Errorf("call, %s: written", name)
		}
	}
}

func TestOnlyACommandIsTakenForACommand(t *testing.T) {
	text, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.ParseSigner(text, keys.TypeCommand)
	if err != nil {
		t.Fatal(err)
	}
	if keys.TypeCommand != CommandType {
		t.Errorf("the type is %q and %q", keys.TypeCommand, CommandType)
	}
	v, err := s.Verifier(keys.TypeCommand)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := unlock().Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCommand(jws, v); err != nil || !reflect.DeepEqual(got, unlock()) {
		t.Errorf("a good command reads as %+v, %v", got, err)
	}
	manifests, err := s.As(keys.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	asManifest, err := unlock().Sign(manifests)
	if err != nil {
		t.Fatal(err)
	}
	ofManifests, err := s.Verifier(keys.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		jws string
		v   Verifier
	}{"a manifest": {asManifest, v}, "a manifest, verified so": {asManifest, ofManifests}, "nothing": {"", v}, "too large": {jws + strings.Repeat("x", MaxCommand), v}} {
		if c, err := OpenCommand(tt.jws, tt.v); err == nil {
			t.Errorf("%s: reads as %+v", name, c)
		}
	}
}

// A CRM that knows of no commands never asks for a nonce, so it never sees one.
func TestAStateWithoutANonceIsTheStateOfBefore(t *testing.T) {
	payload, err := state().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(payload, &fields); err != nil {
		t.Fatal(err)
	}
	if _, is := fields["nonce"]; is {
		t.Errorf("%s has a nonce", payload)
	}
	with := state()
	with.Nonce = epoch
	if payload, err = with.Marshal(); err != nil {
		t.Fatal(err)
	}
	if got, err := ParseState(payload); err != nil || got.Nonce != epoch {
		t.Errorf("%s reads as %+v, %v", payload, got, err)
	}
	for _, change := range []func(*State){func(s *State) { s.Nonce = "1" }, func(s *State) { s.Online = false }} {
		s := state()
		s.Nonce = epoch
		change(s)
		if _, err := s.Marshal(); err == nil {
			t.Errorf("%+v is written", s)
		}
	}
}

func TestTheLargestCallFitsIntoAMessage(t *testing.T) {
	c := call()
	for len(c.Authority) < MaxAuthority {
		c.Authority = append(c.Authority, strings.Repeat("x", maxAuthority))
	}
	c.Command = strings.Repeat("x", MaxCommand)
	if _, err := c.Marshal(); errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

func FuzzParseCommand(f *testing.F) {
	for _, c := range ofAction() {
		payload, err := marshalCommand(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	fuzz(f, ParseCommand, marshalCommand)
}

func FuzzParseCall(f *testing.F) {
	for _, c := range []*Call{call(), {V: 1, Controller: "north-1"}} {
		payload, err := c.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	fuzz(f, ParseCall, (*Call).Marshal)
}
