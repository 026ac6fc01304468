package logview

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"golang.org/x/mod/sumdb/note"
)

// site is a controller's log and a cosigner, and what they show of their keys.
type site struct {
	door     *Controller
	cosigner *keys.Cosigner
	known    *keys.Public
	export   string // of six records
	proof    string // of record 3
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	ctx := context.Background()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	dir := tb.TempDir()
	_, err := keys.InitController(filepath.Join(dir, "keys"), keys.ES256)
	must(err)
	k, err := keys.LoadController(keys.File(filepath.Join(dir, "keys")))
	must(err)
	_, key, err := ed25519.GenerateKey(nil)
	must(err)
	s := &site{door: &Controller{Path: filepath.Join(dir, "records.db"), Sealer: k.Records, Signer: k.Log.NoteSigner}}
	s.cosigner, err = keys.NewCosigner(key, "crm.example")
	must(err)
	s.door.Verifier, err = k.Log.Verifier(keys.TypeRecord)
	must(err)

	l, err := visitorlog.Open(dir, visitorlog.Options{
		Controller: "north-1", Signer: k.Log, Verifier: s.door.Verifier, Note: k.Log.NoteSigner, NoteVerifier: s.door.Verifier.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			return time.Now(), visitorlog.Clock{State: access.ClockSynchronised}
		},
	})
	must(err)
	defer l.Close()
	for range 5 {
		_, err := l.Append(ctx, func(*visitorlog.Tx) (visitorlog.Draft, error) {
			return visitorlog.Draft{Type: visitorlog.RequestToExit, Data: visitorlog.Data{Door: "a"}}, nil
		})
		must(err)
	}
	origin := visitorlog.Origin("north-1", l.Epoch())
	signed, err := l.Checkpoint(ctx, 6)
	must(err)
	own, err := s.door.Verifier.NoteVerifier(origin)
	must(err)
	n, err := note.Open([]byte(signed), note.VerifierList(own))
	must(err)
	both, err := note.Sign(n, s.cosigner.Note())
	must(err)
	root, err := l.Root(ctx, 6)
	must(err)
	at := time.Now().UTC()
	payload, err := json.Marshal(map[string]any{"controller": "north-1", "epoch": l.Epoch(), "size": 6, "checkpoint": string(both), "policy_version": 0, "time": at})
	must(err)
	receipt, err := s.cosigner.Receipts().Sign(payload)
	must(err)
	must(l.Acknowledge(ctx, visitorlog.Receipt{Epoch: l.Epoch(), Size: 6, Root: root, Checkpoint: string(both), Time: at, JWS: receipt}))
	s.door.Receipts, err = s.cosigner.Public().Receipts()
	must(err)

	v, err := s.door.Verify(ctx, nil)
	must(err)
	section, err := s.door.Section(ctx, v)
	must(err)
	section.Header.VKeys = append(section.Header.VKeys, s.cosigner.Public().VKey())
	section.Checkpoint = func() (string, error) { return string(both), nil }
	must(Export(filepath.Join(dir, "x"), section))
	text, err := os.ReadFile(filepath.Join(dir, "x"))
	must(err)
	s.export = string(text)
	p, err := s.door.Prove(ctx, "", 3)
	must(err)
	text, err = p.Marshal()
	must(err)
	s.proof = string(text)
	vkey, err := s.door.Verifier.VKey(origin)
	must(err)
	shown, err := json.Marshal(map[string]any{"vkeys": []string{vkey}, "cosigner": s.cosigner.Public().VKey()})
	must(err)
	s.known, err = keys.ParsePublic(shown)
	must(err)
	return s
}

