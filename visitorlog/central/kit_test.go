package central

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// forger is a controller whose log can be made to say anything: what it signs
// is up to the test.
type forger struct {
	t      testing.TB
	name   string
	epoch  string
	signer *keys.Signer
	jws    []string
	leaves []tlog.Hash
	hashes []tlog.Hash // stored hash order
}

func newForger(t testing.TB, name string) *forger {
	t.Helper()
	pem, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.ParseSigner(pem, keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	f := &forger{t: t, name: name, epoch: newEpoch(), signer: signer}
	return f
}

func newEpoch() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// clone is the same log on another card: what it goes on to write is its own.
func (f *forger) clone(size int) *forger {
	g := *f
	g.jws = append([]string(nil), f.jws[:size]...)
	g.leaves = append([]tlog.Hash(nil), f.leaves[:size]...)
	g.hashes = append([]tlog.Hash(nil), f.hashes[:tlog.StoredHashCount(int64(size))]...)
	return &g
}

// afresh is the same controller with a new epoch.
func (f *forger) afresh() *forger {
	return &forger{t: f.t, name: f.name, epoch: newEpoch(), signer: f.signer}
}

func (f *forger) ReadHashes(ix []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(ix))
	for i, x := range ix {
		out[i] = f.hashes[x]
	}
	return out, nil
}

// addJWS appends any bytes as a record.
func (f *forger) addJWS(jws string) {
	hashes, err := tlog.StoredHashes(int64(len(f.jws)), []byte(jws), f)
	if err != nil {
		f.t.Fatal(err)
	}
	f.jws = append(f.jws, jws)
	f.leaves = append(f.leaves, hashes[0])
	f.hashes = append(f.hashes, hashes...)
}

// record is a valid next record.
func (f *forger) record() visitorlog.Record {
	seq := uint64(len(f.jws))
	var salt [16]byte
	rand.Read(salt[:])
	r := visitorlog.Record{
		SpecVersion: "1.0", ID: f.epoch + "-" + itoa(seq), Source: "/controllers/" + f.name,
		Type: visitorlog.DoorClosed, Time: time.Now().UTC().Truncate(time.Microsecond), DataContentType: "application/json",
		Data: visitorlog.Data{
			Controller: f.name, Epoch: f.epoch, Sequence: seq, Door: "a",
			Clock: visitorlog.Clock{State: access.ClockSynchronised, Boot: "boot"},
			Salt:  base64.StdEncoding.EncodeToString(salt[:]),
		},
	}
	if seq == 0 {
		r.Type, r.Data.Door = visitorlog.EpochStarted, ""
	} else {
		r.Data.Previous = f.leaves[seq-1].String()
	}
	return r
}

func itoa(n uint64) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func (f *forger) sign(r visitorlog.Record) string {
	b, err := json.Marshal(r)
	if err != nil {
		f.t.Fatal(err)
	}
	jws, err := f.signer.Sign(b)
	if err != nil {
		f.t.Fatal(err)
	}
	return jws
}

// add appends n valid records, the last changed by change if it is given.
func (f *forger) add(n int, change ...func(*visitorlog.Record)) *forger {
	for i := range n {
		r := f.record()
		if i == n-1 {
			for _, c := range change {
				c(&r)
			}
		}
		f.addJWS(f.sign(r))
	}
	return f
}

func (f *forger) checkpoint(size int) string {
	root, err := tlog.TreeHash(int64(size), f)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.checkpointOf(size, root)
}

