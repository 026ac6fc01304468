package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Version is the "v" of every payload.
const Version = 1

// Limits. A payload beyond them is refused before it is parsed.
const (
	MaxBatch        = 256 << 10 // bytes of a batch
	MaxBatchRecords = 500
	MaxRecord       = visitorlog.MaxPayload*4/3 + 4<<10 // bytes of one record's JWS: whatever a log can write
	MaxCheckpoint   = 4 << 10                           // bytes of a signed note
	MaxState        = 8 << 10                           // bytes of a state
	MaxReceipt      = 16 << 10                          // bytes of a receipt's JWS
	MaxUsed         = 64                                // entries of a receipt's list of what was used up
	MaxPayload      = MaxBatch                          // bytes of the largest of them: the broker's limit
	maxWord         = 128                               // bytes of a short string
)

// MaxSize bounds sequences and tree sizes: below it every JSON reader keeps
// them exact (RFC 8259, section 6).
const MaxSize = 1 << 53

// ErrTooLarge is returned for a payload beyond its limit.
var ErrTooLarge = errors.New("payload is too large")

// Batch is the payload of up/records: records as they stand in the log, one
// after the other.
type Batch struct {
	V          int    `json:"v"`
	Controller string `json:"controller"`
	Epoch      string `json:"epoch"`
	First      uint64 `json:"first"` // sequence of the first record
	// Early marks the newest records, sent ahead of a backlog to be seen at
	// once. They carry no checkpoint, are never receipted, and come again in
	// their turn.
	Early   bool     `json:"early,omitempty"`
	Records []string `json:"records"` // compact JWS
	// Checkpoint is the log's signed note at size First+len(Records).
	Checkpoint string `json:"checkpoint,omitempty"`
}

// End is the sequence after the batch's last record.
func (b *Batch) End() uint64 { return b.First + uint64(len(b.Records)) }

// State is the payload of up/state. It is published on every connection and
// now and then after that; the broker keeps the last one.
type State struct {
	V          int    `json:"v"`
	Controller string `json:"controller"`
	Online     bool   `json:"online"` // false in the Last Will and when the daemon ends
	// Session is random for each start of the daemon and Number rises in it:
	// together they tell a state that is new from one delivered late.
	Session string    `json:"session"`
	Number  uint64    `json:"number"`
	Time    time.Time `json:"time,omitzero"`
	Epoch   string    `json:"epoch,omitempty"`
	// Checkpoint is the log's signed note at its head; empty for an empty log.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Acknowledged is how many records of the epoch the controller has a
	// receipt for. A CRM that holds fewer has lost some.
	Acknowledged  uint64            `json:"acknowledged,omitempty"`
	PolicyVersion uint64            `json:"policy_version"`
	Clock         *visitorlog.Clock `json:"clock,omitempty"`
	// Nonce is for the next command. It is there only for some seconds after the
	// CRM has asked for one, so that a CRM which knows of none never sees any.
	Nonce string `json:"nonce,omitempty"`
}

// Name is what a receipt calls the state that it answers.
func (s *State) Name() string { return fmt.Sprintf("%s.%d", s.Session, s.Number) }

// Receipt is the payload of the JWS on down/receipt: what the CRM has stored
// of one epoch, after its commit.
type Receipt struct {
	V          int    `json:"v"`
	Controller string `json:"controller"`
	Epoch      string `json:"epoch"`
	Size       uint64 `json:"size"` // records stored: all below this sequence
	// Checkpoint is the note at Size, signed by the log and cosigned by the
	// CRM (C2SP cosignature/v1); empty at size 0.
	Checkpoint string `json:"checkpoint,omitempty"`
	// PolicyVersion is the highest allowlist version that the CRM has seen
	// this controller use.
	PolicyVersion uint64 `json:"policy_version"`
	// Used names what was used up and stays so, such as one-time codes.
	Used []string  `json:"used"`
	Time time.Time `json:"time"` // the CRM's clock
	// State names the state message that this receipt answers; empty if it
	// answers a batch.
	State string `json:"state,omitempty"`
}

