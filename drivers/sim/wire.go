package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

const (
	protocol = 1    // of the first line in each direction
	maxLine  = 4096 // bytes, without the line feed
	maxName  = 64   // bytes
	maxFault = 200  // bytes
	maxWires = 1024 // wires whose state a site may report
	maxKeys  = 32   // typed in one go
)

// The states of a strike.
const (
	Locked   = "locked"
	Unlocked = "unlocked"
)

// patterns are what an indicator can show.
var patterns = []string{
	"idle", "waiting", "granted", "denied", "fault", "held_warning",
	"ask_badge", "ask_fingerprint", "ask_iris", "ask_pin", "ask_company", "try_again", "identify",
}

// fromSite is one line from the site: the first one (Site set), or one wire's
// frame, keys, state or fault.
type fromSite struct {
	Site   int               `json:"site,omitempty"`
	Active []string          `json:"active,omitempty"`
	Faults map[string]string `json:"faults,omitempty"`

	Line  string
	Frame *badge.Frame
	Keys  keys
	State *bool
	Fault *string
}

// keys are a frame for each key that was typed. No way of printing them shows
// which.
type keys []badge.Frame

// typed are the keys of a text: 0 to 9, * and #, each as a keypad of the 4-bit
// encoding sends it. ok is false of one that has others, none or too many.
func typed(text string) (all keys, ok bool) {
	if text == "" || len(text) > maxKeys {
		return nil, false
	}
	for _, c := range []byte(text) {
		i := strings.IndexByte(keyNames, c)
		if i < 0 {
			return nil, false
		}
		f, err := badge.ParseFrame(fmt.Sprintf("%04b", i))
		if err != nil {
			panic(err) // four bits are a frame
		}
		all = append(all, f)
	}
	return all, true
}

// keyNames are the keys in the order of their codes.
const keyNames = "0123456789*#"

// text is what typed read.
func (k keys) text() string {
	var b strings.Builder
	for _, f := range k {
		i, err := strconv.ParseUint(f.Bits(), 2, 4)
		if err != nil {
			panic(err) // typed made it
		}
		b.WriteByte(keyNames[i])
	}
	return b.String()
}

// siteLine is fromSite as it stands on the socket. Active is a list in the
// first line and a boolean afterwards.
type siteLine struct {
	Site   *int              `json:"site,omitempty"`
	Active json.RawMessage   `json:"active,omitempty"`
	Faults map[string]string `json:"faults,omitempty"`
	Line   *string           `json:"line,omitempty"`
	Frame  *string           `json:"frame,omitempty"`
	Keys   *string           `json:"keys,omitempty"`
	Fault  *string           `json:"fault,omitempty"`
}

func (m fromSite) marshal() []byte {
	var l siteLine
	if m.Site != 0 {
		l.Site, l.Faults = &m.Site, m.Faults
		if len(m.Active) > 0 {
			l.Active = mustMarshal(m.Active)
		}
		return mustMarshal(l)
	}
	l.Line, l.Fault = &m.Line, m.Fault
	if m.State != nil {
		l.Active = mustMarshal(*m.State)
	}
	if m.Frame != nil {
		bits := m.Frame.Bits()
		l.Frame = &bits
	}
	if m.Keys != nil {
		text := m.Keys.text()
		l.Keys = &text
	}
	return mustMarshal(l)
}

// parseSite reads one line from the site. Its errors never repeat a frame or
// keys.
func parseSite(line []byte) (fromSite, error) {
	var l siteLine
	if err := decodeStrict(line, &l); err != nil {
		return fromSite{}, err
	}
	switch {
	case l.Site != nil:
		return parseHello(l)
	case l.Line == nil:
		return fromSite{}, fmt.Errorf("neither site nor line is set")
	}
	m := fromSite{Line: *l.Line, Fault: l.Fault}
	if err := checkName(m.Line); err != nil {
		return fromSite{}, err
	}
	if l.Faults != nil {
		return fromSite{}, fmt.Errorf("line %q: faults belongs to the first line, fault to a wire", m.Line)
	}
	n := 0
	if l.Frame != nil {
		f, err := badge.ParseFrame(*l.Frame)
		if err != nil {
			return fromSite{}, fmt.Errorf("line %q: the frame is not 1 to %d of 0 and 1", m.Line, badge.MaxBits)
		}
		m.Frame = &f
		n++
	}
	if l.Keys != nil {
		var ok bool
		if m.Keys, ok = typed(*l.Keys); !ok {
			return fromSite{}, fmt.Errorf("line %q: the keys are not 1 to %d of 0 to 9, * and #", m.Line, maxKeys)
		}
		n++
	}
	if l.Active != nil {
		if err := json.Unmarshal(l.Active, &m.State); err != nil || m.State == nil {
			return fromSite{}, fmt.Errorf("line %q: active is neither true nor false", m.Line)
		}
		n++
	}
	if m.Fault != nil {
		if len(*m.Fault) > maxFault {
			return fromSite{}, fmt.Errorf("line %q: the fault has more than %d bytes", m.Line, maxFault)
		}
		n++
	}
	if n != 1 {
		return fromSite{}, fmt.Errorf("line %q: exactly one of frame, keys, active and fault must be set", m.Line)
	}
	return m, nil
}

