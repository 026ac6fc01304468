package logview

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Proved is what was verified of a proof, or of one epoch of an export, with
// nothing but public keys.
type Proved struct {
	Kind          string     `json:"kind"` // proof or export
	Controller    string     `json:"controller"`
	Epoch         string     `json:"epoch"`
	First         uint64     `json:"first"` // the records that were verified
	Records       uint64     `json:"records"`
	Size          uint64     `json:"size"` // of the tree that was signed
	Key           string     `json:"key"`  // id of the log's key
	Cosigner      string     `json:"cosigner,omitempty"`
	Countersigned *time.Time `json:"countersigned,omitempty"`

	record *visitorlog.Record // of a proof
}

// ProveFile verifies a file: a proof, or an export with all its epochs. It
// calls proved for each, and returns the first fault.
func ProveFile(r io.Reader, known *keys.Public, proved func(Proved) error) error {
	in := bufio.NewReader(r)
	// An export's first line begins with its mark; a proof's may be written
	// over several lines.
	if head, _ := in.Peek(len(exportMark)); string(head) == exportMark {
		return proveExport(in, known, proved)
	}
	text, err := io.ReadAll(io.LimitReader(in, visitorlog.MaxProof+1))
	if err != nil {
		return err
	}
	p, err := visitorlog.ParseProof(text)
	if err != nil {
		return fmt.Errorf("neither an export nor a proof: %w", err)
	}
	out, err := proveOne(p, known)
	if err != nil {
		return err
	}
	return proved(out)
}

const exportMark = `{"gatehouse_export":`

func proveOne(p visitorlog.Proof, known *keys.Public) (Proved, error) {
	out := Proved{Kind: "proof", Controller: p.Controller, Epoch: p.Epoch, First: p.Index, Records: 1, Size: p.Size}
	logs, err := logKeys(known, p.Controller)
	if err != nil {
		return out, err
	}
	cosigner, at, err := countersigned(known, p.Checkpoint)
	if err != nil {
		return out, err
	}
	if cosigner == nil {
		return out, errors.New("nobody countersigned it")
	}
	// A controller that was replaced has had several keys; the first fault is
	// that of the newest.
	var faults []error
	for _, v := range logs {
		own, err := v.NoteVerifier(visitorlog.Origin(p.Controller, p.Epoch))
		if err != nil {
			return out, err
		}
		r, err := p.Verify(v, own, cosigner.Note())
		if err == nil {
			out.Key, out.Cosigner, out.Countersigned, out.record = v.KeyID(), cosigner.Name(), &at, &r
			return out, nil
		}
		faults = append(faults, err)
	}
	return out, faults[0]
}

// logKeys are the keys that are known of a controller's log.
func logKeys(known *keys.Public, controller string) ([]*keys.Verifier, error) {
	logs, err := known.Logs(strings.TrimSuffix(visitorlog.Origin(controller, ""), "/"))
	if err == nil && len(logs) == 0 {
		err = fmt.Errorf("among the keys is no vkey of controller %q: `gatehouse keys show --json` there prints it", controller)
	}
	return logs, err
}

// countersigned finds the known cosigner who has signed a note; nil if nobody
// but the log has. A signature of somebody unknown is no proof, and whoever
// reads must hear of it.
func countersigned(known *keys.Public, signed string) (*keys.CosignerKey, time.Time, error) {
	for _, c := range known.Cosigners() {
		if at, err := c.Countersigned(signed); err == nil {
			return c, at.UTC(), nil
		}
	}
	_, signatures, _ := strings.Cut(signed, "\n\n")
	var others []string
	for line := range strings.Lines(signatures) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "— "), " ")
		if _, _, err := visitorlog.SplitOrigin(name); err != nil {
			others = append(others, fmt.Sprintf("%q", name))
		}
	}
	if len(others) > 0 {
		return nil, time.Time{}, fmt.Errorf("the countersignature of %s is not by one of the keys: `gatehouse-crm pki show --json` prints the CRM's", strings.Join(others, ", "))
	}
	return nil, time.Time{}, nil
}

// exportProof is the verification of one section on its way.
type exportProof struct {
	Proved
	header   *Header
	known    *keys.Public
	logs     []*keys.Verifier // more than one until the first record tells which
	root     visitorlog.Root
	previous string
}

