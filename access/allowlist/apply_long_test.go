//go:build long

package allowlist

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
)

const memoryEnv = "GATEHOUSE_TEST_MEMORY"

// counted gives rows without keeping any.
type counted struct {
	policy []byte
	at, n  uint64
	entry  []byte
}

func (c *counted) Policy() []byte { return c.policy }

func (c *counted) Next() (r Row, err error) {
	if c.at == c.n {
		return r, io.EOF
	}
	binary.BigEndian.PutUint64(r.Key[:], c.at<<40)
	person := fmt.Sprintf("p-%d", c.at)
	c.entry = appendEntry(c.entry[:0], &stored{name: "Person Number " + person, format: "H10302",
		entry: access.Entry{Person: person, Kind: access.Staff, State: access.Active}})
	r.Entry = c.entry
	c.at++
	return r, nil
}

// TestAMillionRowsAreAppliedInLittleMemory: by a process of its own, whose lookups
// go on meanwhile.
func TestAMillionRowsAreAppliedInLittleMemory(t *testing.T) {
	const size = 1_000_000
	if os.Getenv(memoryEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAMillionRowsAreAppliedInLittleMemory$", "-test.v")
		cmd.Env = append(os.Environ(), memoryEnv+"=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	s := governed(t)
	src := s.source(0, nil)
	policy, err := policy{Profiles: [][]right{{{"lab", access.AlwaysName}}}}.marshal()
	if err != nil {
		t.Fatal(err)
	}
	update := func(version, from, n uint64) Update {
		return Update{Version: version, From: from, Created: time.Now(), Generation: pepper1, Count: -1,
			Changes: []func() (Changes, error){func() (Changes, error) { return &counted{policy: policy, n: n}, nil }}}
	}
	applied(t, src, update(1, 0, 1000))
	stop, slowest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for {
			select {
			case <-stop:
				slowest <- most
				return
			case <-time.After(time.Millisecond):
			}
			began := time.Now()
			if _, err := src.Lookup(benchCard(1)); err != nil {
				t.Error(err)
			}
			most = max(most, time.Since(began))
		}
	}()
	for _, u := range []Update{update(2, 0, size), update(3, 0, size), update(4, 3, size/10)} {
		began := time.Now()
		if err := src.Apply(context.Background(), u); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		t.Logf("version %d in %v", u.Version, took.Round(time.Millisecond))
	}
	close(stop)
	t.Logf("slowest lookup meanwhile %v", <-slowest)
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kB int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kB); err == nil {
			t.Logf("at most %d MB in memory", kB/1000)
			if kB > 64_000 {
				t.Errorf("more than 64 MB")
			}
		}
	}
}