func parseHello(l siteLine) (fromSite, error) {
	if *l.Site != protocol {
		return fromSite{}, fmt.Errorf("the site speaks version %d, this is version %d", *l.Site, protocol)
	}
	if l.Line != nil || l.Frame != nil || l.Keys != nil || l.Fault != nil {
		return fromSite{}, fmt.Errorf("the first line has only site, active and faults")
	}
	m := fromSite{Site: protocol}
	if l.Active != nil {
		if err := json.Unmarshal(l.Active, &m.Active); err != nil {
			return fromSite{}, fmt.Errorf("active is not a list of wires")
		}
	}
	if len(l.Faults) > 0 {
		m.Faults = l.Faults
	}
	if len(m.Active)+len(m.Faults) > maxWires {
		return fromSite{}, fmt.Errorf("more than %d wires", maxWires)
	}
	for _, name := range slices.Concat(m.Active, slices.Sorted(maps.Keys(m.Faults))) {
		if err := checkName(name); err != nil {
			return fromSite{}, err
		}
	}
	for name, why := range m.Faults {
		if why == "" || len(why) > maxFault {
			return fromSite{}, fmt.Errorf("line %q: a fault has 1 to %d bytes", name, maxFault)
		}
	}
	if len(m.Active) == 0 {
		m.Active = nil
	}
	return m, nil
}

// fromBus is one line from the controller: a welcome, an error or the state
// of an output.
type fromBus struct {
	Welcome int       `json:"welcome,omitempty"`
	Error   string    `json:"error,omitempty"`
	Line    string    `json:"line,omitempty"`
	State   string    `json:"state,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

func (m fromBus) marshal() []byte { return mustMarshal(m) }

// parseBus reads one line from the controller.
func parseBus(line []byte) (fromBus, error) {
	var m fromBus
	if err := decodeStrict(line, &m); err != nil {
		return fromBus{}, err
	}
	output := fromBus{Line: m.Line, State: m.State, At: m.At}
	switch m {
	case fromBus{Welcome: m.Welcome}:
		if m.Welcome != protocol {
			return fromBus{}, fmt.Errorf("the controller speaks version %d, this is version %d", m.Welcome, protocol)
		}
	case fromBus{Error: m.Error}:
	case output:
		if err := checkName(m.Line); err != nil {
			return fromBus{}, err
		}
		if m.State != Locked && m.State != Unlocked && !slices.Contains(patterns, m.State) {
			return fromBus{}, fmt.Errorf("line %q: unknown state %q", m.Line, m.State)
		}
		if m.At.IsZero() {
			return fromBus{}, fmt.Errorf("line %q: at is not set", m.Line)
		}
	default:
		return fromBus{}, fmt.Errorf("a line is a welcome, an error or one output")
	}
	return m, nil
}

// wholeLines is bufio.ScanLines but for a last line without its end: that was
// cut short when the other end was killed, and says nothing.
func wholeLines(data []byte, atEOF bool) (advance int, line []byte, err error) {
	if atEOF && !bytes.ContainsRune(data, '\n') {
		return len(data), nil, nil
	}
	return bufio.ScanLines(data, atEOF)
}

// decodeStrict reads exactly one JSON object without unknown fields.
func decodeStrict(line []byte, v any) error {
	if len(line) > maxLine {
		return fmt.Errorf("more than %d bytes", maxLine)
	}
	if trimmed := bytes.TrimSpace(line); len(trimmed) == 0 || trimmed[0] != '{' {
		return fmt.Errorf("not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("not a line of this protocol: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("something follows the object")
	}
	return nil
}

// checkName refuses what cannot be the name of a wire.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("line %.70q: a name has 1 to %d bytes", name, maxName)
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("line %q: a name has only A-Z a-z 0-9 . _ -", name)
		}
	}
	return nil
}

// mustMarshal marshals types of this file: strings, numbers and booleans.
func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
