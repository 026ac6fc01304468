package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"pgregory.net/rapid"
)

func blob(from, to uint64) Blob {
	return Blob{ID: epoch, From: from, To: to, Rows: 3, Bytes: MaxPart + 100, Parts: []Hash{{1}, {2}}}
}

func manifest() *Manifest {
	return &Manifest{V: 1, Controller: "north-1", Version: 9, Created: at, Expires: at.Add(time.Hour), Generation: epoch, Count: 12,
		Snapshot: blob(0, 5), Deltas: []Blob{blob(3, 5), blob(5, 8), blob(8, 9)}, Urgent: true}
}

func fresh() *Fresh {
	return &Fresh{V: 1, Controller: "north-1", Version: 9, Time: at, Until: at.Add(time.Minute)}
}

func fetch() *Fetch {
	return &Fetch{V: 1, Controller: "north-1", Blob: epoch, Parts: []int{0, 3, 17}, Have: 7}
}

func publication() *Publication {
	return &Publication{V: 1, Controller: "north-1", Authority: []string{"a.b.c"}, Manifest: "d.e.f", Fresh: "g.h.i"}
}

func marshalManifest(m *Manifest) ([]byte, error) { return marshal(m, MaxManifest, "manifest") }
func marshalFresh(f *Fresh) ([]byte, error)       { return marshal(f, MaxFresh, "fresh token") }