func proveExport(r io.Reader, known *keys.Public, proved func(Proved) error) error {
	var p *exportProof
	for x, err := range ReadExport(r) {
		switch {
		case err != nil:
			return err
		case x.Header != nil:
			p = &exportProof{header: x.Header, known: known}
			p.Proved = Proved{Kind: "export", Controller: x.Header.Controller, Epoch: x.Header.Epoch, Size: x.Header.Size}
			if p.logs, err = logKeys(known, x.Header.Controller); err != nil {
				return err
			}
		case x.Entry != nil:
			if err := p.add(x.Entry); err != nil {
				return p.at(err)
			}
		default:
			if err := p.end(x.Checkpoint); err != nil {
				return p.at(err)
			}
			if err := proved(p.Proved); err != nil {
				return err
			}
		}
	}
	if p == nil {
		return errors.New("the file is empty")
	}
	return nil
}

// at adds to an error which log it is about.
func (p *exportProof) at(err error) error {
	return fmt.Errorf("%s, epoch %s: %w", p.Controller, p.Epoch, err)
}

// add verifies one record: its place, its signature and its link.
func (p *exportProof) add(e *visitorlog.Entry) error {
	if want := p.root.Size(); e.Seq != want {
		return fmt.Errorf("record %d stands where record %d should", e.Seq, want)
	}
	var r visitorlog.Record
	var first error
	for i, v := range p.logs {
		var err error
		if r, err = visitorlog.VerifyRecord(e.JWS, p.Controller, p.Epoch, e.Seq, v); err == nil {
			p.logs, first = p.logs[i:i+1], nil
			break
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = r.Follows(p.previous)
	}
	if first != nil {
		return fmt.Errorf("record %d: %w", e.Seq, first)
	}
	p.previous = e.Leaf.String()
	return p.root.Add(e.Leaf)
}

// end holds all records to the signed checkpoint.
func (p *exportProof) end(signed string) error {
	p.Records = p.root.Size()
	if p.Records != p.header.Size {
		return fmt.Errorf("it has %d records, and its header says %d", p.Records, p.header.Size)
	}
	if p.Records == 0 {
		return errors.New("it has no records")
	}
	log := p.logs[0]
	origin := visitorlog.Origin(p.Controller, p.Epoch)
	own, err := log.NoteVerifier(origin)
	if err != nil {
		return err
	}
	c, err := visitorlog.OpenCheckpoint(signed, own)
	if err != nil {
		return fmt.Errorf("its checkpoint is not signed by the log: %w", err)
	}
	root, err := p.root.Hash()
	if err != nil {
		return err
	}
	if c.Origin != origin || c.Size != p.Records || c.Root != root {
		return fmt.Errorf("its checkpoint is of %d records of %q with root %s; these %d records have root %s", c.Size, c.Origin, c.Root, p.Records, root)
	}
	cosigner, at, err := countersigned(p.known, signed)
	if err != nil {
		return err
	}
	p.Key = log.KeyID()
	if cosigner != nil {
		p.Cosigner, p.Countersigned = cosigner.Name(), &at
	}
	return nil
}

// Print says in words what was proved, and by whose key.
func (p Proved) Print(w io.Writer, file string) error {
	by := "NOT countersigned: only the controller itself vouches that nothing was left out"
	if p.Countersigned != nil {
		by = fmt.Sprintf("countersigned by %s at %s", p.Cosigner, p.Countersigned.Format(time.RFC3339))
	}
	if p.record != nil {
		what := join(" · ", Time(p.record, time.UTC), p.record.Data.Door, Who(p.record), What(p.record), Why(p.record))
		_, err := fmt.Fprintf(w, "%s: ok: record %d of %s, epoch %s\n  it says: %s\n  signed by the controller's key %s\n  in the log of %d records whose checkpoint the same key signed\n  %s\n",
			file, p.First, p.Controller, p.Epoch, spelling.Printable(what), p.Key, p.Size, by)
		return err
	}
	_, err := fmt.Fprintf(w, "%s: ok: %d records of %s, epoch %s\n  each signed by the controller's key %s and linked to the one before\n  all of the log at the checkpoint that the same key signed: none changed, added, left out or moved\n  %s\n",
		file, p.Records, p.Controller, p.Epoch, p.Key, by)
	return err
}
