package allowlist

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/access"
)

const pepper1 = "0123456789abcdef0123456789abcdef" // a generation

// governed is a controller's folder whose CRM governs who may enter.
func governed(t testing.TB) *site {
	s := newSite(t)
	s.keys.Verifier = nil
	return s
}

// stream gives rows as a blob does, whose entry is good until the next one.
type stream struct {
	policy []byte
	rows   []Row
	entry  []byte
	fail   error // after the last row
}

func (c *stream) open() (Changes, error) {
	again := *c
	return &again, nil
}

func (c *stream) Policy() []byte { return c.policy }

func (c *stream) Next() (Row, error) {
	if len(c.rows) == 0 {
		return Row{}, cmpErr(c.fail, io.EOF)
	}
	r := c.rows[0]
	c.rows = c.rows[1:]
	if r.Entry != nil {
		clear(c.entry)
		c.entry = append(c.entry[:0], r.Entry...)
		r.Entry = c.entry
	}
	return r, nil
}

func cmpErr(err, or error) error {
	if err != nil {
		return err
	}
	return or
}

// crm is what a CRM publishes for one controller.
type crm struct {
	t       testing.TB
	b       *Builder
	words   Rules
	version uint64
	rows    map[[16]byte][]byte
}

func newCRM(t testing.TB, index Indexer) *crm {
	return &crm{t: t, b: NewBuilder(index, nil), rows: make(map[[16]byte][]byte)}
}

// worker is somebody who may enter the lab by one card.
func worker(number uint64, state access.State) *Holder {
	card := h10301(9, number)
	return &Holder{
		Entry: access.Entry{Person: fmt.Sprintf("p-%d", number), Kind: access.Staff}, Name: "Somebody",
		Source: "lab", Rights: []Right{{"lab", access.AlwaysName}}, Credentials: []Held{{Card: &card, State: state}},
	}
}

func removed(number uint64) *Holder {
	h := worker(number, access.Active)
	h.Credentials[0].Removed = true
	return h
}