func TestAManifestOutOfBoundsIsNeitherWrittenNorRead(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"version":            func(m *Manifest) { m.V = 2 },
		"controller":         func(m *Manifest) { m.Controller = "a/b" },
		"no version":         func(m *Manifest) { m.Version = 0 },
		"high version":       func(m *Manifest) { m.Version = MaxSize + 1 },
		"generation":         func(m *Manifest) { m.Generation = "1" },
		"expires before":     func(m *Manifest) { m.Expires = m.Created },
		"no expiry":          func(m *Manifest) { m.Expires = time.Time{} },
		"no list of deltas":  func(m *Manifest) { m.Deltas = nil },
		"snapshot is delta":  func(m *Manifest) { m.Snapshot.From = 1 },
		"delta is snapshot":  func(m *Manifest) { m.Deltas[0].From = 0 },
		"gap":                func(m *Manifest) { m.Deltas[1].From = 6 },
		"gap to snapshot":    func(m *Manifest) { m.Deltas = m.Deltas[2:] },
		"repeated":           func(m *Manifest) { m.Deltas[1].From = 4 },
		"ends too soon":      func(m *Manifest) { m.Deltas = m.Deltas[:2] },
		"ends too late":      func(m *Manifest) { m.Deltas[2].To = 10 },
		"snapshot too late":  func(m *Manifest) { m.Snapshot.To = 10 },
		"backwards":          func(m *Manifest) { m.Deltas[2].To = 8 },
		"no parts":           func(m *Manifest) { m.Snapshot.Parts = []Hash{} },
		"too few bytes":      func(m *Manifest) { m.Snapshot.Bytes = MaxPart },
		"too many bytes":     func(m *Manifest) { m.Snapshot.Bytes = 2*MaxPart + 1 },
		"too many parts":     func(m *Manifest) { m.Snapshot.Parts, m.Snapshot.Bytes = make([]Hash, MaxParts), MaxParts*MaxPart },
		"too many deltas":    func(m *Manifest) { m.Deltas = slices.Repeat(m.Deltas, 30) },
		"too many rows":      func(m *Manifest) { m.Snapshot.Rows = MaxRows + 1 },
		"blob without an id": func(m *Manifest) { m.Deltas[1].ID = "" },
	} {
		m := manifest()
		change(m)
		if _, err := marshalManifest(m); err == nil {
			t.Errorf("%s: written", name)
		}
		raw, err := encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(raw); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func TestTheLargestManifestFitsIntoAPublication(t *testing.T) {
	m := manifest()
	m.Snapshot.Parts, m.Snapshot.Bytes = make([]Hash, MaxParts-MaxDeltas), (MaxParts-MaxDeltas)*MaxPart
	m.Snapshot.To, m.Version, m.Deltas = MaxSize-MaxDeltas, MaxSize, nil
	for v := m.Snapshot.To; v < MaxSize; v++ {
		m.Deltas = append(m.Deltas, Blob{ID: epoch, From: v, To: v + 1, Rows: MaxRows, Bytes: MaxPart, Parts: []Hash{{1}}})
	}
	p := publication()
	p.Authority = slices.Repeat([]string{strings.Repeat("x", maxAuthority)}, MaxAuthority)
	p.Fresh = strings.Repeat("x", MaxFresh)
	jws, err := m.Sign(policyKey(t, keys.TypeManifest))
	if err != nil {
		t.Fatal(err)
	}
	p.Manifest = jws
	if _, err := p.Marshal(); err != nil {
		t.Error(err)
	}
}

func TestFreshnessFetchesAndPublicationsOutOfBoundsAreRefused(t *testing.T) {
	for name, p := range map[string]interface{ check() error }{
		"fresh without version":     &Fresh{V: 1, Controller: "a", Time: at, Until: at.Add(1)},
		"fresh ends before":         &Fresh{V: 1, Controller: "a", Version: 1, Time: at, Until: at},
		"fresh without time":        &Fresh{V: 1, Controller: "a", Version: 1, Until: at},
		"fetch of nothing":          &Fetch{V: 1, Controller: "a", Blob: epoch},
		"fetch of much":             &Fetch{V: 1, Controller: "a", Blob: epoch, Parts: make([]int, MaxFetchParts+1)},
		"fetch twice":               &Fetch{V: 1, Controller: "a", Blob: epoch, Parts: []int{1, 1}},
		"fetch below":               &Fetch{V: 1, Controller: "a", Blob: epoch, Parts: []int{-1}},
		"fetch beyond":              &Fetch{V: 1, Controller: "a", Blob: epoch, Parts: []int{MaxParts}},
		"fetch of no blob":          &Fetch{V: 1, Controller: "a", Blob: "x", Parts: []int{1}},
		"publication, no authority": &Publication{V: 1, Controller: "a", Manifest: "x", Fresh: "x"},
		"publication, no manifest":  &Publication{V: 1, Controller: "a", Authority: []string{"x"}, Fresh: "x"},
		"publication, not a JWS":    &Publication{V: 1, Controller: "a", Authority: []string{"x"}, Manifest: "é", Fresh: "x"},
		"publication, no token":     &Publication{V: 1, Controller: "a", Authority: []string{"x"}, Manifest: "x"},
	} {
		if p.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func policyKey(t testing.TB, typ string) *keys.Signer {
	t.Helper()
	pem, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.ParseSigner(pem, typ)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAManifestIsReadOnlyIfThePolicyKeySignedItAsOne(t *testing.T) {
	key := policyKey(t, keys.TypeManifest)
	tokens, err := key.As(keys.TypeFresh)
	if err != nil {
		t.Fatal(err)
	}
	v, err := key.Verifier(keys.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	freshV, err := key.Verifier(keys.TypeFresh)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := manifest().Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenManifest(jws, v); err != nil || !reflect.DeepEqual(got, manifest()) {
		t.Errorf("a good manifest reads as %+v, %v", got, err)
	}
	token, err := fresh().Sign(tokens)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenFresh(token, freshV); err != nil || !reflect.DeepEqual(got, fresh()) {
		t.Errorf("a good token reads as %+v, %v", got, err)
	}
	foreign, err := manifest().Sign(policyKey(t, keys.TypeManifest))
	if err != nil {
		t.Fatal(err)
	}
	asToken, err := manifest().Sign(tokens)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		jws string
		v   Verifier
	}{
		"another key":          {foreign, v},
		"a token":              {asToken, v},
		"a token, verified so": {asToken, freshV},
		"changed":              {jws[:len(jws)-4] + "AAAA", v},
		"too large":            {jws + strings.Repeat("x", MaxManifest), v},
	} {
		if m, err := OpenManifest(tt.jws, tt.v); err == nil {
			t.Errorf("%s: reads as %+v", name, m)
		}
	}
}

func TestAPathLeadsFromAnyVersionToTheManifests(t *testing.T) {
	m := manifest()
	for have, want := range map[uint64][][2]uint64{
		0:  {{0, 5}, {5, 8}, {8, 9}},
		2:  {{0, 5}, {5, 8}, {8, 9}},
		3:  {{3, 5}, {5, 8}, {8, 9}},
		4:  {{3, 5}, {5, 8}, {8, 9}},
		5:  {{5, 8}, {8, 9}},
		7:  {{5, 8}, {8, 9}},
		8:  {{8, 9}},
		9:  nil,
		10: nil,
	} {
		var got [][2]uint64
		for _, b := range m.Path(have) {
			got = append(got, [2]uint64{b.From, b.To})
		}
		if !slices.Equal(got, want) {
			t.Errorf("from %d: %v, want %v", have, got, want)
		}
	}
}

func blobSealer(t testing.TB) *keys.Sealer {
	t.Helper()
	p, err := keys.NewPepper(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// drawRows are rows as a blob has them: those that are removed first, each sort
// in the order of its keys.
func drawRows(t *rapid.T, from uint64) (rows []Row) {
	gen := rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.Byte(), 16, 16), 0, 40, func(b []byte) string { return string(b) })
	draw := func(label string, entry func() []byte) {
		all := gen.Draw(t, label)
		slices.SortFunc(all, bytes.Compare)
		for _, k := range all {
			rows = append(rows, Row{[16]byte(k), entry()})
		}
	}
	if from > 0 {
		draw("removed", func() []byte { return nil })
	}
	draw("set", func() []byte { return rapid.SliceOfN(rapid.Byte(), 1, 9000/8).Draw(t, "entry") })
	return rows
}

func writeBlob(t testing.TB, s Sealer, from, to uint64, policy []byte, rows []Row) (Blob, []byte) {
	t.Helper()
	var out bytes.Buffer
	w := NewBlobWriter(&out, s, "north-1", from, to)
	if policy != nil {
		if err := w.Policy(policy); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range rows {
		if err := w.Row(r); err != nil {
			t.Fatal(err)
		}
	}
	b, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.check(); err != nil {
		t.Fatalf("%+v: %v", b, err)
	}
	return b, out.Bytes()
}

func partsOf(b Blob, all []byte) func(int) ([]byte, error) {
	return func(n int) ([]byte, error) { return all[n*MaxPart : n*MaxPart+b.PartSize(n)], nil }
}

func readBlob(b Blob, s Sealer, controller string, part func(int) ([]byte, error)) (policy []byte, rows []Row, err error) {
	r, err := OpenBlob(b, s, controller, part)
	if err != nil {
		return nil, nil, err
	}
	for {
		row, err := r.Next()
		if err == io.EOF {
			return r.Policy(), rows, nil
		}
		if err != nil {
			return nil, nil, err
		}
		row.Entry = bytes.Clone(row.Entry)
		rows = append(rows, row)
	}
}

func TestABlobThatIsWrittenIsTheOneThatIsRead(t *testing.T) {
	s := blobSealer(t)
	rapid.Check(t, func(rt *rapid.T) {
		from := rapid.Uint64Range(0, 1).Draw(rt, "from")
		var policy []byte
		if from == 0 || rapid.Bool().Draw(rt, "policy") {
			policy = rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(rt, "document")
		}
		rows := drawRows(rt, from)
		b, all := writeBlob(t, s, from, 2, policy, rows)
		gotPolicy, got, err := readBlob(b, s, "north-1", partsOf(b, all))
		if err != nil || !bytes.Equal(gotPolicy, policy) || !reflect.DeepEqual(got, rows) {
			rt.Fatalf("%v, %q, %v; want %v, %q", got, gotPolicy, err, rows, policy)
		}
	})
}

func TestALargeBlobIsReadPartByPart(t *testing.T) {
	s := blobSealer(t)
	var rows []Row
	noise := newNoise()
	for i := range 40_000 {
		rows = append(rows, Row{[16]byte{byte(i >> 16), byte(i >> 8), byte(i)}, noise(20)})
	}
	b, all := writeBlob(t, s, 0, 1, []byte("{}"), rows)
	if len(b.Parts) < 3 {
		t.Fatalf("%d parts: the test needs several", len(b.Parts))
	}
	next := 0
	_, got, err := readBlob(b, s, "north-1", func(n int) ([]byte, error) {
		if n != next {
			t.Errorf("part %d is read, want %d", n, next)
		}
		next++
		return partsOf(b, all)(n)
	})
	if err != nil || len(got) != len(rows) || !reflect.DeepEqual(got[39_999], rows[39_999]) {
		t.Errorf("%d rows, %v", len(got), err)
	}
	missing := errors.New("the disk is full")
	_, _, err = readBlob(b, s, "north-1", func(n int) ([]byte, error) {
		if n == 1 {
			return nil, missing
		}
		return partsOf(b, all)(n)
	})
	if !errors.Is(err, missing) || errors.Is(err, ErrBlob) {
		t.Errorf("a part that cannot be had: %v, want its error and not ErrBlob", err)
	}
}

// newNoise are bytes that do not compress, the same in each run.
func newNoise() func(n int) []byte {
	x := uint64(1)
	return func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			x = x*6364136223846793005 + 1442695040888963407
			b[i] = byte(x >> 56)
		}
		return b
	}
}

func TestAPartThatDoesNotFitIsRefused(t *testing.T) {
	s := blobSealer(t)
	b, all := writeBlob(t, s, 4, 7, []byte("{}"), []Row{{[16]byte{1}, nil}, {[16]byte{1}, []byte("x")}})
	other, otherAll := writeBlob(t, s, 4, 7, []byte("{}"), []Row{{[16]byte{1}, nil}, {[16]byte{1}, []byte("x")}})
	changed := bytes.Clone(all)
	changed[5] ^= 1
	pepper, err := keys.NewPepper(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pepper.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	moved := b // a signed manifest with the parts of another blob
	moved.Parts, moved.Bytes = other.Parts, other.Bytes
	elsewhere := b
	elsewhere.To = 8
	fewer, more := b, b
	fewer.Rows, more.Rows = 1, 3
	for name, tt := range map[string]struct {
		b          Blob
		s          Sealer
		controller string
		all        []byte
	}{
		"changed":            {b, s, "north-1", changed},
		"cut":                {b, s, "north-1", all[:len(all)-1]},
		"another blob's":     {moved, s, "north-1", otherAll},
		"another version's":  {elsewhere, s, "north-1", all},
		"another pepper":     {b, foreign, "north-1", all},
		"another controller": {b, s, "north-2", all},
		"fewer rows":         {fewer, s, "north-1", all},
		"more rows":          {more, s, "north-1", all},
	} {
		part := func(int) ([]byte, error) { return tt.all, nil }
		if _, rows, err := readBlob(tt.b, tt.s, tt.controller, part); !errors.Is(err, ErrBlob) {
			t.Errorf("%s: %d rows, %v; want ErrBlob", name, len(rows), err)
		}
	}
}

func TestABlobIsWrittenInItsOrderOnly(t *testing.T) {
	removed := Row{[16]byte{5}, nil}
	set := Row{[16]byte{5}, []byte("x")}
	for name, write := range map[string]func(w *BlobWriter){
		"policy twice":      func(w *BlobWriter) { w.Policy([]byte("x")); w.Policy([]byte("x")) },
		"policy after rows": func(w *BlobWriter) { w.Row(set); w.Policy([]byte("x")) },
		"empty policy":      func(w *BlobWriter) { w.Policy(nil) },
		"removed after set": func(w *BlobWriter) { w.Row(set); w.Row(removed) },
		"same key":          func(w *BlobWriter) { w.Row(set); w.Row(set) },
		"lower key":         func(w *BlobWriter) { w.Row(set); w.Row(Row{[16]byte{4}, []byte("x")}) },
		"empty row":         func(w *BlobWriter) { w.Row(Row{[16]byte{5}, []byte{}}) },
		"long row":          func(w *BlobWriter) { w.Row(Row{[16]byte{5}, make([]byte, MaxEntry+1)}) },
	} {
		w := NewBlobWriter(io.Discard, blobSealer(t), "north-1", 1, 2)
		write(w)
		if _, err := w.Close(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	w := NewBlobWriter(io.Discard, blobSealer(t), "north-1", 0, 2)
	if _, err := w.Close(); err == nil {
		t.Error("a snapshot without a policy: written")
	}
	w = NewBlobWriter(io.Discard, blobSealer(t), "north-1", 0, 2)
	w.Policy([]byte("x"))
	w.Row(removed)
	if _, err := w.Close(); err == nil {
		t.Error("a snapshot that removes: written")
	}
}

func FuzzParsePublication(f *testing.F) {
	payload, err := publication().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	fuzz(f, ParsePublication, (*Publication).Marshal)
}

func FuzzParseManifest(f *testing.F) {
	payload, err := marshalManifest(manifest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	fuzz(f, ParseManifest, func(m *Manifest) ([]byte, error) {
		for have := range m.Version + 2 {
			end := have
			for _, b := range m.Path(have) {
				if b.From > end || b.To <= end && b.From > 0 {
					return nil, fmt.Errorf("from %d: the path leaves a gap or goes back at %d to %d", have, b.From, b.To)
				}
				end = b.To
			}
			if end < m.Version {
				return nil, fmt.Errorf("from %d: the path ends at %d, not %d", have, end, m.Version)
			}
			if have > 100 {
				break
			}
		}
		return marshalManifest(m)
	})
}

func FuzzParseFresh(f *testing.F) {
	payload, err := marshalFresh(fresh())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	fuzz(f, ParseFresh, marshalFresh)
}

func FuzzParseFetch(f *testing.F) {
	payload, err := fetch().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	fuzz(f, ParseFetch, (*Fetch).Marshal)
}

func FuzzParsePart(f *testing.F) {
	p := Part{Blob: epoch, Number: 3, Sealed: []byte("x")}
	payload, err := p.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	fuzz(f, ParsePart, func(p Part) ([]byte, error) { return p.Marshal() })
}

// open is a sealer that seals nothing, so that a fuzzer reaches what is inside.
type open struct{}

func (open) Seal(plain, _ []byte) []byte { return append(make([]byte, sealOverhead), plain...) }
func (open) Open(sealed, _ []byte) ([]byte, error) {
	return sealed[min(sealOverhead, len(sealed)):], nil
}

// FuzzBlob reads a stream as it stands in a blob, before it is compressed.
func FuzzBlob(f *testing.F) {
	f.Add(true, []byte("\x01\x02{}\x00\x01................x\x00"))
	f.Add(false, []byte("\x01\x00\x01................\x00\x01................x\x00"))
	f.Fuzz(func(t *testing.T, snapshot bool, stream []byte) {
		b, all, err := wrap(snapshot, stream)
		if err != nil {
			t.Fatal(err)
		}
		for b.Rows = 0; b.Rows < 3; b.Rows++ {
			policy, rows, err := readBlob(b, open{}, "north-1", partsOf(b, all))
			if err != nil {
				if !errors.Is(err, ErrBlob) {
					t.Fatalf("%v: want ErrBlob", err)
				}
				continue
			}
			again, _ := writeBlob(t, open{}, b.From, b.To, policy, rows)
			if again.Rows != b.Rows {
				t.Errorf("%q has %d rows, and is written with %d", stream, b.Rows, again.Rows)
			}
		}
	})
}

// wrap makes a blob of a stream.
func wrap(snapshot bool, stream []byte) (Blob, []byte, error) {
	var out bytes.Buffer
	from := uint64(1)
	if snapshot {
		from = 0
	}
	w := NewBlobWriter(&out, open{}, "north-1", from, 2)
	w.flate.Reset((*partWriter)(w))
	w.plain = w.plain[:0]
	w.write(stream)
	w.state = blobSet
	if w.err != nil {
		return Blob{}, nil, w.err
	}
	if err := w.flate.Close(); err != nil {
		return Blob{}, nil, err
	}
	if err := w.seal(); err != nil {
		return Blob{}, nil, err
	}
	return w.blob, out.Bytes(), nil
}