// ReceiptType is the typ in the protected header of a receipt's JWS.
const ReceiptType = "gatehouse-receipt+jwt"

// Signer makes a compact JWS.
type Signer interface {
	Sign(payload []byte) (jws string, err error)
}

// Verifier opens a compact JWS that a known key has signed.
type Verifier interface {
	Verify(jws string) (payload []byte, err error)
}

// Marshal writes the state, or says why nobody would accept it.
func (s *State) Marshal() ([]byte, error) { return marshal(s, MaxState, "state") }

// ParseState reads a state.
func ParseState(payload []byte) (*State, error) {
	s := new(State)
	if err := parse(payload, s, MaxState, "state"); err != nil {
		return nil, err
	}
	return s, nil
}

// Sign writes the receipt and signs it. The signer's typ must be ReceiptType.
func (r *Receipt) Sign(s Signer) (jws string, err error) {
	payload, err := marshal(r, MaxReceipt, "receipt")
	if err != nil {
		return "", err
	}
	if jws, err = s.Sign(payload); err != nil {
		return "", fmt.Errorf("sign receipt: %w", err)
	}
	if len(jws) > MaxReceipt {
		return "", fmt.Errorf("receipt: %w: %d bytes, more than %d", ErrTooLarge, len(jws), MaxReceipt)
	}
	return jws, nil
}

// OpenReceipt verifies a receipt's signature and reads it. It does not look
// into its checkpoint.
func OpenReceipt(jws string, v Verifier) (*Receipt, error) {
	if len(jws) > MaxReceipt {
		return nil, fmt.Errorf("receipt: %w: %d bytes, more than %d", ErrTooLarge, len(jws), MaxReceipt)
	}
	payload, err := v.Verify(jws)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	// The CRM's key signs other things too; the type keeps them apart.
	if err := checkType(jws, ReceiptType); err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return ParseReceipt(payload)
}

// ParseReceipt reads a receipt's payload, whose signature the caller has
// verified.
func ParseReceipt(payload []byte) (*Receipt, error) {
	r := new(Receipt)
	if err := parse(payload, r, MaxReceipt, "receipt"); err != nil {
		return nil, err
	}
	return r, nil
}

func checkType(jws, want string) error {
	head, _, _ := strings.Cut(jws, ".")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return fmt.Errorf("protected header: %w", err)
	}
	var h struct {
		Type string `json:"typ"`
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return fmt.Errorf("protected header: %w", err)
	}
	if h.Type != want {
		return fmt.Errorf("typ is %q, not %q", h.Type, want)
	}
	return nil
}

type payload interface{ check() error }

func marshal(p payload, limit int, what string) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	b, err := encode(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, more than %d", what, ErrTooLarge, len(b), limit)
	}
	return b, nil
}

func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// parse reads one JSON object. encoding/json takes names in any case, the
// last of two equal names, and replaces bytes that are not UTF-8: comparing
// with the one way to write the payload refuses all of these.
func parse(b []byte, p payload, limit int, what string) error {
	if len(b) > limit {
		return fmt.Errorf("%s: %w: %d bytes, more than %d", what, ErrTooLarge, len(b), limit)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: bytes after the object", what)
	}
	if err := p.check(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	again, err := encode(p)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%s: not written in the one accepted way (order, case, spaces, repeated names)", what)
	}
	return nil
}

func (b *Batch) check() error {
	if err := checkHead(b.V, b.Controller); err != nil {
		return err
	}
	if err := CheckEpoch(b.Epoch); err != nil {
		return err
	}
	if len(b.Records) == 0 {
		return errors.New("no records")
	}
	if len(b.Records) > MaxBatchRecords {
		return fmt.Errorf("%w: %d records, more than %d", ErrTooLarge, len(b.Records), MaxBatchRecords)
	}
	if b.First > MaxSize-uint64(len(b.Records)) {
		return fmt.Errorf("first sequence %d is out of range", b.First)
	}
	for i, r := range b.Records {
		if len(r) > MaxRecord {
			return fmt.Errorf("%w: record %d has %d bytes, more than %d", ErrTooLarge, b.First+uint64(i), len(r), MaxRecord)
		}
	}
	switch {
	case b.Early && b.Checkpoint != "":
		return errors.New("an early batch has a checkpoint")
	case !b.Early && b.Checkpoint == "":
		return errors.New("no checkpoint")
	}
	return checkNote(b.Checkpoint)
}

