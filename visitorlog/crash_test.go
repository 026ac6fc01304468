package visitorlog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

const crashEnv = "GATEHOUSE_TEST_CRASH"

// TestWhatWasPromisedSurvivesAKill kills a process that appends, again and
// again, and holds the log to what the process had said.
func TestWhatWasPromisedSurvivesAKill(t *testing.T) {
	if dir := os.Getenv(crashEnv); dir != "" {
		appendForever(t, dir)
		return
	}
	dir := t.TempDir()
	log, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"log.key": log, "seal.key": keys.GenerateSeal()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := crashKeys(t, dir)
	promised := map[string]string{}
	rounds := 6
	if long {
		rounds = 200
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWhatWasPromisedSurvivesAKill$")
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Kill it in the middle of one of its commits.
		b := new(bytes.Buffer)
		buf := make([]byte, 512)
		for b.Len() < 2000+round*977 {
			n, err := out.Read(buf)
			if err != nil {
				t.Fatalf("the child ended by itself: %v", err)
			}
			b.Write(buf[:n])
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ReadFrom(out); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		for line := range strings.Lines(b.String()) {
			if id, leaf, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && strings.HasSuffix(line, "=\n") {
				promised[id] = leaf
			}
		}
	}
	ctx := context.Background()
	path := filepath.Join(dir, databaseFile)
	if _, err := k.verify(t, path); err != nil {
		t.Error(err)
	}
	r, err := OpenReader(ctx, path, k.sealer)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	size, err := r.Size(ctx)
	if err != nil {
		t.Fatal(err)
	}
	records, err := r.Read(ctx, 0, int(size))
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		if rec.Fault != nil {
			t.Fatal(rec.Fault)
		}
		if leaf, ok := promised[rec.Record.ID]; ok && leaf != rec.Leaf.String() {
			t.Errorf("record %d is not the one that was promised", rec.Seq)
		}
		delete(promised, rec.Record.ID)
	}
	if len(promised) > 0 {
		t.Errorf("%d records were promised and are lost", len(promised))
	}
	if aside, err := filepath.Glob(filepath.Join(dir, "records-*")); err != nil || len(aside) > 0 {
		t.Errorf("set aside: %v, %v", aside, err)
	}
	t.Logf("%d records over %d kills", size, rounds)
}

func crashKeys(t *testing.T, dir string) testKeys {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(dir, "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	seal, err := os.ReadFile(filepath.Join(dir, "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := makeKeys(log, seal)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// appendForever appends from several goroutines and says of each record, once
// Append has returned, what was promised.
func appendForever(t *testing.T, dir string) {
	l, err := Open(dir, crashKeys(t, dir).options())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				e, err := l.Append(context.Background(), func(tx *Tx) (Draft, error) { return granted(i), tx.Set("last", []byte{byte(i)}) })
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Printf("%s %s\n", e.Record.ID, e.Leaf) // one write: lines do not mix
				if i%20 == 10 {
					if err := l.Acknowledge(context.Background(), receiptFor(t, l, e.Seq)); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
