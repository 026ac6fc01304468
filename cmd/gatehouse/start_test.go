package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/sync/errgroup"
)

// longLog is many more records than a start verifies before it opens a door.
const longLog = 20_000

const oneDoor = `controller = "north-1"
data = "door"
timezone = "Europe/Amsterdam"
[http]
listen = "127.0.0.1:0"
[drivers.sim]
socket = "site.sock"
[[door]]
name = "a"
strike = { driver = "sim", line = "a.strike" }
[[door.reader]]
name = "a-in"
direction = "in"
formats = ["H10301"]
device = { driver = "sim", line = "a-in" }
`

// TestALongLogKeepsNobodyWaitingAtTheDoor starts the daemon with a log of
// which it verifies only the tail at first: its doors are ready while the
// whole is still being verified, and everywhere it says how far that is.
func TestALongLogKeepsNobodyWaitingAtTheDoor(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "long") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	door, file := filepath.Join(dir, "door"), filepath.Join(dir, "gatehouse.toml")
	if err := os.WriteFile(file, []byte(oneDoor), 0o600); err != nil {
		t.Fatal(err)
	}
	var said syncBuffer
	if status := cli.Run(t.Context(), newRoot(), []string{"init", "--data", door, "--controller", "north-1"}, &said, &said); status != 0 {
		t.Fatal(said.b.String())
	}
	writeMany(t, door, longLog)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	lines, log := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Run(ctx, newRoot(), []string{"run", "--demo", "--config", file, "--log-format", "json"}, io.Discard, log)
		log.Close()
	}()
	var ready struct{ Msg, HTTP string }
	in := bufio.NewScanner(lines)
	for in.Scan() && ready.Msg != "ready" {
		if err := json.Unmarshal(in.Bytes(), &ready); err != nil {
			t.Fatalf("%s: %v", in.Text(), err)
		}
		said.Write(append(in.Bytes(), '\n'))
	}
	if ready.Msg != "ready" {
		t.Fatalf("the daemon did not get ready:\n%s", said.b.String())
	}
	go io.Copy(io.Discard, lines)

	page := func(path string) string {
		t.Helper()
		r, err := http.Get("http://" + ready.HTTP + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	progress := func() (s status) {
		t.Helper()
		if err := json.Unmarshal([]byte(page("/status")), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := progress()
	if v := first.Records.Verification; !v.Ended.IsZero() || v.Total > 0 && v.Done == v.Total {
		t.Errorf("ready only when %d of %d records were verified: %+v", v.Done, v.Total, v)
	}
	for deadline := time.Now().Add(mostWait); ; time.Sleep(10 * time.Millisecond) {
		s := progress()
		if v := s.Records.Verification; v.Done > 0 && v.Done < v.Total && v.Total >= longLog {
			var text strings.Builder
			if err := s.print(&text); err != nil || !strings.Contains(text.String(), "verified so far (") {
				t.Errorf("%s, %v; want the progress of the verification", text.String(), err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the verification does not come on: %+v", s.Records)
		}
	}
	for _, want := range []string{"\ngatehouse_records_verified ", "\ngatehouse_records_to_verify 200", "\ngatehouse_records_damaged 0\n"} {
		if metrics := page("/metrics"); !strings.Contains(metrics, want) {
			t.Errorf("no %q in\n%s", want, metrics)
		}
	}
	stop()
	if status := <-ended; status != 0 {
		t.Errorf("ended with status %d", status)
	}
}

// writeMany appends records as fast as the log takes them.
func writeMany(t *testing.T, dir string, n int) {
	t.Helper()
	now, state := time.Now(), access.ClockSynchronised
	l, err := openLog(dir, &now, &state)
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	const writers = 250
	for range writers {
		g.Go(func() error {
			for range n / writers {
				if _, err := l.Append(t.Context(), func(*visitorlog.Tx) (visitorlog.Draft, error) {
					return visitorlog.Draft{Type: visitorlog.RequestToExit, Data: visitorlog.Data{Door: "a"}}, nil
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