func (c *crm) policy() []byte {
	c.t.Helper()
	p, err := c.b.Policy(c.words)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// delta changes what there is, and says how.
func (c *crm) delta(holders ...*Holder) Update {
	c.t.Helper()
	var s stream
	for _, h := range holders {
		rows, err := c.b.Rows(h)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, r := range rows {
			if r.Entry == nil {
				delete(c.rows, r.Key)
			} else {
				c.rows[r.Key] = r.Entry
			}
			s.rows = append(s.rows, r)
		}
	}
	s.policy = c.policy()
	u := c.update(s)
	u.From = c.version
	c.version++
	u.Version = c.version
	return u
}

func (c *crm) update(streams ...stream) Update {
	u := Update{Version: c.version, Created: time.Now(), Generation: pepper1, Count: int64(len(c.rows))}
	for i := range streams {
		u.Changes = append(u.Changes, streams[i].open)
	}
	return u
}

// snapshot is all that there is.
func (c *crm) snapshot() Update {
	c.t.Helper()
	s := stream{policy: c.policy()}
	for key, entry := range c.rows {
		s.rows = append(s.rows, Row{key, entry})
	}
	slices.SortFunc(s.rows, func(a, b Row) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return c.update(s)
}

func applied(t testing.TB, src *Source, u Update) {
	t.Helper()
	if err := src.Apply(context.Background(), u); err != nil {
		t.Fatal(err)
	}
}

// plain is what the file says, row by row, and that it is whole.
func (s *site) plain() map[[16]byte][]byte {
	s.t.Helper()
	l := s.open()
	if err := l.checkAll(context.Background(), nil); err != nil {
		s.t.Fatal(err)
	}
	out := make(map[[16]byte][]byte)
	if err := l.rows(context.Background(), func(key, sealed []byte) error {
		plain, err := l.keys.Sealer.Open(sealed, rowAAD(nil, l.snapshot, key))
		out[[16]byte(key)] = plain
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// files are the names of all files of the allowlist.
func (s *site) files() []string {
	s.t.Helper()
	all, err := filepath.Glob(filepath.Join(s.dir, "allowlist*"))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range all {
		all[i] = filepath.Base(all[i])
	}
	return all
}

func TestADeltaIsInForceWhenItIsApplied(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	var recorded []uint64
	src := s.source(0, func(_ context.Context, m Manifest) error {
		recorded = append(recorded, m.Version)
		return nil
	})
	wantReason(t, src, access.ReasonAllowlistAbsent)
	c.delta(worker(1, access.Active), worker(2, access.Active))
	applied(t, src, c.snapshot())
	wantReason(t, src, access.ReasonGranted)
	applied(t, src, c.delta(worker(1, access.Revoked)))
	wantReason(t, src, access.ReasonRevoked)
	applied(t, src, c.delta(removed(1)))
	wantReason(t, src, access.ReasonUnknown)
	applied(t, src, c.delta(worker(1, access.Active)))
	wantReason(t, src, access.ReasonGranted)
	if !slices.Equal(recorded, []uint64{1, 2, 3, 4}) {
		t.Errorf("recorded %v", recorded)
	}
	if got := s.plain(); !maps.EqualFunc(got, c.rows, bytes.Equal) {
		t.Errorf("rows %q, want %q", got, c.rows)
	}
	if st := src.Status(time.Now()); st.Version != 4 || st.Credentials != 2 || !st.Checked || st.Fault != "" {
		t.Errorf("status %+v", st)
	}
}

func TestAGroupsNewRightIsInForceWithoutAnyRow(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	src := s.source(0, nil)
	h := worker(1, access.Active)
	h.Rights = []Right{{"vault", access.AlwaysName}}
	c.delta(h)
	applied(t, src, c.snapshot())
	wantReason(t, src, access.ReasonNoRight)
	c.b = NewBuilder(s.keys.Index, c.b.Profiles())
	if err := c.b.Define("lab", []Right{{"lab", access.AlwaysName}}); err != nil {
		t.Fatal(err)
	}
	applied(t, src, c.delta())
	wantReason(t, src, access.ReasonGranted)
}

func TestAnOpenListStaysAsItIsWhateverIsApplied(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	src := s.source(0, nil)
	c.delta(worker(1, access.Active))
	applied(t, src, c.snapshot())
	l := s.open()
	for range 3 {
		applied(t, src, c.delta(worker(1, access.Revoked), worker(c.version+10, access.Active)))
	}
	applied(t, src, c.snapshot())
	e, err := l.Lookup(h10301(9, 1))
	if err != nil || e == nil || e.State != access.Active || l.Size() != 1 || l.Version() != 1 {
		t.Errorf("%+v, %v, %d rows of version %d", e, err, l.Size(), l.Version())
	}
	if err := l.Check(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// The state is what matters, and not the way there.
func TestDeltasAndSnapshotsGiveWhatOneSnapshotGives(t *testing.T) {
	steps := 3 // each is synced several times
	if long {
		steps = 12
	}
	s := governed(t)
	src := s.source(0, nil)
	version := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		c := newCRM(t, s.keys.Index)
		c.version = version
		defer func() { version = c.version }()
		c.delta()
		applied(t, src, c.snapshot())
		var waiting []Update // deltas that the controller did not hear of yet
		state := rapid.SampledFrom([]access.State{access.Active, access.Lost, access.Revoked})
		for range rapid.IntRange(1, steps).Draw(rt, "steps") {
			var holders []*Holder
			for _, n := range rapid.SliceOfNDistinct(rapid.Uint64Range(1, 12), 0, 6, rapid.ID).Draw(rt, "who") {
				if rapid.Bool().Draw(rt, "goes") {
					holders = append(holders, removed(n))
				} else {
					holders = append(holders, worker(n, state.Draw(rt, "state")))
				}
			}
			waiting = append(waiting, c.delta(holders...))
			switch rapid.IntRange(0, 3).Draw(rt, "way") {
			case 0: // later
				continue
			case 1: // one by one
				for _, u := range waiting {
					applied(t, src, u)
				}
			case 2: // all at once, maybe with one that is there already
				u := waiting[len(waiting)-1]
				u.From, u.Changes = waiting[0].From, nil
				for _, w := range waiting {
					u.Changes = append(u.Changes, w.Changes...)
				}
				applied(t, src, u)
			case 3:
				applied(t, src, c.snapshot())
			}
			waiting = nil
			if got := s.plain(); !maps.EqualFunc(got, c.rows, bytes.Equal) {
				rt.Fatalf("rows %q, want %q", got, c.rows)
			}
		}
		if fault := src.Status(time.Now()).Fault; fault != "" {
			rt.Fatal(fault)
		}
	})
}

// Rule 10: what is refused changes nothing.
func TestAnUpdateThatDoesNotFitChangesNothing(t *testing.T) {
	entry := func(u *Update) *stream { s := newStream(u); return s }
	for name, tt := range map[string]struct {
		delta  bool
		change func(u *Update, s *stream)
		want   string
	}{
		"an older version":             {false, func(u *Update, _ *stream) { u.Version = 1 }, "older than version 2"},
		"a delta of an older version":  {true, func(u *Update, _ *stream) { u.Version = 1 }, "older than version 2"},
		"a version no record can name": {false, func(u *Update, _ *stream) { u.Version = 1 << 60 }, "too high"},
		"a row too few":                {false, func(_ *Update, s *stream) { s.rows = s.rows[1:] }, "the CRM says"},
		"another number of rows":       {true, func(u *Update, _ *stream) { u.Count++ }, "the CRM says"},
		"a delta after a gap":          {true, func(u *Update, _ *stream) { u.From, u.Version = 3, 4 }, "version 2 is there"},
		"a delta with another pepper":  {true, func(u *Update, _ *stream) { u.Generation = strings.Repeat("f", 32) }, "another pepper"},
		"no policy":                    {false, func(_ *Update, s *stream) { s.policy = nil }, "no policy"},
		"a policy that is none":        {true, func(_ *Update, s *stream) { s.policy = []byte("{}x") }, "policy"},
		"fewer profiles":               {true, func(_ *Update, s *stream) { s.policy = []byte(`{"profiles":[]}`) }, "profiles"},
		"a row of no such profile":     {false, func(_ *Update, s *stream) { s.policy = []byte(`{"profiles":[]}`) }, "does not have"},
		"a damaged row":                {true, func(_ *Update, s *stream) { s.rows[0].Entry = []byte{9, 9, 9} }, "version 9"},
		"a whole list that removes":    {false, func(_ *Update, s *stream) { s.rows[0].Entry = nil }, "removes a row"},
		"the same key twice":           {false, func(_ *Update, s *stream) { s.rows = append(s.rows, s.rows[0]) }, "the CRM says"},
		"a stream that is cut":         {true, func(_ *Update, s *stream) { s.fail = io.ErrUnexpectedEOF }, "EOF"},
		"a snapshot that is cut":       {false, func(_ *Update, s *stream) { s.fail = io.ErrUnexpectedEOF }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			s := governed(t)
			c := newCRM(t, s.keys.Index)
			src := s.source(0, nil)
			c.delta(worker(1, access.Active), worker(2, access.Active))
			c.version = 2
			applied(t, src, c.snapshot())
			before, files := s.plain(), s.files()

			var u Update
			if tt.delta {
				u = c.delta(worker(1, access.Revoked), worker(3, access.Active))
			} else {
				c.delta(worker(1, access.Revoked), worker(3, access.Active))
				u = c.snapshot()
			}
			st := entry(&u)
			tt.change(&u, st)
			err := src.Apply(t.Context(), u)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if unfit := errors.Is(err, ErrUnfit); unfit == (st.fail != nil) {
				t.Errorf("%v: is an ErrUnfit: %v", err, unfit)
			}
			wantReason(t, src, access.ReasonGranted)
			if version, _ := src.Newest(); version != 2 {
				t.Errorf("version %d is served", version)
			}
			if got := s.plain(); !maps.EqualFunc(got, before, bytes.Equal) {
				t.Error("the file has changed")
			}
			if got := s.files(); !slices.Equal(got, files) {
				t.Errorf("files %q, want %q", got, files)
			}
		})
	}
}

// newStream makes the one stream of an update changeable.
func newStream(u *Update) *stream {
	c, _ := u.Changes[0]()
	s := c.(*stream)
	s.rows = slices.Clone(s.rows)
	u.Changes[0] = s.open
	return s
}

// edit changes the file behind the daemon's back.
func (s *site) edit(query string, args ...any) {
	s.t.Helper()
	file, _, err := locate(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	db, err := openWriter(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) value(query string, args ...any) (b []byte) {
	s.t.Helper()
	file, _, err := locate(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(query, args...).Scan(&b); err != nil {
		s.t.Fatal(err)
	}
	return b
}

// No signature of the CRM covers rows that were sealed here.
func TestRowsThatWereRemovedExchangedOrPutBackAreFound(t *testing.T) {
	for name, spoil := range map[string]func(s *site, key, old []byte){
		"a row is removed":  func(s *site, key, _ []byte) { s.edit(`DELETE FROM credential WHERE key = ?`, key) },
		"a row is put back": func(s *site, key, old []byte) { s.edit(`UPDATE credential SET entry = ? WHERE key = ?`, old, key) },
		"a removed row comes back": func(s *site, _, _ []byte) {
			s.edit(`INSERT INTO credential SELECT x'00112233445566778899aabbccddeeff', entry FROM credential LIMIT 1`)
		},
		"two rows are exchanged": func(s *site, _, _ []byte) {
			s.edit(`UPDATE credential SET entry = (SELECT entry FROM credential o WHERE o.key != credential.key LIMIT 1)`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := governed(t)
			c := newCRM(t, s.keys.Index)
			src := s.source(0, nil)
			c.delta(worker(1, access.Active), worker(2, access.Active))
			applied(t, src, c.snapshot())
			card := h10301(9, 1)
			key := s.keys.Index.Index(card.Canonical())
			old := s.value(`SELECT entry FROM credential WHERE key = ?`, key[:])
			applied(t, src, c.delta(worker(1, access.Revoked)))
			spoil(s, key[:], old)
			l := s.open()
			if err := l.Check(t.Context(), nil); !errors.Is(err, ErrNotTrusted) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Rule 7, of all files that there are while and after rows are applied.
func TestRowsFromACRMLieNowhereInClear(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	src := s.source(0, nil)
	h := worker(1, access.Active)
	h.Entry.Person, h.Name = "p-zeppelin", "Wilhelmina Quartermain"
	c.delta(h)
	applied(t, src, c.snapshot())
	h.Credentials[0].State = access.Revoked
	applied(t, src, c.delta(h))
	for _, name := range s.files() {
		b, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, trace := range []string{"zeppelin", "Wilhelmina", "Quartermain"} {
			if bytes.Contains(b, []byte(trace)) {
				t.Errorf("%s holds %q", name, trace)
			}
		}
		if info, err := os.Stat(filepath.Join(s.dir, name)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestAListFromACRMIsTrustedOnlyAsItWasSealed(t *testing.T) {
	for name, spoil := range map[string]func(s *site){
		"a changed head": func(s *site) { s.edit(`UPDATE meta SET value = zeroblob(200) WHERE name = 'head'`) },
		"no head":        func(s *site) { s.edit(`DELETE FROM meta WHERE name = 'head'`) },
		"another policy": func(s *site) {
			s.edit(`UPDATE meta SET value = CAST('{"profiles":[[{"door":"*","schedule":"always"}]]}' AS BLOB) WHERE name = 'policy'`)
		},
		"a confirmation of another file": func(s *site) { s.edit(`INSERT INTO meta VALUES ('confirmed', zeroblob(90))`) },
		"another controller's key":       func(s *site) { s.keys.Sealer = newSite(s.t).keys.Sealer },
		"the site's own key governs":     func(s *site) { _, s.keys.Verifier = newPolicyKey(s.t) },
		"a file that others can read": func(s *site) {
			file, _, _ := locate(s.path)
			os.Chmod(file, 0o640)
		},
		"a link out of the folder": func(s *site) {
			file, _, _ := locate(s.path)
			os.Remove(s.path)
			os.Symlink(file, s.path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := governed(t)
			c := newCRM(t, s.keys.Index)
			src := s.source(0, nil)
			c.delta(worker(1, access.Active))
			applied(t, src, c.snapshot())
			if err := src.Close(); err != nil {
				t.Fatal(err)
			}
			spoil(s)
			if _, err := Open(s.path, s.keys); !errors.Is(err, ErrNotTrusted) {
				t.Errorf("error %v", err)
			}
			wantReason(t, s.source(0, nil), access.ReasonAllowlistAbsent)
		})
	}
}

func TestAnImportDoesNotCountWhereTheCRMGoverns(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	s.keys.Verifier = nil
	src := s.source(0, nil)
	wantReason(t, src, access.ReasonAllowlistAbsent)
	if fault := src.Status(time.Now()).Fault; !strings.Contains(fault, "the CRM governs") {
		t.Errorf("fault %q", fault)
	}
	c := newCRM(t, s.keys.Index)
	c.delta(worker(1, access.Active))
	applied(t, src, c.snapshot())
	wantReason(t, src, access.ReasonGranted)
}

func TestWhereTheSiteGovernsNothingOfACRMIsApplied(t *testing.T) {
	s := newSite(t)
	s.apply("x.csv", people(active1))
	src := s.source(0, nil)
	c := newCRM(t, s.keys.Index)
	c.delta(worker(1, access.Revoked))
	c.version = 9
	if err := src.Apply(t.Context(), c.snapshot()); err == nil || errors.Is(err, ErrUnfit) {
		t.Errorf("error %v", err)
	}
	wantReason(t, src, access.ReasonGranted)
}

// What was applied and could not be recorded is served as soon as it can be.
func TestAnUpdateThatCannotBeRecordedIsServedLater(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	var full bool
	src := s.source(0, func(context.Context, Manifest) error {
		if full {
			return errors.New("disk is full")
		}
		return nil
	})
	c.delta(worker(1, access.Active))
	applied(t, src, c.snapshot())
	full = true
	u := c.delta(worker(1, access.Revoked))
	if err := src.Apply(t.Context(), u); err == nil || errors.Is(err, ErrUnfit) {
		t.Fatalf("error %v", err)
	}
	wantReason(t, src, access.ReasonGranted) // with the record of the version that it was decided by
	if err := src.Apply(t.Context(), u); err == nil {
		t.Fatal("the delta was applied once more, and recorded")
	}
	src.Confirm(1, time.Now().Add(time.Hour), time.Time{})
	src.keepConfirmed(0)
	wantReason(t, src, access.ReasonGranted) // its rows are not seen with the policy of the former version
	full = false
	src.look(t.Context(), true)
	wantReason(t, src, access.ReasonRevoked)
}

func TestLookupsGoOnWhileUpdatesAreApplied(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	src := s.source(0, nil)
	c.delta(worker(1, access.Active))
	applied(t, src, c.snapshot())
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Its card and its person's number rise with each version: a mix would
				// show as an unknown card or as one of another state.
				if e, err := src.Lookup(h10301(9, 1)); err != nil || e == nil {
					t.Errorf("%v, %v", e, err)
					return
				}
			}
		})
	}
	for i := range 20 {
		state := access.Active
		if i%2 == 0 {
			state = access.Lost
		}
		applied(t, src, c.delta(worker(1, state), worker(uint64(i+10), access.Active)))
		if i%10 == 9 {
			applied(t, src, c.snapshot())
		}
	}
	close(stop)
	wg.Wait()
}

// A controller makes thousands of small changes, for years.
func TestTheWriteAheadLogDoesNotGrow(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	src := s.source(0, nil)
	c.delta(worker(1, access.Active))
	applied(t, src, c.snapshot())
	for i := range 20 {
		applied(t, src, c.delta(worker(uint64(i+2), access.Active)))
		src.Confirm(c.version, time.Now().Add(time.Duration(i)*time.Minute), time.Time{})
		src.keepConfirmed(0)
	}
	file, _, err := locate(s.path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 64<<10 {
		t.Errorf("the write-ahead log has %d bytes after 20 deltas", info.Size())
	}
	if got := s.files(); len(got) != 5 { // the link, the lock, the file and what SQLite keeps beside it
		t.Errorf("files %q", got)
	}
}

// A power cut in the middle of a snapshot leaves a file of no use.
func TestWhatWasLeftHalfBuiltIsRemoved(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	src := s.source(0, nil)
	c.delta(worker(1, access.Active))
	applied(t, src, c.snapshot())
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	before := s.files()
	half := liveName(strings.Repeat("ab", 16))
	for _, name := range []string{half, half + "-wal", half + "-shm"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := s.source(0, nil)
	wantReason(t, again, access.ReasonGranted)
	if err := os.Symlink(half, s.path+".new"); err != nil { // a step further
		t.Fatal(err)
	}
	applied(t, again, c.snapshot())
	for _, name := range s.files() {
		if strings.HasPrefix(name, half) || strings.HasSuffix(name, ".new") {
			t.Errorf("%s is still there: %q, before %q", name, s.files(), before)
		}
	}
}

func TestWhenAListWasLastCurrentOutlivesARestart(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	clock := &steppedClock{state: access.ClockSynchronised}
	src := s.sourceBy(clock, 0, nil)
	c.delta(worker(1, access.Active))
	u := c.snapshot()
	u.Created = time.Now().Add(-30 * 24 * time.Hour)
	applied(t, src, u)
	src.Confirm(1, time.Now().Add(-time.Hour), time.Time{})
	src.keepConfirmed(keepEvery)
	src.Confirm(1, time.Now(), time.Time{})
	src.keepConfirmed(2 * time.Hour) // too soon again
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	again := s.sourceBy(clock, 0, nil)
	if age := again.Policy(time.Now()).Age.Round(time.Minute); age != time.Hour {
		t.Errorf("after the restart the list is %v old", age)
	}
	if age := time.Since(s.open().Current()).Round(time.Minute); age != time.Hour {
		t.Errorf("by the file the list is %v old", age)
	}
	// A new version is as old as it says, whatever was confirmed of the former one.
	d := c.delta(worker(2, access.Active))
	d.Created = time.Now().Add(-3 * time.Hour)
	applied(t, again, d)
	if age := again.Policy(time.Now()).Age.Round(time.Minute); age != 3*time.Hour {
		t.Errorf("the new version is %v old", age)
	}
}

func TestTheCRMsWordTellsTheAgeToAClockThatWasNeverSet(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	clock := &steppedClock{state: access.ClockUnset, set: -400 * 24 * time.Hour}
	src := s.sourceBy(clock, 0, nil)
	src.o.Ladder = Ladder{StaleAfter: time.Hour, ExpiredAfter: 24 * time.Hour}
	c.delta(worker(1, access.Active))
	applied(t, src, c.snapshot())
	at := func() access.Policy { now, _ := clock.Now(); return src.Policy(now) }
	if p := at(); p.Freshness != access.Expired {
		t.Errorf("without a word of the CRM: %+v", p)
	}
	now := time.Now()
	src.Confirm(1, now, now.Add(-time.Hour)) // a floor of long before
	if p := at(); p.Freshness != access.Expired {
		t.Errorf("by an old floor: %+v", p)
	}
	src.Confirm(1, now.Add(time.Second), now.Add(2*time.Second))
	if p := at(); p.Freshness != access.Fresh {
		t.Errorf("by the floor of now: %+v", p)
	}
	clock.turn(25*time.Hour, 0, access.ClockUnset)
	if p := at(); p.Freshness != access.Expired {
		t.Errorf("a day later: %+v", p)
	}
}

// A restored card brings back the file and the log that knew better. Only the CRM
// remembers.
func TestAListBelowTheVersionThatTheCRMRemembersIsServedNoMore(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	src := s.source(0, nil)
	c.delta(worker(1, access.Active))
	applied(t, src, c.snapshot())
	src.Raise(1)
	wantReason(t, src, access.ReasonGranted)
	src.Raise(3)
	wantReason(t, src, access.ReasonAllowlistAbsent)
	src.look(t.Context(), true)
	src.Raise(2)
	wantReason(t, src, access.ReasonAllowlistAbsent)
	if fault := src.Status(time.Now()).Fault; !strings.Contains(fault, "older than version 3") {
		t.Errorf("fault %q", fault)
	}
	c.version = 2
	if err := src.Apply(t.Context(), c.snapshot()); !errors.Is(err, ErrUnfit) {
		t.Errorf("error %v", err)
	}
	c.version = 3
	applied(t, src, c.snapshot())
	wantReason(t, src, access.ReasonGranted)
}

func TestADoorsOwnLadderHoldsThere(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	c.words.Sites = map[string]Site{"vault": {ExpiredAfter: "2h"}}
	clock := &steppedClock{state: access.ClockSynchronised}
	src := s.sourceBy(clock, 0, nil)
	src.o.Ladder = Ladder{StaleAfter: 24 * time.Hour}
	c.delta(worker(1, access.Active))
	applied(t, src, c.snapshot())
	clock.turn(3*time.Hour, 0, access.ClockSynchronised)
	now, _ := clock.Now()
	if p := src.PolicyAt("lab", now); p.Freshness != access.Fresh {
		t.Errorf("lab: %+v", p)
	}
	if p := src.PolicyAt("vault", now); p.Freshness != access.Expired || p.Version != 1 {
		t.Errorf("vault: %+v", p)
	}
}

// rowsOf makes many rows, in the order of their keys.
func rowsOf(b *Builder, n int) (rows []Row, err error) {
	rows = make([]Row, 0, n)
	for i := range n {
		card := benchCard(uint64(i))
		more, err := b.Rows(&Holder{
			Entry: access.Entry{Person: fmt.Sprintf("p-%d", i), Kind: access.Staff}, Name: fmt.Sprintf("Person Number %d", i),
			Source: "all", Rights: []Right{{"lab", access.AlwaysName}}, Credentials: []Held{{Card: &card, State: access.Active}},
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	slices.SortFunc(rows, func(a, b Row) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return rows, nil
}

func TestTheSumOfRowsForgetsWhatItWasTold(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "key")
		a, b := newRowSum(key), newRowSum(key)
		row := func(n uint64) ([]byte, []byte) {
			return binary.BigEndian.AppendUint64(make([]byte, 8), n), fmt.Appendf(nil, "row %d", n)
		}
		all := rapid.SliceOfDistinct(rapid.Uint64(), rapid.ID).Draw(rt, "rows")
		gone := rapid.IntRange(0, len(all)).Draw(rt, "gone")
		for _, n := range all {
			a.row(row(n))
		}
		for _, n := range all[:gone] {
			a.forget(row(n))
		}
		for _, n := range rapid.Permutation(all[gone:]).Draw(rt, "order") {
			b.row(row(n))
		}
		if a.sum() != b.sum() {
			rt.Fatalf("%s, want %s", a.sum(), b.sum())
		}
		c := newRowSum(key)
		if err := c.resume(a.sum()); err != nil || c.total != a.total {
			rt.Fatal("a sum is not read back", err)
		}
	})
}

// FuzzHead opens a sealed head with whatever is in it.
func FuzzHead(f *testing.F) {
	s := newSite(f)
	good := sealedHead{Manifest: Manifest{V: 1, Type: headType, Version: 7, Created: time.Unix(1e9, 0).UTC(), Snapshot: pepper1}, SumKey: make([]byte, 32)}
	sealed, err := good.seal(s.keys.Sealer)
	if err != nil {
		f.Fatal(err)
	}
	plain, err := s.keys.Sealer.Open(sealed, []byte(headAAD))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		h, err := openHead(s.keys.Sealer, s.keys.Sealer.Seal(plain, []byte(headAAD)))
		if err != nil {
			return
		}
		if h.Version == 0 || h.Type != headType || len(h.SumKey) != 32 {
			t.Fatalf("%+v", h)
		}
		again, err := h.seal(s.keys.Sealer)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := openHead(s.keys.Sealer, again); err != nil || back.Manifest != h.Manifest || back.Generation != h.Generation {
			t.Fatalf("%+v, %+v, %v", h, back, err)
		}
	})
}
