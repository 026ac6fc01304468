package logview

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/tlog"
)

// maxLine is longer than any line of an export, in bytes.
const maxLine = 128 << 10

// Exported is what a line of an export says; one of its fields is set.
type Exported struct {
	Header     *Header
	Entry      *visitorlog.Entry // its Record is left empty
	Checkpoint string
}

// ReadExport reads an export: sections of a header, its records and a
// checkpoint, in this order. It holds each leaf to its record, and nothing to
// a signature; the order and number of the records is left to the reader. The
// last pair is an error if the export is not of that form.
func ReadExport(r io.Reader) iter.Seq2[Exported, error] {
	return func(yield func(Exported, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		open := false // within a section
		for n := 1; lines.Scan(); n++ {
			x, err := parseLine(lines.Bytes(), open)
			if err != nil {
				yield(Exported{}, fmt.Errorf("line %d: %w", n, err))
				return
			}
			open = x.Checkpoint == ""
			if !yield(x, nil) {
				return
			}
		}
		err := lines.Err()
		if err == nil && open {
			err = errors.New("the file ends before its checkpoint: it was cut off")
		}
		if err != nil {
			yield(Exported{}, err)
		}
	}
}

func parseLine(text []byte, open bool) (Exported, error) {
	if !open {
		var h Header
		if err := decodeLine(text, &h); err != nil {
			return Exported{}, fmt.Errorf("not an export's header: %w", err)
		}
		if h.Version != ExportVersion {
			return Exported{}, fmt.Errorf("export of version %d: this program knows %d", h.Version, ExportVersion)
		}
		if _, _, err := visitorlog.SplitOrigin(visitorlog.Origin(h.Controller, h.Epoch)); err != nil {
			return Exported{}, fmt.Errorf("controller %q, epoch %q", h.Controller, h.Epoch)
		}
		return Exported{Header: &h}, nil
	}
	var l struct {
		Line
		Trailer
	}
	if err := decodeLine(text, &l); err != nil {
		return Exported{}, fmt.Errorf("neither a record nor a checkpoint: %w", err)
	}
	if l.Checkpoint != "" {
		if l.Line != (Line{}) {
			return Exported{}, errors.New("a record and a checkpoint in one line")
		}
		return Exported{Checkpoint: l.Checkpoint}, nil
	}
	if l.JWS == "" {
		return Exported{}, errors.New("neither a record nor a checkpoint")
	}
	e := visitorlog.Entry{Seq: l.Seq, JWS: l.JWS, Leaf: tlog.RecordHash([]byte(l.JWS))}
	if e.Leaf.String() != l.Leaf {
		return Exported{}, fmt.Errorf("record %d: its leaf hash is not that of its signed bytes", l.Seq)
	}
	return Exported{Entry: &e}, nil
}

func decodeLine(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows")
	}
	return nil
}