func (s *State) check() error {
	if err := checkHead(s.V, s.Controller); err != nil {
		return err
	}
	if err := CheckEpoch(s.Session); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	if s.Number > MaxSize || s.PolicyVersion > MaxSize || s.Acknowledged > MaxSize {
		return errors.New("a number is out of range")
	}
	if s.Epoch != "" || s.Online {
		if err := CheckEpoch(s.Epoch); err != nil {
			return err
		}
	}
	if s.Checkpoint != "" && s.Epoch == "" {
		return errors.New("a checkpoint without an epoch")
	}
	if s.Nonce != "" {
		if err := CheckEpoch(s.Nonce); err != nil {
			return fmt.Errorf("nonce: %w", err)
		}
		if !s.Online {
			return errors.New("a nonce of a controller that is not there")
		}
	}
	if c := s.Clock; c != nil && (len(c.Boot) > maxWord || len(c.State) > maxWord) {
		return fmt.Errorf("clock: %w", ErrTooLarge)
	}
	if err := checkTime(s.Time); err != nil {
		return err
	}
	return checkNote(s.Checkpoint)
}

func (r *Receipt) check() error {
	if err := checkHead(r.V, r.Controller); err != nil {
		return err
	}
	if err := CheckEpoch(r.Epoch); err != nil {
		return err
	}
	if r.Size > MaxSize || r.PolicyVersion > MaxSize {
		return errors.New("a number is out of range")
	}
	if (r.Size == 0) != (r.Checkpoint == "") {
		return fmt.Errorf("size %d does not go with its checkpoint", r.Size)
	}
	if r.Used == nil {
		return errors.New("used is missing")
	}
	if len(r.Used) > MaxUsed {
		return fmt.Errorf("used: %w: %d entries, more than %d", ErrTooLarge, len(r.Used), MaxUsed)
	}
	for _, u := range r.Used {
		if len(u) > maxWord {
			return fmt.Errorf("used: %w", ErrTooLarge)
		}
	}
	if len(r.State) > maxWord {
		return fmt.Errorf("state: %w", ErrTooLarge)
	}
	if r.Time.IsZero() {
		return errors.New("time is missing")
	}
	if err := checkTime(r.Time); err != nil {
		return err
	}
	return checkNote(r.Checkpoint)
}

func checkHead(v int, controller string) error {
	if v != Version {
		return fmt.Errorf("version is %d, not %d", v, Version)
	}
	return CheckController(controller)
}

// CheckEpoch refuses an id that is not 32 lower-case hex digits.
func CheckEpoch(id string) error {
	if len(id) != 32 {
		return fmt.Errorf("id %q does not have 32 hex digits", shorten(id))
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("id %q has %q: only 0-9 and a-f are allowed", id, c)
		}
	}
	return nil
}

func checkNote(n string) error {
	if len(n) > MaxCheckpoint {
		return fmt.Errorf("checkpoint: %w: %d bytes, more than %d", ErrTooLarge, len(n), MaxCheckpoint)
	}
	return nil
}

// checkTime refuses what RFC 3339 cannot say in UTC.
func checkTime(t time.Time) error {
	if !t.IsZero() && (t.Location() != time.UTC || t.Year() < 1970 || t.Year() > 9999) {
		return fmt.Errorf("time %q is not in UTC or out of range", t.Format(time.RFC3339))
	}
	return nil
}

func shorten(s string) string {
	if len(s) > maxWord {
		return s[:maxWord]
	}
	return s
}