func (f *forger) checkpointOf(size int, root tlog.Hash) string {
	origin := visitorlog.Origin(f.name, f.epoch)
	s, err := f.signer.NoteSigner(origin)
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := note.Sign(&note.Note{Text: visitorlog.Checkpoint{Origin: origin, Size: uint64(size), Root: root}.Text()}, s)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func (f *forger) root(size int) tlog.Hash {
	h, err := tlog.TreeHash(int64(size), f)
	if err != nil {
		f.t.Fatal(err)
	}
	return h
}

// batch is the records from first up to end, with the checkpoint at end.
func (f *forger) batch(first, end int) Batch {
	return Batch{Controller: f.name, Epoch: f.epoch, First: uint64(first), Records: f.jws[first:end], Checkpoint: f.checkpoint(end)}
}

func (f *forger) controller() Controller {
	jwk := f.signer.JWK()
	b, err := json.Marshal(jwk)
	if err != nil {
		f.t.Fatal(err)
	}
	return Controller{Name: f.name, JWK: b, VKey: "vkey", Fingerprint: "fp"}
}

func parseKey(jwk []byte) (Key, error) {
	k, err := keys.ParseJWK(jwk)
	if err != nil {
		return nil, err
	}
	return keys.NewVerifier(k, keys.TypeRecord)
}

// crm is a store that can be closed and opened again.
type crm struct {
	*Store
	t        testing.TB
	path     string
	cosigner *keys.Cosigner
	o        Options
}

func newCRM(t testing.TB) *crm {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := keys.NewCosigner(key, "crm.example")
	if err != nil {
		t.Fatal(err)
	}
	c := &crm{t: t, path: filepath.Join(t.TempDir(), "central.db"), cosigner: cosigner,
		o: Options{Cosigner: cosigner.Note(), ParseKey: parseKey}}
	c.open()
	t.Cleanup(func() { c.Store.Close() })
	return c
}

func (c *crm) open() {
	c.t.Helper()
	s, err := Open(c.t.Context(), c.path, c.o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.Store = s
}

func (c *crm) reopen() {
	c.t.Helper()
	if err := c.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.open()
}

func (c *crm) approve(f *forger) {
	c.t.Helper()
	if err := c.Approve(c.t.Context(), f.controller()); err != nil {
		c.t.Fatal(err)
	}
}

// ingest hands in a batch and holds the answer to what is wanted: the size,
// and the refusal. The answer's checkpoint must bear both signatures over the
// forger's root, unless something else was stored first.
func (c *crm) ingest(b Batch, size uint64, want Refusal) Head {
	c.t.Helper()
	return c.ingestRun([]Batch{b}, size, want)
}

// ingestRun is ingest for batches that come together.
func (c *crm) ingestRun(run []Batch, size uint64, want ...Refusal) Head {
	c.t.Helper()
	h, refusals, err := c.Ingest(c.t.Context(), run...)
	if err != nil {
		c.t.Fatalf("ingest: %v", err)
	}
	if h.Size != size || !slices.Equal(refusals, want) {
		c.t.Fatalf("ingest: size %d, refusals %q; want %d, %q", h.Size, refusals, size, want)
	}
	return h
}

// holds checks that a head is the forger's tree of its size, with both
// signatures.
func (c *crm) holds(h Head, f *forger) {
	c.t.Helper()
	v, err := f.signer.NoteVerifier(visitorlog.Origin(f.name, f.epoch))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, k := range []note.Verifier{v, c.cosigner.Public().Note()} {
		p, err := visitorlog.OpenCheckpoint(h.Checkpoint, k)
		if err != nil {
			c.t.Fatalf("checkpoint without the signature of %q: %v", k.Name(), err)
		}
		if want := f.root(int(h.Size)); p.Size != h.Size || p.Root != want || h.Root != want {
			c.t.Fatalf("checkpoint of size %d root %s; want %d, %s", p.Size, p.Root, h.Size, want)
		}
	}
}

var everything = Filter{Checked: []Checked{Good, Bad, Unchecked}}

func (c *crm) check() {
	c.t.Helper()
	for {
		n, err := c.Check(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

// alarms are the kinds and epochs of the open alarms.
func (c *crm) alarms() map[AlarmKind]Alarm {
	c.t.Helper()
	list, err := c.Alarms(c.t.Context(), false)
	if err != nil {
		c.t.Fatal(err)
	}
	m := map[AlarmKind]Alarm{}
	for _, a := range list {
		if _, twice := m[a.Kind]; twice {
			c.t.Fatalf("two open alarms of kind %q", a.Kind)
		}
		m[a.Kind] = a
	}
	return m
}

// wantAlarms holds the open alarms to these kinds, one of each.
func (c *crm) wantAlarms(kinds ...AlarmKind) map[AlarmKind]Alarm {
	c.t.Helper()
	got := c.alarms()
	if len(got) != len(kinds) {
		c.t.Fatalf("alarms %v, want %v", got, kinds)
	}
	for _, k := range kinds {
		if _, ok := got[k]; !ok {
			c.t.Fatalf("alarms %v, want %v", got, kinds)
		}
	}
	return got
}
