package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// outcome is what may become of a controller one of whose files was spoiled.
type outcome struct {
	refuses  string   // it does not start, and says this
	grants   bool     // it starts, and whoever may enter does
	denies   string   // it starts, and denies everybody for this reason
	newEpoch bool     // it begins one
	any      bool     // whichever byte it is decides: any of the above that is safe
	key      bool     // another key may come of it: nobody is let in wrongly is all
	alarms   []string // that the CRM may have
}

// TestASpoiledFile flips a byte in, or removes, each file of a controller, one
// after the other. Whatever comes of it, the daemon does not panic, lets nobody
// in who may not enter, and either works, says what is wrong when it refuses,
// or begins a new epoch that the CRM has an alarm for.
func TestASpoiledFile(t *testing.T) {
	for _, how := range []string{"flipped", "missing"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			spoilEach(t, how)
		})
	}
}

func spoilEach(t *testing.T, how string) {
	s, c := newSite(t)
	s.StartCRM()
	c.Start()
	c.enters(staff)
	c.Settled()
	c.kill() // so that records.db-wal is there
	s.stopCRM()
	whole := c.Data + ".whole"
	copyTree(t, c.Data, whole)
	crm := s.CRMDir() + ".whole"
	copyTree(t, s.CRMDir(), crm)

	again := func(t *testing.T) {
		for from, to := range map[string]string{whole: c.Data, crm: s.CRMDir()} {
			if err := os.RemoveAll(to); err != nil {
				t.Fatal(err)
			}
			copyTree(t, from, to)
		}
	}
	// try starts what is left, and looks.
	try := func(t *testing.T, want outcome) {
		s.T = t
		c.before = c.unlocked()
		before := s.stored(c.Name)
		c.Launch()
		ready := c.AwaitOrRefuses()
		defer func() {
			c.Process.End()
			if strings.Contains(c.Process.Log(), "panic:") || strings.Contains(c.Process.Log(), "goroutine ") {
				t.Errorf("it panics: %s", c.Process.Log())
			}
		}()
		if !ready {
			if !want.any && !want.key && want.refuses == "" {
				t.Fatalf("it does not start: %s", c.Process.Tail())
			}
			if !strings.Contains(c.Process.Log(), want.refuses) {
				t.Errorf("it does not say %q: %s", want.refuses, c.Process.Tail())
			}
			return
		}
		if want.refuses != "" && !want.any {
			t.Fatalf("it starts, and should refuse: %q", want.refuses)
		}
		c.denied(revoked, "")
		c.denied(99, "")
		switch {
		case want.key:
			return
		case want.grants:
			c.enters(staff)
		case want.denies != "":
			c.denied(staff, want.denies)
		}
		s.StartCRM()
		defer s.CRM.End()
		rig.Eventually(t, "all records are countersigned", func() bool {
			s := c.Status()
			return s != nil && s.Countersigned()
		})
		epoch := c.epoch()
		if begun := len(before[epoch]) == 0; begun != want.newEpoch && !want.any {
			t.Errorf("a new epoch: %t, want %t", begun, want.newEpoch)
		} else if begun {
			s.alarmed("new_epoch", "")
		}
		s.quiet(append(want.alarms, "new_epoch")...)
		after := s.stored(c.Name)
		for e, records := range before {
			rig.Begins(t, "epoch "+e, after[e], records)
		}
		c.stop()
		c.verified()
	}

	files := map[string]struct{ flipped, missing outcome }{
		"records.db":        {outcome{any: true, alarms: []string{"gap"}}, outcome{grants: true, newEpoch: true, alarms: []string{"gap"}}},
		"records.db-wal":    {outcome{any: true, alarms: []string{"gap"}}, outcome{grants: true, any: true, alarms: []string{"gap"}}},
		"records.db-shm":    {outcome{grants: true}, outcome{grants: true}},
		"receipt.jws":       {outcome{grants: true}, outcome{grants: true}},
		"clock.json":        {outcome{grants: true}, outcome{grants: true}},
		"reserve":           {outcome{grants: true}, outcome{grants: true}},
		"allowlist.db":      {outcome{any: true}, outcome{denies: "allowlist_absent"}},
		"trust.json":        {outcome{refuses: "trust.json"}, outcome{refuses: "join"}},
		"tls/client.crt":    {outcome{refuses: "client.crt"}, outcome{refuses: "client.crt"}},
		"tls/ca.crt":        {outcome{refuses: "ca.crt"}, outcome{refuses: "ca.crt"}},
		"keys/log.key":      {outcome{key: true}, outcome{refuses: "log.key"}},
		"keys/seal.key":     {outcome{key: true}, outcome{refuses: "seal.key"}},
		"keys/pepper.key":   {outcome{key: true}, outcome{refuses: "pepper.key"}},
		"keys/policy.key":   {outcome{key: true}, outcome{refuses: "policy.key"}},
		"keys/tls.key":      {outcome{key: true}, outcome{refuses: "tls.key"}},
		"keys/identity.key": {outcome{key: true}, outcome{grants: true}},
		"request.json":      {outcome{grants: true}, outcome{grants: true}},
	}
	left, err := filepath.Glob(filepath.Join(whole, "*"))
	if err != nil || len(left) == 0 {
		t.Fatal(left, err)
	}
	for _, sub := range []string{"keys", "tls"} {
		more, _ := filepath.Glob(filepath.Join(whole, sub, "*"))
		left = append(left, more...)
	}
	for _, path := range left {
		name, err := filepath.Rel(whole, path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || strings.HasSuffix(name, ".lock") {
			continue
		}
		want, ok := files[name]
		if !ok {
			t.Errorf("there is a file %s: what may become of it?", name)
		}
		t.Run(name, func(t *testing.T) {
			again(t)
			if how == "flipped" {
				flip(t, filepath.Join(c.Data, name))
				try(t, want.flipped)
				return
			}
			if err := os.Remove(filepath.Join(c.Data, name)); err != nil {
				t.Fatal(err)
			}
			try(t, want.missing)
		})
		delete(files, name)
	}
	for name := range files {
		t.Errorf("there is no file %s", name)
	}
	s.T = t
}

// flip changes one byte in the middle of a file; of a key, in its secret part.
func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	at := len(b) / 2
	if strings.HasSuffix(path, ".key") {
		at = len(b) * 2 / 5
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestATornDatabase cuts and blanks the ends of the controller's database and
// of its journal, as a power cut in the middle of a write does.
func TestATornDatabase(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	c.Start()
	c.enters(staff)
	c.kill()
	before := c.Own()
	c.destroyed = 2 // one with each cut
	for _, name := range []string{"records.db-wal", "records.db"} {
		path := filepath.Join(c.Data, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(make([]byte, 2048), info.Size()-2048)
		if cerr := f.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
		c.Start()
		c.enters(staff)
		c.denied(revoked, "revoked")
		c.kill()
		if name == "records.db-wal" { // what a cut may take is the last commit
			rig.Begins(t, "the log after the cut", c.Own(), before[:len(before)-2])
		}
	}
	c.Start()
	s.StartCRM()
	c.enters(staff)
	c.Settled()
	s.quiet("new_epoch", "gap")
	c.verified()
	// Of the torn epoch the CRM has what could be read, and nothing else.
	stored := s.stored(c.Name)[before[0].Epoch]
	common := min(len(stored), len(before)-2)
	rig.Begins(t, "the torn epoch at the CRM", stored, before[:common])
}

// TestASpoiledCRM flips bytes in the CRM's database: the daemon refuses or
// stays silent, but never countersigns what it does not have.
func TestASpoiledCRM(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	s.StartCRM()
	c.Start()
	c.enters(staff)
	c.Settled()
	epoch := c.epoch()
	s.stopCRM()
	path := filepath.Join(s.CRMDir(), "central.db")
	whole := path + ".whole"
	copyFile(t, path, whole)
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}()
	for at := int64(20); at < size; at += size/6 + 13 {
		b, err := os.ReadFile(whole)
		if err != nil {
			t.Fatal(err)
		}
		b[at] ^= 0x10
		rig.Write(t, path, string(b))
		s.LaunchCRM()
		if _, ready := s.CRM.ReadyOrRefuses(t); !ready && !strings.Contains(s.CRM.Log(), "central.db") && !strings.Contains(s.CRM.Log(), "database") {
			t.Errorf("byte %d: it does not say what is wrong: %s", at, s.CRM.Tail())
		}
		c.enters(staff)
		s.CRM.End()
		if strings.Contains(s.CRM.Log(), "panic:") {
			t.Errorf("byte %d: %s", at, s.CRM.Tail())
		}
	}
	// The backup comes back, and with it everything that was written since.
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Remove(path + suffix)
	}
	copyFile(t, whole, path)
	s.StartCRM()
	c.enters(staff)
	c.Settled()
	if e := c.epoch(); e != epoch {
		t.Errorf("epoch %s, before %s: a CRM whose database rots must not cost a controller its log", e, epoch)
	}
	s.quiet("restored")
	c.verified()

	s.stopCRM()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.LaunchCRM()
	s.CRM.ReadyOrRefuses(t)
	c.enters(staff)
	if strings.Contains(s.CRM.Log(), "panic:") {
		t.Error(s.CRM.Tail())
	}
}
