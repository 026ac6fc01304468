package logview

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// ExportVersion is the version of the export's form.
const ExportVersion = 1

// Header is the first line of an export: what a reader needs to verify the
// rest with a stock JOSE library and a C2SP checkpoint verifier.
type Header struct {
	Version    int             `json:"gatehouse_export"`
	Controller string          `json:"controller"`
	Epoch      string          `json:"epoch"`
	Size       uint64          `json:"size"`  // records that follow, from 0 on
	Keys       json.RawMessage `json:"keys"`  // a JWKS with the log's key
	VKeys      []string        `json:"vkeys"` // of the checkpoint's signatures
}

// Line is one record of an export.
type Line struct {
	Seq  uint64 `json:"seq"`
	Leaf string `json:"leaf"` // base64
	JWS  string `json:"jws"`
}

// Trailer is the last line of an export.
type Trailer struct {
	Checkpoint string `json:"checkpoint"` // the signed note over all of the export's records
}

// Export writes a log to a new file as NDJSON: the header, a line for each
// record, the checkpoint. The file appears only when it is whole and durable;
// one that is there already is never touched. Only its owner can read it:
// it holds the records in clear.
func Export(path string, h Header, entries iter.Seq2[visitorlog.Entry, error], checkpoint func() (string, error)) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	h.Version = ExportVersion
	w := bufio.NewWriterSize(f, 64<<10)
	if err := encode(w, h); err != nil {
		return err
	}
	var n uint64
	for e, err := range entries {
		if err != nil {
			return err
		}
		if e.Seq != n {
			return fmt.Errorf("record %d is missing", n)
		}
		n++
		if err := encode(w, Line{Seq: e.Seq, Leaf: e.Leaf.String(), JWS: e.JWS}); err != nil {
			return err
		}
	}
	if n != h.Size {
		return fmt.Errorf("%d records of %d", n, h.Size)
	}
	signed, err := checkpoint()
	if err != nil {
		return err
	}
	if err := encode(w, Trailer{Checkpoint: signed}); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// Link, unlike rename, refuses a file that came meanwhile.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
