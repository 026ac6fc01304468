package wire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-acs/gatehouse/access"
)

// Limits of commands.
const (
	MaxCall    = 48 << 10 // bytes of down/command: an authority of the largest size fits in
	MaxCommand = 6 << 10  // bytes of a command's JWS
	maxWhy     = 1000     // bytes of a reason in words
	maxName    = 64       // bytes of a door's or an area's name, and of an id
	maxCount   = 1_000_000

	// CommandFor is the longest that a command may be meant to live.
	CommandFor = 30 * time.Second
)

// CommandType is the typ in the protected header of a command's JWS.
const CommandType = "gatehouse-command+jwt"

// Call is the payload of down/command. Without a command it asks the controller
// for a nonce, which comes with the next state: whoever can publish may ask, and
// learns nothing of use to them. With a command it has what leads from the policy
// root to the key that signed it, so that a controller which has heard of no
// manifest since it started can obey, too.
type Call struct {
	V          int      `json:"v"`
	Controller string   `json:"controller"`
	Authority  []string `json:"authority,omitempty"` // as in a Publication
	Command    string   `json:"command,omitempty"`   // compact JWS of a Command
}

// Action is what a command orders.
type Action string

// The actions. Threat, ResetPassback and ResetOccupancy are of the whole
// controller; a door is named with the others.
const (
	ActionUnlock         Action = "unlock"
	ActionThreat         Action = "threat"
	ActionDisable        Action = "disable"
	ActionEnable         Action = "enable"
	ActionIdentify       Action = "identify"
	ActionResetPassback  Action = "reset_passback"
	ActionResetOccupancy Action = "reset_occupancy"
	ActionCode           Action = "code"
)

// Actions lists every action.
func Actions() []Action {
	return []Action{ActionUnlock, ActionThreat, ActionDisable, ActionEnable, ActionIdentify, ActionResetPassback, ActionResetOccupancy, ActionCode}
}

// AtDoor reports whether the action is of one door.
func (a Action) AtDoor() bool {
	return a != ActionThreat && a != ActionResetPassback && a != ActionResetOccupancy
}

// Command is what somebody at the CRM orders of one controller, once. It says
// nothing by itself: it is obeyed for the sake of its nonce, which that controller
// has given out moments ago.
type Command struct {
	V          int       `json:"v"`
	Controller string    `json:"controller"`
	ID         string    `json:"id"` // 32 random hex digits
	Action     Action    `json:"action"`
	Door       string    `json:"door,omitempty"`
	Nonce      string    `json:"nonce"`    // as the controller's state had it
	Issued     time.Time `json:"issued"`   // the CRM's clock
	Expires    time.Time `json:"expires"`  // at most CommandFor later
	Operator   string    `json:"operator"` // pseudonymous id
	Why        string    `json:"why"`

	Threat access.Threat `json:"threat,omitempty"` // threat: the level from now on; 0: none
	Person string        `json:"person,omitempty"` // reset_passback, code: pseudonymous id
	Kind   access.Kind   `json:"person_kind,omitempty"`
	Host   string        `json:"host,omitempty"`  // code: pseudonymous id
	Area   string        `json:"area,omitempty"`  // reset_occupancy
	Count  int           `json:"count,omitempty"` // reset_occupancy: how many are in
	// Code is the keyed hash of a code's door and digits, with that controller's
	// pepper, in hex: the digits themselves are never sent.
	Code string `json:"code,omitempty"`
}

// Marshal writes the call, or says why nobody would accept it.
func (c *Call) Marshal() ([]byte, error) { return marshal(c, MaxCall, "call") }

// ParseCall reads a call. What is signed in it is yet to be verified.
func ParseCall(payload []byte) (*Call, error) {
	c := new(Call)
	if err := parse(payload, c, MaxCall, "call"); err != nil {
		return nil, err
	}
	return c, nil
}

// Sign writes the command and signs it. The signer's typ must be CommandType.
func (c *Command) Sign(s Signer) (jws string, err error) {
	return signPayload(c, s, MaxCommand, "command")
}

// OpenCommand verifies a command's signature and reads it. The verifier is of the
// policy key.
func OpenCommand(jws string, v Verifier) (*Command, error) {
	payload, err := openPayload(jws, v, CommandType, MaxCommand, "command")
	if err != nil {
		return nil, err
	}
	return ParseCommand(payload)
}

