package state

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/test/rig"
	_ "github.com/mattn/go-sqlite3"
	"golang.org/x/mod/sumdb/tlog"
)

// behind changes a database behind the back of the program that has it open.
func behind(t testing.TB, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r, err := db.Exec(statement)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%s changed nothing: %v", statement, err)
	}
}

// image copies files of a stopped controller, and gives back a function that
// restores them as somebody with a backup of the card would.
func (c *controller) image(names ...string) (restore func()) {
	c.T.Helper()
	kept := c.T.TempDir()
	for _, name := range names {
		copyFile(c.T, filepath.Join(c.Data, name), filepath.Join(kept, name))
	}
	return func() {
		c.T.Helper()
		for _, name := range names {
			path := filepath.Join(c.Data, name)
			for _, suffix := range []string{"-wal", "-shm"} {
				_ = os.Remove(path + suffix)
			}
			copyFile(c.T, filepath.Join(kept, name), path+".restored")
			if err := os.Rename(path+".restored", path); err != nil {
				c.T.Fatal(err)
			}
		}
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// carries waits for the CRM to have these records of an old epoch, each once,
// in records of a later one.
func (s *site) carries(c *controller, want []rig.Record) {
	s.T.Helper()
	var leaves []string
	for _, r := range want {
		leaves = append(leaves, tlog.RecordHash([]byte(r.JWS)).String())
	}
	var got []string
	rig.Eventually(s.T, fmt.Sprintf("%d records are carried", len(want)), func() bool {
		got, _ = s.Carried(c.Name, want[0].Epoch)
		return len(got) >= len(want)
	})
	if !slices.Equal(got, leaves) {
		s.T.Errorf("carried are %d records, want the %d that the CRM could not be sent: %v, want %v", len(got), len(want), got, leaves)
	}
}

// setAside are the records in the one database that was set aside.
func (c *controller) setAside() []rig.Record {
	c.T.Helper()
	files, err := filepath.Glob(filepath.Join(c.Data, "records-*.db"))
	if err != nil || len(files) != 1 {
		c.T.Fatalf("set aside: %v, %v; want one database", files, err)
	}
	return rig.Export(c.T, "gatehouse", "--data", c.Data, "--database", filepath.Base(files[0]))
}

// TestYesterdaysDatabase puts an older copy in the place of the controller's
// database, in every way in which somebody could.
func TestYesterdaysDatabase(t *testing.T) {
	// yesterday is a site whose controller has sent records since the image
	// was taken, and is stopped.
	yesterday := func(t *testing.T, names ...string) (s *site, c *controller, restore func(), before []rig.Record) {
		t.Helper()
		s, c = newSite(t)
		s.StartCRM()
		c.Start()
		c.enters(staff)
		c.Settled()
		c.stop()
		restore = c.image(names...)
		c.Start()
		c.enters(staff)
		c.enters(staff)
		c.Settled()
		c.stop()
		return s, c, restore, c.Own()
	}

	t.Run("alone, offline: a new epoch at once, and the CRM is told", func(t *testing.T) {
		t.Parallel()
		s, c, restore, before := yesterday(t, "records.db")
		s.stopCRM()
		restore()
		c.Start()
		if e := c.epoch(); e == before[0].Epoch {
			t.Fatal("the older database goes on as if nothing had been")
		}
		c.enters(staff)
		c.denied(revoked, "revoked")
		s.StartCRM()
		c.Settled()
		s.alarmed("new_epoch", before[0].Epoch)
		s.quiet("new_epoch")
		rig.Begins(t, "the old epoch at the CRM", s.stored(c.Name)[before[0].Epoch], before)
		c.verified()
	})

	t.Run("while the daemon runs and the CRM is away: a new epoch at the next record", func(t *testing.T) {
		t.Parallel()
		s, c, restore, before := yesterday(t, "records.db")
		s.stopCRM()
		c.Start()
		c.enters(staff) // after the last receipt: only the process knows of it
		own := len(before)
		c.destroyed++
		restore()
		c.enters(staff)
		if e := c.epoch(); e == before[0].Epoch {
			t.Fatal("the older database goes on as if nothing had been")
		}
		s.StartCRM()
		c.Settled()
		s.alarmed("new_epoch", before[0].Epoch)
		first := c.Own()[0]
		if first.Data.Former == nil || first.Data.Former.Epoch != before[0].Epoch || first.Data.Former.Size <= uint64(own) {
			t.Errorf("the new epoch begins after %+v; want the %d records and more that had been written", first.Data.Former, own)
		}
		// What the older copy took with it is named, and cannot be had.
		s.alarmed("gap", "had not arrived")
		s.quiet("new_epoch", "gap")
		c.verified()
	})

	t.Run("the whole card: found as soon as the CRM is heard", func(t *testing.T) {
		t.Parallel()
		s, c, restore, before := yesterday(t, "records.db", "receipt.jws", "clock.json")
		s.stopCRM()
		restore()
		c.Start()
		if e := c.epoch(); e != before[0].Epoch {
			t.Fatal("offline nothing can tell that the card is of yesterday")
		}
		entered := 0
		// Longer than what the CRM has: only the content tells.
		for size := uint64(0); size <= uint64(len(before)); entered++ {
			c.enters(staff)
			size = c.Now().Records.Size
		}
		s.StartCRM()
		rig.Eventually(t, "there is a new epoch", func() bool { return c.epoch() != before[0].Epoch })
		c.enters(staff)
		c.Settled()
		s.alarmed("new_epoch", before[0].Epoch)
		s.alarmed("fork", "")
		s.quiet("new_epoch", "fork")
		// The CRM keeps what it had; the other log of the epoch stays here, whole.
		stored := s.stored(c.Name)[before[0].Epoch]
		rig.Begins(t, "the old epoch at the CRM", stored, before)
		if len(stored) != len(before) {
			t.Errorf("the CRM has %d records of the old epoch, want the %d that it had", len(stored), len(before))
		}
		aside := c.setAside()
		if len(aside) <= len(before) || granted(aside) != 1+entered {
			t.Errorf("%d records set aside, %d granted; want those of yesterday and of the fork", len(aside), granted(aside))
		}
		rig.Eventually(t, "that it is another log is said", func() bool {
			return strings.Contains(c.Process.Log(), "records that were set aside cannot be sent as their own log")
		})
		// The CRM gets the fork's records all the same: what the two logs do not
		// share, once.
		var fork []rig.Record
		for i, r := range aside {
			if i >= len(before) || r.JWS != before[i].JWS {
				fork = append(fork, r)
			}
		}
		s.carries(c, fork)
		c.Settled()
		c.verified()
		// A comparison says of each that the CRM has both.
		export := filepath.Join(t.TempDir(), "fork.ndjson")
		files, err := filepath.Glob(filepath.Join(c.Data, "records-*.db"))
		if err != nil {
			t.Fatal(err)
		}
		rig.Tool(t, "gatehouse", "log", "export", "--data", c.Data, "--database", filepath.Base(files[0]), "--out", export)
		said, _, err := rig.Run(t, "gatehouse-crm", "compare", export, "--data", s.CRMDir())
		if err == nil || !strings.Contains(said, "carried by a later record") || strings.Contains(said, "missing at the CRM") {
			t.Errorf("compare: %v, %s", err, said)
		}
	})

	t.Run("the whole card, and heard at once: shorter than what was sent", func(t *testing.T) {
		t.Parallel()
		s, c, restore, before := yesterday(t, "records.db", "receipt.jws", "clock.json")
		restore()
		c.Start()
		rig.Eventually(t, "there is a new epoch", func() bool { return c.epoch() != before[0].Epoch })
		c.enters(staff)
		c.Settled()
		s.alarmed("new_epoch", before[0].Epoch)
		// A checkpoint that has shrunk; or another of that size, if something
		// was recorded before the first one was sent.
		if kinds := s.alarms(); kinds["rollback"]+kinds["fork"] == "" {
			t.Errorf("alarms %v: none of a rollback or a fork", kinds)
		}
		s.quiet("rollback", "fork", "new_epoch")
		rig.Begins(t, "the old epoch at the CRM", s.stored(c.Name)[before[0].Epoch], before)
		c.verified()
	})
}

// TestOneImageOnTwoMachines runs a copy of a controller's card beside it: both
// doors work, the CRM takes one of the two logs, and says that there are two.
func TestOneImageOnTwoMachines(t *testing.T) {
	t.Parallel()
	s, one := newSite(t)
	s.StartCRM()
	one.Start()
	one.enters(staff)
	one.Settled()
	one.stop()
	s.stopCRM()
	two := one.clone("copy")
	one.Start()
	two.Start()
	one.enters(staff)
	two.enters(staff)
	two.enters(staff)
	epoch := one.epoch()
	if two.epoch() != epoch {
		t.Fatal("the copy does not begin with the same epoch: nothing is shown")
	}
	s.StartCRM()
	// They have one name and one key, so that each gets the other's answers.
	s.alarmed("fork", "")
	s.alarmed("new_epoch", epoch)
	one.enters(staff)
	two.enters(staff)
	two.stop() // a person heeds the alarm
	one.enters(staff)
	one.Settled()
	one.verified() // each epoch at the CRM is whole, and has each record once
	two.accounted()
	if p := two.Process.Log(); strings.Contains(p, "panic") {
		t.Error(p)
	}
}

// TestOneNameTwoControllers: a name is that of whoever was approved first.
func TestOneNameTwoControllers(t *testing.T) {
	t.Parallel()
	s, first := newSite(t)
	second := s.controller(s.Controller("north-1", filepath.Join(s.Dir, "second"), door))
	request, bundle := second.Init(), second.Data+".bundle"
	if _, stderr, err := rig.Run(t, "gatehouse-crm", "controllers", "approve", request, "--data", s.CRMDir(), "--out", bundle, "--yes"); err == nil || !strings.Contains(stderr, "north-1") {
		t.Fatalf("a second controller of the same name was approved: %v, %s", err, stderr)
	}
	// It takes the first one's certificate, which is no secret, but not its key.
	for _, name := range []string{"tls", "trust.json"} {
		copyTree(t, filepath.Join(first.Data, name), filepath.Join(second.Data, name))
	}
	second.Launch()
	if second.AwaitOrRefuses() {
		t.Error("a controller starts with the certificate of another's key")
	} else if said := second.Process.Log(); !strings.Contains(said, "certificate") && !strings.Contains(said, "key") {
		t.Errorf("it does not say why it refuses: %s", said)
	}
	s.StartCRM()
	first.Start()
	first.enters(staff)
	first.Settled()

	// Replaced on purpose: the first one is cut off, and the second begins.
	rig.Tool(t, "gatehouse-crm", "controllers", "approve", request, "--data", s.CRMDir(), "--out", bundle, "--yes", "--replace")
	for _, name := range []string{"tls", "trust.json"} {
		if err := os.RemoveAll(filepath.Join(second.Data, name)); err != nil {
			t.Fatal(err)
		}
	}
	second.Join(bundle)
	second.Import(policy)
	second.Start()
	second.enters(staff)
	second.Settled()
	first.enters(staff) // its door works on
	before := s.stored("north-1")
	rig.Eventually(t, "the CRM has the second one's log", func() bool { return len(s.stored("north-1")[second.epoch()]) > 0 })
	s.alarmed("new_epoch", "")
	own := first.Own()
	if stored := s.stored("north-1")[own[0].Epoch]; len(stored) != len(before[own[0].Epoch]) || len(stored) == len(own) {
		t.Errorf("the CRM has taken %d of the first one's %d records, of which it had %d when that was replaced", len(stored), len(own), len(before[own[0].Epoch]))
	}
	second.verified()
	first.accounted()
}

// TestWhatWasOwedWhenTheLogBeganAnewStillArrives spoils one record that the CRM
// does not have yet: a new epoch begins, and all before it arrives.
func TestWhatWasOwedWhenTheLogBeganAnewStillArrives(t *testing.T) {
	const spoil = `UPDATE rec SET body = zeroblob(length(body)) WHERE seq = (SELECT max(seq) - 2 FROM rec)`
	// owing is a controller with records that the CRM does not have.
	owing := func(t *testing.T) (*site, *controller) {
		t.Helper()
		s, c := newSite(t)
		s.StartCRM()
		c.Start()
		c.enters(staff)
		c.Settled()
		s.stopCRM()
		for range 3 {
			c.enters(staff)
		}
		return s, c
	}
	arrived := func(t *testing.T, s *site, c *controller, epoch string, whole []rig.Record) {
		t.Helper()
		c.destroyed = granted(whole[len(whole)-3 : len(whole)-2])
		c.enters(staff) // the door works
		c.Settled()
		s.alarmed("new_epoch", epoch)
		s.quiet("new_epoch", "gap")
		readable, behind := whole[:len(whole)-3], whole[len(whole)-2:]
		rig.Eventually(t, "the old epoch arrives as far as it can be read", func() bool {
			return len(s.stored(c.Name)[epoch]) == len(readable)
		})
		rig.Begins(t, "the old epoch at the CRM", s.stored(c.Name)[epoch], readable)
		s.alarmed("gap", "had not arrived")
		s.carries(c, behind)
		s.alarmed("gap", fmt.Sprintf("record %d of epoch %s cannot be carried", len(whole)-3, epoch))
		c.Settled()
		c.verified()
		// And once means once: the next start carries nothing.
		c.stop()
		size := len(c.Own())
		c.Start()
		c.enters(staff)
		c.Settled()
		for _, r := range c.Own()[size:] {
			if r.Type == "gatehouse.log.carried" || r.Type == "gatehouse.log.gap" {
				t.Errorf("after the next start: %s, %s", r.Type, r.Data.Detail)
			}
		}
		s.carries(c, behind)
	}

	t.Run("found at the start", func(t *testing.T) {
		t.Parallel()
		s, c := owing(t)
		c.stop()
		whole := c.Own()
		behind(t, filepath.Join(c.Data, "records.db"), spoil)
		c.Start()
		s.StartCRM()
		arrived(t, s, c, whole[0].Epoch, whole)
	})

	t.Run("found while it is sent, without a restart", func(t *testing.T) {
		t.Parallel()
		s, c := owing(t)
		whole := c.Own()
		behind(t, filepath.Join(c.Data, "records.db"), spoil)
		s.StartCRM()
		rig.Eventually(t, "there is a new epoch", func() bool { return c.epoch() != whole[0].Epoch })
		arrived(t, s, c, whole[0].Epoch, whole)
	})

	t.Run("whole, because another database was put in its place", func(t *testing.T) {
		t.Parallel()
		s, c := owing(t)
		c.stop()
		whole := c.Own()
		// Somebody tidies up: the file goes where such files go.
		if err := os.Rename(filepath.Join(c.Data, "records.db"), filepath.Join(c.Data, "records-old.db")); err != nil {
			t.Fatal(err)
		}
		c.Start()
		s.StartCRM()
		c.Settled()
		rig.Eventually(t, "the whole old epoch arrives", func() bool { return len(s.stored(c.Name)[whole[0].Epoch]) == len(whole) })
		rig.Begins(t, "the old epoch at the CRM", s.stored(c.Name)[whole[0].Epoch], whole)
		s.alarmed("new_epoch", whole[0].Epoch)
		c.verified()
		// And once means once: the next start owes nothing.
		c.stop()
		c.Start()
		c.Settled()
		if strings.Contains(c.Process.Log(), "sending records that were set aside") {
			t.Error("what has arrived is sent again")
		}
	})
}

// TestAFlippedByteInTheOutboxCostsOneRecord flips one bit of one record in the
// middle of what the CRM does not have, and kills the daemon again and again
// while it carries those behind it: all others arrive, each once.
func TestAFlippedByteInTheOutboxCostsOneRecord(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	s.StartCRM()
	c.Start()
	c.enters(staff)
	c.Settled()
	s.stopCRM()
	for range 5 {
		c.enters(staff)
	}
	for card := range uint64(18) { // more would not be recorded one by one
		c.denied(1000+card, "")
	}
	c.stop()
	whole := c.Own()
	epoch, lost := whole[0].Epoch, len(whole)-28
	c.destroyed = granted(whole[lost : lost+1])
	flipBody(t, filepath.Join(c.Data, "records.db"), lost)
	s.StartCRM()
	behind, shown := whole[lost+1:], false
	for range 2 { // while it carries: it does not write all of them at once
		c.Launch()
		rig.Eventually(t, "some are carried", func() bool {
			return strings.Contains(c.Process.Log(), "records that were set aside are carried")
		})
		c.kill()
		got, _ := s.Carried(c.Name, epoch)
		if shown = shown || len(got) < len(behind); len(got) == len(behind) {
			break
		}
	}
	if !shown {
		t.Fatal("all was carried before the daemon was killed: nothing is shown")
	}
	c.Start()
	s.carries(c, behind)
	rig.Begins(t, "the old epoch at the CRM", s.stored(c.Name)[epoch], whole[:lost])
	if n := len(s.stored(c.Name)[epoch]); n != lost {
		t.Errorf("the CRM's tree has %d records of the old epoch, want %d", n, lost)
	}
	c.enters(staff)
	c.Settled()
	s.alarmed("new_epoch", epoch)
	s.alarmed("gap", fmt.Sprintf("record %d of epoch %s cannot be carried", lost, epoch))
	s.quiet("new_epoch", "gap")
	carriers := 0
	for _, r := range c.Own() {
		if r.Type == "gatehouse.log.carried" {
			carriers++
		}
	}
	if carriers != len(behind) {
		t.Errorf("%d records carry %d", carriers, len(behind))
	}
	s.carries(c, behind)
	c.verified()
	text := rig.Tool(t, "gatehouse-crm", "log", "show", c.Name, fmt.Sprint(lost+1), "--epoch", epoch, "--data", s.CRMDir())
	if !strings.Contains(text, "carried by record "+c.epoch()) || strings.Contains(text, "NOT VERIFIED") {
		t.Error(text)
	}
}

// flipBody flips one bit in the middle of a record's body.
func flipBody(t *testing.T, path string, seq int) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var body []byte
	if err := db.QueryRow(`SELECT body FROM rec WHERE seq = ?`, seq).Scan(&body); err != nil {
		t.Fatal(err)
	}
	body[len(body)/2] ^= 1
	if _, err := db.Exec(`UPDATE rec SET body = ? WHERE seq = ?`, body, seq); err != nil {
		t.Fatal(err)
	}
}

// TestThePolicysFloorOutlivesTheEpoch: an allowlist that was replaced does not
// come back with a new database (rule 10).
func TestThePolicysFloorOutlivesTheEpoch(t *testing.T) {
	t.Parallel()
	_, c := newSite(t)
	c.Broker = "" // alone
	c.Start()
	c.stop()
	older := c.image("allowlist.db")
	c.Import(strings.Replace(policy, `number = 1 }`, `number = 1, state = "lost" }`, 1))
	c.Start()
	c.denied(staff, "lost")
	c.stop()
	epoch := c.Own()[0].Epoch
	behind(t, filepath.Join(c.Data, "records.db"), `UPDATE rec SET body = zeroblob(length(body)) WHERE seq = 1`)
	older()
	c.Start()
	if c.epoch() == epoch {
		t.Fatal("there is no new epoch: nothing is shown")
	}
	c.denied(staff, "allowlist_absent")
	if s := c.Now(); s.Allowlist.Fault == "" {
		t.Errorf("the older allowlist is no fault: %+v", s.Allowlist)
	}
	c.accounted()
}
