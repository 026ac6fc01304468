package central

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/tlog"
)

func (c *crm) verify() (Verified, error) {
	return c.Verify(c.t.Context(), "", VerifyOptions{Cosigner: c.cosigner.Public().Note()})
}

func TestVerifyNamesTheRecordWhicheverByteWasChanged(t *testing.T) {
	const size = 13
	c, f := newCRM(t), newForger(t, "north-1").add(size)
	c.approve(f)
	c.ingest(f.batch(0, size), size, Applied)
	c.check()
	if v, err := c.verify(); err != nil || v.Records != size || v.Controllers != 1 || len(v.Uncosigned) != 0 {
		t.Fatalf("verified %+v, %v", v, err)
	}
	flip := func(b []byte) []byte {
		b = slices.Clone(b)
		b[rand.IntN(len(b))] ^= 1 << rand.IntN(7)
		return b
	}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := c.w.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	wantFault := func(what string, seq int64) {
		t.Helper()
		_, err := c.verify()
		var fault *Fault
		if !errors.As(err, &fault) || fault.First > seq || fault.Last < seq || fault.Epoch != f.epoch {
			t.Errorf("%s changed: %v, want record %d named", what, err, seq)
		}
	}
	for seq := range int64(size) {
		exec(`UPDATE records SET jws = $1 WHERE seq = $2`, string(flip([]byte(f.jws[seq]))), seq)
		wantFault("record", seq)
		exec(`UPDATE records SET jws = $1 WHERE seq = $2`, f.jws[seq], seq)
		exec(`UPDATE records SET leaf = $1 WHERE seq = $2`, flip(f.leaves[seq][:]), seq)
		wantFault("leaf", seq)
		exec(`UPDATE records SET leaf = $1 WHERE seq = $2`, f.leaves[seq][:], seq)
		// both, so that they agree
		other := f.sign(visitorlog.Record{})
		leaf := tlog.RecordHash([]byte(other))
		exec(`UPDATE records SET jws = $1, leaf = $2 WHERE seq = $3`, other, leaf[:], seq)
		wantFault("record and leaf", seq)
		exec(`UPDATE records SET jws = $1, leaf = $2 WHERE seq = $3`, f.jws[seq], f.leaves[seq][:], seq)
	}
	for ix, h := range f.hashes {
		level, n := tlog.SplitStoredHashIndex(int64(ix))
		if level == 0 {
			continue
		}
		exec(`UPDATE nodes SET hash = $1 WHERE ix = $2`, flip(h[:]), ix)
		wantFault("node", (n+1)<<level-1)
		exec(`UPDATE nodes SET hash = $1 WHERE ix = $2`, h[:], ix)
	}
	if _, err := c.verify(); err != nil {
		t.Errorf("all put back: %v", err)
	}
}

// Whoever deletes the whole of an epoch leaves nothing that does not verify.
// That it was there is seen from what was not deleted with it.
func TestVerifyNoticesADeletedEpoch(t *testing.T) {
	for name, deleted := range map[string]int{"the first": 0, "one between": 1, "the last": 2} {
		t.Run(name, func(t *testing.T) {
			c := newCRM(t)
			logs := []*forger{newForger(t, "north-1").add(4)}
			c.approve(logs[0])
			for range 2 {
				logs = append(logs, logs[0].afresh().add(4))
			}
			for _, f := range logs {
				c.ingest(f.batch(0, 4), 4, Applied)
			}
			c.check()
			o := VerifyOptions{Cosigner: c.cosigner.Public().Note()}
			if _, err := c.Verify(t.Context(), "", o); err != nil {
				t.Fatal(err)
			}
			for _, statement := range []string{
				`DELETE FROM records WHERE log = $1`, `DELETE FROM nodes WHERE log = $1`, `DELETE FROM epochs WHERE id = $1`,
			} {
				if _, err := c.w.Exec(statement, deleted+1); err != nil {
					t.Fatal(err)
				}
			}
			for _, controller := range []string{"", "north-1"} {
				_, err := c.Verify(t.Context(), controller, o)
				var fault *Fault
				if !errors.As(err, &fault) || !strings.Contains(fault.What, "deleted") {
					t.Errorf("verify says %v, want the deleted epoch", err)
				}
				if deleted == 2 && (fault == nil || fault.Epoch != logs[2].epoch || fault.Controller != "north-1") {
					t.Errorf("verify says %v, want its name", err)
				}
			}
		})
	}
}

