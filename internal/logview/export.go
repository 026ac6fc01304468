package logview

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
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

// Section is the export of one epoch.
type Section struct {
	Header     Header
	Entries    iter.Seq2[visitorlog.Entry, error]
	Checkpoint func() (string, error) // asked for after the last entry
}

func newHeader(controller, epoch string, size uint64, log *keys.Verifier) (Header, error) {
	h := Header{Version: ExportVersion, Controller: controller, Epoch: epoch, Size: size}
	vkey, err := log.VKey(visitorlog.Origin(controller, epoch))
	if err != nil {
		return h, err
	}
	h.VKeys = []string{vkey}
	h.Keys, err = json.Marshal(struct {
		Keys []any `json:"keys"`
	}{[]any{log.JWK()}})
	return h, err
}

// Export writes epochs to a new file as NDJSON, one after the other: the
// header, a line for each record, the checkpoint. The file appears only when
// it is whole and durable; one that is there already is never touched. Only
// its owner can read it: it holds the records in clear.
func Export(path string, sections ...Section) error {
	return WriteNew(path, func(w io.Writer) error {
		for _, s := range sections {
			if err := s.write(w); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Section) write(w io.Writer) error {
	if err := encode(w, s.Header); err != nil {
		return err
	}
	var n uint64
	for e, err := range s.Entries {
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
	if n != s.Header.Size {
		return fmt.Errorf("%d records of %d", n, s.Header.Size)
	}
	signed, err := s.Checkpoint()
	if err != nil {
		return err
	}
	return encode(w, Trailer{Checkpoint: signed})
}

// CheckNew says whether a file is there that WriteNew would refuse.
func CheckNew(path string) error {
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return fmt.Errorf("%s is there already: %w", path, fs.ErrExist)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// WriteNew writes a new file that only its owner can read. It appears when it
// is whole and durable, and never in the place of another.
func WriteNew(path string, write func(io.Writer) error) error {
	if err := CheckNew(path); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	w := bufio.NewWriterSize(f, 64<<10)
	if err := write(w); err != nil {
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

// WriteProof writes a proof: to a new file, or to w if path is empty.
func WriteProof(w io.Writer, path string, p visitorlog.Proof) error {
	text, err := p.Marshal()
	if err != nil {
		return err
	}
	write := func(w io.Writer) error { _, err := w.Write(text); return err }
	if path == "" {
		return write(w)
	}
	if err := WriteNew(path, write); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s: record %d of %s, epoch %s, in the countersigned tree of %d\n", path, p.Index, p.Controller, p.Epoch, p.Size)
	return err
}