// TestShowSaysCountersignedOnlyOfWhatTheCRMSigned changes what is kept of a
// receipt beside the CRM's signature.
func TestShowSaysCountersignedOnlyOfWhatTheCRMSigned(t *testing.T) {
	s := newSite(t)
	countersigned := func(want bool, says string) {
		t.Helper()
		_, checks, err := s.door.Show(t.Context(), 3, time.UTC)
		if err != nil || len(checks) != 4 {
			t.Fatalf("%+v, %v", checks, err)
		}
		c := checks[3]
		if c.OK != want || !strings.Contains(c.What+c.Why, says) {
			t.Errorf("%+v; want it to say %q", c, says)
		}
	}
	countersigned(true, "countersigned by the CRM, ")
	known := s.door.Receipts
	s.door.Receipts = nil
	countersigned(false, "no CRM has been joined")
	s.door.Receipts = known
	db, err := sql.Open("sqlite3", "file:"+s.door.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE receipt SET time = '2026-01-02T03:04:05Z'`); err != nil {
		t.Fatal(err)
	}
	countersigned(false, "is not what the CRM has signed")
}

func (s *site) prove(text string) (out []Proved, err error) {
	err = ProveFile(strings.NewReader(text), s.known, func(p Proved) error {
		out = append(out, p)
		return nil
	})
	return out, err
}

// TestAnExportVerifiesAsItIsAndNotOtherwise takes each line out, doubles it,
// and changes bytes of it.
func TestAnExportVerifiesAsItIsAndNotOtherwise(t *testing.T) {
	s := newSite(t)
	got, err := s.prove(s.export)
	if err != nil || len(got) != 1 || got[0].Records != 6 || got[0].Key != s.door.Verifier.KeyID() || got[0].Cosigner != "crm.example" {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := s.prove(s.export + s.export); err != nil || len(got) != 2 {
		t.Errorf("two sections: %+v, %v", got, err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(s.export, "\n"), "\n")
	join := func(parts ...[]string) string {
		var b strings.Builder
		for _, p := range parts {
			b.WriteString(strings.Join(p, ""))
		}
		return b.String()
	}
	refused := func(what, text string) {
		t.Helper()
		if got, err := s.prove(text); err == nil {
			t.Errorf("%s: verified %+v", what, got)
		}
	}
	for i, line := range lines {
		refused(fmt.Sprintf("without line %d", i+1), join(lines[:i], lines[i+1:]))
		refused(fmt.Sprintf("with line %d twice", i+1), join(lines[:i+1], lines[i:]))
		if i == 0 {
			continue // what it says of itself is not signed; what counts of it is below
		}
		for at := 0; at < len(line); at += 1 + len(line)/60 {
			if line[at] == '\n' {
				continue
			}
			changed := line[:at] + string(line[at]^1) + line[at+1:]
			refused(fmt.Sprintf("line %d, byte %d changed", i+1, at), join(lines[:i], []string{changed}, lines[i+1:]))
		}
	}
	for _, change := range [][2]string{{`"controller":"north-1"`, `"controller":"north-2"`}, {`"size":6`, `"size":5`}, {`"gatehouse_export":1`, `"gatehouse_export":2`}, {`"epoch":"`, `"epoch":"0`}} {
		refused("another "+change[0], strings.Replace(s.export, change[0], change[1], 1))
	}
	refused("nothing", "")
	refused("only spaces", "  ")

	// The log's own word alone is said to be that; a stranger's is no proof.
	other := newSite(t)
	if got, err := other.prove(s.export); err == nil {
		t.Errorf("verified with the keys of another site: %+v", got)
	}
}

func TestWhoCountersignedIsSaid(t *testing.T) {
	s := newSite(t)
	line := s.export[strings.LastIndex(s.export[:len(s.export)-1], "\n")+1:]
	var trailer Trailer
	if err := json.Unmarshal([]byte(line), &trailer); err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitAfter(trailer.Checkpoint, "\n")
	alone, err := json.Marshal(Trailer{strings.Join(parts[:5], "")})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.prove(strings.TrimSuffix(s.export, line) + string(alone) + "\n")
	if err != nil || got[0].Countersigned != nil || got[0].Cosigner != "" {
		t.Fatalf("%+v, %v", got, err)
	}
	var b bytes.Buffer
	if err := got[0].Print(&b, "x"); err != nil || !strings.Contains(b.String(), "NOT countersigned") {
		t.Errorf("%s, %v", b.String(), err)
	}
	if _, err := s.prove(strings.Replace(s.proof, strings.ReplaceAll(parts[5], "\n", `\n`), "", 1)); err == nil || !strings.Contains(err.Error(), "nobody countersigned") {
		t.Errorf("a proof without countersignature: %v", err)
	}
}

// FuzzProveFile holds that whatever is verified was signed: no file but those
// that the log wrote.
func FuzzProveFile(f *testing.F) {
	s := newSite(f)
	f.Add([]byte(s.export))
	f.Add([]byte(s.proof))
	f.Add([]byte(`{"gatehouse_export":1,"controller":"north-1","epoch":"0f0e0d0c0b0a09080706050403020100","size":0}` + "\n" + `{"checkpoint":"x"}`))
	epoch := s.epoch(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		err := ProveFile(bytes.NewReader(text), s.known, func(p Proved) error {
			if p.Controller != "north-1" || p.Epoch != epoch || p.Size != 6 || p.Key != s.door.Verifier.KeyID() {
				t.Errorf("verified %+v, which nobody signed:\n%s", p, text)
			}
			return p.Print(&bytes.Buffer{}, "x")
		})
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

func (s *site) epoch(tb testing.TB) string {
	tb.Helper()
	got, err := s.prove(s.proof)
	if err != nil {
		tb.Fatal(err)
	}
	return got[0].Epoch
}

// FuzzReadExport holds the order of sections, and each leaf to its record.
func FuzzReadExport(f *testing.F) {
	s := newSite(f)
	f.Add([]byte(s.export))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		open, ended := false, false
		for x, err := range ReadExport(bytes.NewReader(text)) {
			if ended {
				t.Fatal("it goes on after its error")
			}
			switch {
			case err != nil:
				ended = true
			case (x.Header != nil) == open:
				t.Fatalf("%+v in the wrong place", x)
			case x.Entry != nil && (x.Entry.JWS == "" || x.Checkpoint != ""):
				t.Fatalf("%+v", x)
			}
			open = x.Checkpoint == ""
		}
	})
}

func TestAComparisonNamesEveryDifference(t *testing.T) {
	h := func(n byte) (out [32]byte) { out[0] = n; return out }
	export := leaves{0: h(1), 1: h(2), 2: h(3), 3: h(4), 6: h(7), 7: h(8), 8: h(10)}
	stored := leaves{0: h(1), 1: h(3), 2: h(2), 3: h(9), 4: h(5), 5: h(6), 6: h(7)}
	// The tree does not hold what was carried.
	carried := []central.Record{{Sequence: 3, Leaf: h(4)}, {Sequence: 7, Leaf: h(8)}}
	e := compareLeaves(export, stored, carried)
	want := EpochCompared{
		Exported: 7, Stored: 8,
		MissingAtController: []Range{{4, 5}},
		MissingAtCRM:        []Range{{8, 8}},
		Other:               []OtherLeaf{{1, h(2), h(3), false}, {2, h(3), h(2), false}, {3, h(4), h(9), true}},
		Moved:               []Moved{{h(2), 1, 2}, {h(3), 2, 1}},
	}
	if got, err := json.Marshal(e); err != nil {
		t.Fatal(err)
	} else if text, err := json.Marshal(want); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%s, want\n%s (%v)", got, text, err)
	}
	if e.differences() != 6 {
		t.Errorf("%d differences", e.differences())
	}
	if same := compareLeaves(export, export, nil); same.differences() != 0 || same.Moved != nil {
		t.Errorf("%+v between a log and itself", same)
	}

	// A long list is cut where people read it, and not for other programs.
	many := leaves{}
	for i := range uint64(30) {
		many[i] = h(byte(100 + i))
	}
	c := compareLeaves(many, leaves{0: h(1), 1: h(2), 2: h(3), 3: h(4), 4: h(5), 5: h(6), 6: h(7), 7: h(8), 8: h(9), 9: h(10), 10: h(11), 11: h(12)}, nil)
	var b strings.Builder
	if err := (Comparison{Epochs: []EpochCompared{c}}).Print(&b); err != nil || !strings.Contains(b.String(), "and 2 more: --json lists them") ||
		!strings.Contains(b.String(), "missing at the CRM: records 12 to 29\n") {
		t.Errorf("%s, %v", b.String(), err)
	}
	failing := errors.New("full")
	if err := (Comparison{Epochs: []EpochCompared{c}}).Print(writerFunc(func([]byte) (int, error) { return 0, failing })); !errors.Is(err, failing) {
		t.Errorf("the printer's error is %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