func TestVerifyAgreesWithACRMThatIsWriting(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(900)
	c.approve(f)
	c.ingest(f.batch(0, 3), 3, Applied)
	r, err := OpenReader(t.Context(), c.path, Options{ParseKey: parseKey})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var done atomic.Bool
	go func() {
		defer done.Store(true)
		for i := 3; i < 900; i += 3 {
			if _, _, err := c.Ingest(t.Context(), f.batch(i, i+3)); err != nil {
				t.Error(err)
			}
			if i%30 == 0 {
				if _, err := c.Check(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for again := true; again; {
		again = !done.Load()
		v, err := r.Verify(t.Context(), "", VerifyOptions{Cosigner: c.cosigner.Public().Note()})
		if err != nil || v.Records == 0 || len(v.Uncosigned) != 0 {
			t.Errorf("verified %+v, %v", v, err)
		}
	}
}

func TestARecordStandsByItsProof(t *testing.T) {
	c, f := newCRM(t), newForger(t, "north-1").add(11)
	c.approve(f)
	c.ingest(f.batch(0, 11), 11, Applied)
	list, err := c.Epochs(t.Context(), "north-1")
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(11) {
		st, err := c.Standing(t.Context(), list[0], seq, c.cosigner.Public().Note())
		if err := errors.Join(err, st.Signature, st.Link, st.Inclusion, st.Cosigned); err != nil || st.Parsed.Data.Sequence != seq || st.Size != 11 {
			t.Errorf("record %d: %+v, %v", seq, st, err)
		}
	}
	if _, err := c.w.Exec(`UPDATE records SET jws = $1 WHERE seq = 4`, f.jws[5]); err != nil {
		t.Fatal(err)
	}
	st, err := c.Standing(t.Context(), list[0], 4, c.cosigner.Public().Note())
	if err != nil || st.Signature == nil || st.Inclusion == nil || st.Cosigned != nil {
		t.Errorf("a changed record: %+v, %v", st, err)
	}
	if st, err = c.Standing(t.Context(), list[0], 5, c.cosigner.Public().Note()); err != nil || st.Signature != nil || st.Link == nil || st.Inclusion != nil {
		t.Errorf("the record after it: %+v, %v", st, err)
	}
	if _, err := c.Standing(t.Context(), list[0], 11, c.cosigner.Public().Note()); !errors.Is(err, ErrNoRecord) {
		t.Errorf("a record that is not there: %v", err)
	}
}

func TestAStoreThatOthersCanReadIsRefused(t *testing.T) {
	c := newCRM(t)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(c.path + suffix); err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s was made with mode %v", suffix, info.Mode())
		}
	}
	if err := os.Chmod(c.path, 0o640); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() (*Store, error){
		"store":  func() (*Store, error) { return Open(t.Context(), c.path, c.o) },
		"reader": func() (*Store, error) { return OpenReader(t.Context(), c.path, c.o) },
	} {
		if s, err := open(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%s: %v, %v; want what to do", name, s, err)
		}
	}
	if err := os.Chmod(c.path, 0o600); err != nil {
		t.Fatal(err)
	}
	c.open()
}

func TestAReaderOpensNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x?%y.db")
	if _, err := OpenReader(t.Context(), path, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReader(t.Context(), path, Options{}); err == nil {
		t.Error("an empty file was opened as a store")
	}
	// The name of a file may hold anything.
	s, err := Open(t.Context(), path, Options{ParseKey: parseKey})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := OpenReader(t.Context(), path, Options{ParseKey: parseKey})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Approve(t.Context(), newForger(t, "a").controller()); err == nil {
		t.Error("a reader has written")
	}
	if files, err := filepath.Glob(filepath.Dir(path) + "/*"); err != nil || !slices.Contains(files, path) {
		t.Errorf("files %v, %v", files, err)
	}
}

func TestRecordsAreFilteredAndPaged(t *testing.T) {
	c := newCRM(t)
	f, g := newForger(t, "north-1"), newForger(t, "south-1")
	f.add(1).add(1, func(r *visitorlog.Record) { r.Subject, r.Data.Door = "p-1", "lab" }).add(4)
	g.add(3, func(r *visitorlog.Record) { r.Subject = "p-1" })
	c.approve(f)
	c.approve(g)
	c.ingest(f.batch(0, 4), 4, Applied)
	c.ingest(g.batch(0, 3), 3, Applied)
	c.ingest(f.batch(4, 6), 6, Applied)
	c.check()
	for _, tt := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "n0 n1 n2 n3 s0 s1 s2 n4 n5"}, // as they arrived
		{Filter{Newest: true, Limit: 3}, "n5 n4 s2"},
		{Filter{Controller: "south-1"}, "s0 s1 s2"},
		{Filter{Epoch: f.epoch, Limit: 2}, "n0 n1"},
		{Filter{Door: "lab"}, "n1"},
		{Filter{Person: "p-1"}, "n1 s2"},
		{Filter{Types: []visitorlog.Type{visitorlog.EpochStarted, visitorlog.LogPruned}}, "n0 s0"},
		{Filter{Decision: "denied"}, ""},
		{Filter{From: f.record().Time}, ""},
		{Filter{Until: f.record().Time, Controller: "south-1"}, "s0 s1 s2"},
		{Filter{Checked: []Checked{Bad}}, ""},
	} {
		list, err := c.Records(t.Context(), tt.f)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(list); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.f, got, tt.want)
		}
	}
	var all []Record
	for after := (Position{}); ; {
		page, err := c.Records(t.Context(), Filter{After: after, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		all, after = append(all, page...), page[len(page)-1].Position()
	}
	if got := names(all); got != "n0 n1 n2 n3 s0 s1 s2 n4 n5" {
		t.Errorf("page by page: %q", got)
	}
}

func names(list []Record) string {
	out := make([]string, len(list))
	for i, r := range list {
		out[i] = fmt.Sprintf("%c%d", r.Controller[0], r.Sequence)
	}
	return strings.Join(out, " ")
}
