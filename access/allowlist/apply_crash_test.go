package allowlist

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

const crashEnv = "GATEHOUSE_TEST_CRASH"

// The controller of a crash test, whose keys outlive it.
func crashSite(t testing.TB, dir string) *site {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sealer, err := keys.ParseSeal(read("seal.key"), "allowlist")
	if err != nil {
		t.Fatal(err)
	}
	pepper, err := keys.ParsePepper(read("pepper.key"))
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, dir: dir, path: filepath.Join(dir, FileName), keys: Keys{Index: pepper, Sealer: sealer}}
}

// crashVersion makes what the CRM has at a version: the same whoever asks.
func crashVersion(t testing.TB, index Indexer, version uint64) (c *crm, last Update) {
	c = newCRM(t, index)
	for v := range version {
		var who []*Holder
		r := rand.New(rand.NewPCG(v, 1))
		for range 30 {
			n := r.Uint64N(200)
			if r.IntN(3) == 0 {
				who = append(who, removed(n))
			} else {
				who = append(who, worker(n, states[r.IntN(len(states))]))
			}
		}
		last = c.delta(who...)
	}
	return c, last
}

// applyForever goes on from what is there, by deltas and every fifth time by a
// snapshot, and says what it begins and what is done.
func applyForever(t *testing.T, dir string) {
	s := crashSite(t, dir)
	src := s.source(0, nil)
	version, _ := src.Newest()
	c, _ := crashVersion(t, s.keys.Index, version)
	for {
		fmt.Printf("begin %d\n", c.version+1)
		more, u := crashVersion(t, s.keys.Index, c.version+1)
		if c = more; version == 0 || c.version%5 == 0 {
			u = c.snapshot()
		}
		applied(t, src, u)
		version = c.version
		fmt.Printf("done %d\n", version)
	}
}

// TestAKillLeavesTheOldVersionOrTheNewOne kills a process that applies updates,
// again and again, and holds the file to what the process had said: all of one
// version or all of the next.
func TestAKillLeavesTheOldVersionOrTheNewOne(t *testing.T) {
	if dir := os.Getenv(crashEnv); dir != "" {
		applyForever(t, dir)
		return
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"seal.key": keys.GenerateSeal(), "pepper.key": keys.GeneratePepper()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 8
	if long {
		rounds = 300
	}
	var done uint64
	for round := range rounds {
		begun := crash(t, dir, round, &done)
		s := crashSite(t, dir)
		src := s.source(done, nil)
		version, _ := src.Newest()
		if version < done || version > max(begun, done) || version == 0 && done > 0 {
			t.Fatalf("round %d: version %d is there; %d was done, and %d begun: %s", round, version, done, begun, src.Status(time.Now()).Fault)
		}
		if version == 0 {
			continue
		}
		c, _ := crashVersion(t, s.keys.Index, version)
		if got := s.plain(); !maps.EqualFunc(got, c.rows, bytes.Equal) {
			t.Fatalf("round %d: version %d is not whole", round, version)
		}
		if err := src.Close(); err != nil {
			t.Fatal(err)
		}
		done = version
	}
	if done == 0 {
		t.Fatal("nothing was ever applied")
	}
	t.Logf("version %d over %d kills", done, rounds)
}

// crash has a process apply updates and kills it in the middle of one. It returns
// which it had begun last; done is the last one that it said was done.
func crash(t *testing.T, dir string, round int, done *uint64) (begun uint64) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^TestAKillLeavesTheOldVersionOrTheNewOne$")
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	read := 0
	for lines.Scan() {
		what, n, ok := strings.Cut(lines.Text(), " ")
		version, err := strconv.ParseUint(n, 10, 64)
		if !ok || err != nil {
			t.Errorf("the child said %q", lines.Text())
			continue
		}
		switch what {
		case "begin":
			begun = version
		case "done":
			*done = version
		}
		if read++; read == 3+2*(round%4) { // it has begun one: somewhere in that
			time.Sleep(rand.N(12 * time.Millisecond))
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || read < 3 {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return begun
}
