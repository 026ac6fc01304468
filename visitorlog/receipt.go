package visitorlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Receipt is the CRM's word for what it has stored and countersigned of an
// epoch. Whoever hands one to the log has verified it.
type Receipt struct {
	Epoch         string
	Size          uint64    // records from 0 on that the CRM has
	Root          tlog.Hash // of the tree of that size
	Checkpoint    string    // the cosigned note
	Time          time.Time // the CRM's, UTC: the floor under the controller's clock
	PolicyVersion uint64    // the highest that the CRM has seen
	JWS           string    // the receipt as it came
}

// The newest receipt is kept beside the database too, in a file that survives
// it: with it a controller notices, offline too, that its database was
// replaced or rolled back. The file is text, one "name value" a line in this
// order, and ends with the SHA-256 of the lines above: a card that rots must
// not look like a rolled-back log.
//
//	gatehouse-receipt 1
//	epoch 0f0e…
//	size 17
//	root <base64>
//	time 2026-01-02T03:04:05.000006Z
//	policy 3
//	jws eyJ…
//	sha256 <hex>
const (
	receiptFile    = "receipt.jws"
	receiptHeader  = "gatehouse-receipt 1"
	maxReceiptFile = 64 << 10
)

var (
	epochForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
	jwsForm   = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)
)

// check refuses a receipt that could not be kept.
func (r Receipt) check() error {
	switch {
	case !epochForm.MatchString(r.Epoch):
		return fmt.Errorf("receipt: epoch %q", r.Epoch)
	case r.Size > maxSize:
		return fmt.Errorf("receipt: size %d is out of range", r.Size)
	case r.PolicyVersion > maxCount:
		return fmt.Errorf("receipt: policy version %d is out of range", r.PolicyVersion)
	case r.Time.Year() < 1 || r.Time.Year() > 9999:
		return fmt.Errorf("receipt: time %v is out of range", r.Time)
	case !jwsForm.MatchString(r.JWS):
		return errors.New("receipt: not a compact JWS")
	}
	return nil
}

// VerifyReceipt says what is wrong with a receipt that was kept: that the CRM
// has not signed it, or has signed something else than it says.
func VerifyReceipt(r Receipt, controller string, v Verifier) error {
	payload, err := v.Verify(r.JWS)
	if err != nil {
		return fmt.Errorf("is not signed by the CRM: %w", err)
	}
	var signed struct {
		Controller    string    `json:"controller"`
		Epoch         string    `json:"epoch"`
		Size          uint64    `json:"size"`
		Checkpoint    string    `json:"checkpoint"`
		PolicyVersion uint64    `json:"policy_version"`
		Time          time.Time `json:"time"`
	}
	if err := json.Unmarshal(payload, &signed); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	same := signed.Controller == controller && signed.Epoch == r.Epoch && signed.Size == r.Size &&
		signed.PolicyVersion == r.PolicyVersion && signed.Time.Equal(r.Time)
	if same && r.Size > 0 {
		c, err := readCheckpoint(signed.Checkpoint)
		same = err == nil && c.Origin == Origin(controller, r.Epoch) && c.Size == r.Size && c.Root == r.Root
	}
	if !same {
		return errors.New("is not what the CRM has signed")
	}
	return nil
}

// marshalReceipt writes the file's text. The cosigned checkpoint is inside
// the JWS and is not written again.
func marshalReceipt(r Receipt) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nepoch %s\nsize %d\nroot %s\ntime %s\npolicy %d\njws %s\n", receiptHeader,
		r.Epoch, r.Size, r.Root, r.Time.UTC().Format(time.RFC3339Nano), r.PolicyVersion, r.JWS)
	fmt.Fprintf(&b, "sha256 %x\n", sha256.Sum256(b.Bytes()))
	return b.Bytes()
}

// parseReceipt parses the file's text; anything that marshalReceipt would not
// have written is refused.
func parseReceipt(text []byte) (Receipt, error) {
	if len(text) > maxReceiptFile {
		return Receipt{}, fmt.Errorf("receipt file: %d bytes", len(text))
	}
	lines := strings.Split(string(text), "\n")
	names := []string{receiptHeader, "epoch ", "size ", "root ", "time ", "policy ", "jws ", "sha256 ", ""}
	if len(lines) != len(names) {
		return Receipt{}, fmt.Errorf("receipt file: %d lines", len(lines))
	}
	values := make([]string, len(lines))
	for i, line := range lines {
		value, ok := strings.CutPrefix(line, names[i])
		if !ok {
			return Receipt{}, fmt.Errorf("receipt file: line %d does not begin with %q", i+1, names[i])
		}
		values[i] = value
	}
	sum := sha256.Sum256(text[:len(text)-len(lines[7])-1])
	if values[7] != hex.EncodeToString(sum[:]) {
		return Receipt{}, errors.New("receipt file: damaged: its sum is wrong")
	}
	r := Receipt{Epoch: values[1], JWS: values[6]}
	var err error
	if r.Size, err = strconv.ParseUint(values[2], 10, 64); err != nil {
		return Receipt{}, fmt.Errorf("receipt file: size %q", values[2])
	}
	if r.Root, err = tlog.ParseHash(values[3]); err != nil {
		return Receipt{}, fmt.Errorf("receipt file: root %q", values[3])
	}
	if r.Time, err = time.Parse(time.RFC3339Nano, values[4]); err != nil {
		return Receipt{}, fmt.Errorf("receipt file: time %q", values[4])
	}
	if r.PolicyVersion, err = strconv.ParseUint(values[5], 10, 64); err != nil {
		return Receipt{}, fmt.Errorf("receipt file: policy version %q", values[5])
	}
	if err := r.check(); err != nil {
		return Receipt{}, fmt.Errorf("receipt file: %w", err)
	}
	if !bytes.Equal(marshalReceipt(r), text) {
		return Receipt{}, errors.New("receipt file: not in its canonical form")
	}
	return r, nil
}

// readReceipt reads the receipt beside the database; nil without an error if
// there is none.
func readReceipt(dir string) (*Receipt, error) { return readReceiptAt(filepath.Join(dir, receiptFile)) }

func readReceiptAt(path string) (*Receipt, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := parseReceipt(text)
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// writeReceipt replaces the file durably: whatever happens, the old one or
// the new one is there afterwards, whole.
func writeReceipt(dir string, r Receipt) error {
	return writeReceiptAt(filepath.Join(dir, receiptFile), r)
}

func writeReceiptAt(path string, r Receipt) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(marshalReceipt(r))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("keep receipt: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