// ParseCommand reads a command's payload, whose signature the caller has
// verified.
func ParseCommand(payload []byte) (*Command, error) {
	c := new(Command)
	if err := parse(payload, c, MaxCommand, "command"); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Call) check() error {
	if err := checkHead(c.V, c.Controller); err != nil {
		return err
	}
	if c.Command == "" {
		if len(c.Authority) > 0 {
			return errors.New("an authority, and nothing that it is for")
		}
		return nil
	}
	if n := len(c.Authority); n == 0 || n > MaxAuthority {
		return fmt.Errorf("authority has %d parts, want 1 to %d", n, MaxAuthority)
	}
	for _, jws := range c.Authority {
		if err := checkJWS("authority", jws, maxAuthority); err != nil {
			return err
		}
	}
	return checkJWS("command", c.Command, MaxCommand)
}

func (c *Command) check() error {
	if err := c.Check(); err != nil {
		return err
	}
	if err := CheckEpoch(c.Nonce); err != nil {
		return fmt.Errorf("nonce: %w", err)
	}
	if err := checkTimes(c.Issued, c.Expires); err != nil {
		return err
	}
	if d := c.Expires.Sub(c.Issued); d > CommandFor {
		return fmt.Errorf("it is meant to live for %v, longer than %v", d, CommandFor)
	}
	return nil
}

// Check says why no controller would obey the command, whatever its nonce and its
// times: those are known only when it is sent.
func (c *Command) Check() error {
	if err := checkHead(c.V, c.Controller); err != nil {
		return err
	}
	if err := CheckEpoch(c.ID); err != nil {
		return fmt.Errorf("id: %w", err)
	}
	// The rules of records: whatever is obeyed must fit into one.
	for name, id := range map[string]string{"operator": c.Operator, "person": c.Person, "host": c.Host} {
		if (id != "" || name == "operator") && !isPersonID(id) {
			return fmt.Errorf("%s %q: want the id of a person", name, shorten(id))
		}
	}
	for name, text := range map[string]string{"door": c.Door, "area": c.Area} {
		if len(text) > maxName || !isText(text) {
			return fmt.Errorf("%s %q: not a name", name, shorten(text))
		}
	}
	if c.Why == "" || len(c.Why) > maxWhy || !isText(c.Why) {
		return errors.New("it does not say why, in one line")
	}
	return c.checkAction()
}

// isPersonID reports whether records take a text as the id of a person.
func isPersonID(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// isText reports whether a text is one line and valid.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// checkAction holds a command to what its action takes: nothing is missing, and
// nothing is said that nobody would look at.
func (c *Command) checkAction() error {
	known := false
	for _, a := range Actions() {
		known = known || a == c.Action
	}
	if !known {
		return fmt.Errorf("action %q is unknown", shorten(string(c.Action)))
	}
	if c.Action.AtDoor() != (c.Door != "") {
		return fmt.Errorf("action %q with the door %q", c.Action, c.Door)
	}
	code, passback, occupancy := c.Action == ActionCode, c.Action == ActionResetPassback, c.Action == ActionResetOccupancy
	switch {
	case c.Threat != 0 && c.Action != ActionThreat || c.Threat > access.MaxThreat:
		return fmt.Errorf("action %q with the level of threat %d", c.Action, c.Threat)
	case (code || passback) != (c.Person != ""):
		return fmt.Errorf("action %q with the person %q", c.Action, c.Person)
	case !code && (c.Kind != "" || c.Host != "" || c.Code != ""):
		return fmt.Errorf("action %q with what belongs to a code", c.Action)
	case occupancy != (c.Area != "") || !occupancy && c.Count != 0 || c.Count < 0 || c.Count > maxCount:
		return fmt.Errorf("action %q with the area %q and %d people", c.Action, c.Area, c.Count)
	}
	if !code {
		return nil
	}
	switch c.Kind {
	case "", access.Staff, access.Contractor, access.Visitor:
	default:
		return fmt.Errorf("person kind %q is unknown", shorten(string(c.Kind)))
	}
	if _, err := c.CodeIndex(); err != nil {
		return err
	}
	return nil
}

// CodeIndex is the keyed hash of a code.
func (c *Command) CodeIndex() (index [16]byte, err error) {
	if err := CheckEpoch(c.Code); err != nil { // 32 lower-case hex digits, too
		return index, errors.New("code: not a keyed hash in hex")
	}
	_, err = hex.Decode(index[:], []byte(c.Code))
	return index, err
}
