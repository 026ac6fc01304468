package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestLogScripts runs the log commands on the log of a working day. Beside the
// program, its scripts have
//
//	day DIR           what happened at the doors of the controller in DIR
//	more DIR N        N more requests to exit
//	harm DIR SQL      what somebody with access to the card does
func TestLogScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   filepath.Join("testdata", "log"),
		Setup: raceOptions,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"day": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(writeDay(ts.MkAbs(args[0]))) },
			"more": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(writeMore(ts.MkAbs(args[0]), args[1]))
			},
			"harm": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(harm(ts.MkAbs(args[0]), args[1])) },
		},
	})
}

// openLog opens the log of a controller that `gatehouse init` has set up, at a
// clock that the caller moves.
func openLog(dir string, now *time.Time, state *access.ClockState) (*visitorlog.Log, error) {
	k, err := keys.LoadController(keys.File(filepath.Join(dir, "keys")))
	if err != nil {
		return nil, err
	}
	v, err := k.Log.Verifier(keys.TypeRecord)
	if err != nil {
		return nil, err
	}
	return visitorlog.Open(dir, visitorlog.Options{
		Controller: "north-1", Signer: k.Log, Verifier: v, Note: k.Log.NoteSigner, NoteVerifier: v.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			return *now, visitorlog.Clock{State: *state, Boot: "boot-1", UptimeMS: 60_000}
		},
	})
}

func writeDay(dir string) error {
	now := time.Date(2026, 3, 2, 6, 59, 0, 0, time.UTC)
	state := access.ClockUnset
	l, err := openLog(dir, &now, &state)
	if err != nil {
		return err
	}
	defer l.Close()
	state = access.ClockSynchronised
	policy := &visitorlog.Policy{Version: 7, AgeSeconds: 60, Freshness: access.Fresh}
	began, cause := true, uint64(1)
	visit := &access.Visit{Host: "s-1042", Organisation: "Acme Cooling", Purpose: "chiller", Escort: "s-1042", Authoriser: "s-1", IDForm: "passport"}
	for _, d := range []visitorlog.Draft{
		{Type: visitorlog.DecisionGranted, Subject: "s-1042", Data: visitorlog.Data{Door: "server-room-a", Reader: "a-in", Direction: access.In,
			Decision: "granted", Reason: access.ReasonGranted, Factors: []string{"badge"}, Kind: access.Staff, Policy: policy}},
		{Type: visitorlog.PassageEntered, Subject: "s-1042", Data: visitorlog.Data{Door: "server-room-a", Reader: "a-in", Direction: access.In, Kind: access.Staff, Cause: &cause}},
		{Type: visitorlog.DecisionGranted, Subject: "v-7", Data: visitorlog.Data{Door: "server-room-a", Reader: "a-in", Direction: access.In,
			Decision: "granted", Reason: access.ReasonGranted, Factors: []string{"badge"}, Kind: access.Visitor, Visit: visit, Policy: policy}},
		{Type: visitorlog.DecisionDenied, Data: visitorlog.Data{Door: "server-room-b", Reader: "b-in", Direction: access.In,
			Decision: "denied", Reason: access.ReasonUnknown, Factors: []string{"badge"}, Policy: policy}},
		{Type: visitorlog.DoorForced, Data: visitorlog.Data{Door: "server-room-b", Active: &began, Detail: "opened\x1b[2Jby force"}},
	} {
		now = now.Add(10 * time.Minute)
		if _, err := l.Append(context.Background(), func(*visitorlog.Tx) (visitorlog.Draft, error) { return d, nil }); err != nil {
			return err
		}
	}
	return nil
}

func writeMore(dir, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	now, state := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC), access.ClockSynchronised
	l, err := openLog(dir, &now, &state)
	if err != nil {
		return err
	}
	defer l.Close()
	for range n {
		if _, err := l.Append(context.Background(), func(*visitorlog.Tx) (visitorlog.Draft, error) {
			return visitorlog.Draft{Type: visitorlog.RequestToExit, Data: visitorlog.Data{Door: "server-room-a"}}, nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func harm(dir, query string) error {
	path := filepath.Join(dir, "records.db")
	if _, err := os.Stat(path); err != nil {
		return err
	}
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := db.Exec(query)
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("%s changed %d rows, %w", query, n, err)
	}
	return nil
}

// syncBuffer is what a command that goes on running has printed so far.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *syncBuffer) waitFor(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text := s.String()
		if strings.Contains(text, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q did not come; there is\n%s", want, text)
		}
	}
}

// TestFollowShowsRecordsAsTheyComeAndGoesOnInANewEpoch runs beside a daemon
// that appends, and that has to begin a new epoch.
func TestFollowShowsRecordsAsTheyComeAndGoesOnInANewEpoch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "door")
	var out syncBuffer
	if status := cli.Run(t.Context(), newRoot(), []string{"init", "--data", dir, "--controller", "north-1"}, &out, &out); status != 0 {
		t.Fatal(out.b.String())
	}
	now, state := time.Now(), access.ClockSynchronised
	l, err := openLog(dir, &now, &state)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := func(door string) {
		t.Helper()
		if _, err := l.Append(t.Context(), func(*visitorlog.Tx) (visitorlog.Draft, error) {
			return visitorlog.Draft{Type: visitorlog.RequestToExit, Data: visitorlog.Data{Door: door}}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	at("door-1")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan int)
	go func() {
		ended <- cli.Run(ctx, newRoot(), []string{"log", "list", "--data", dir, "--follow"}, &out, &out)
	}()
	out.waitFor(t, "door-1")
	at("door-2")
	out.waitFor(t, "door-2")

	root, err := l.Root(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := l.Reconcile(t.Context(), visitorlog.Receipt{Epoch: l.Epoch(), Size: 100, Root: root, Time: now, JWS: "eyJh.eyJi.c2ln"})
	if err != nil || !begun {
		t.Fatal(begun, err)
	}
	at("door-3")
	out.waitFor(t, "log begun")
	out.waitFor(t, "door-3")
	stop()
	if status := <-ended; status != 0 {
		t.Errorf("ended with %d\n%s", status, out.b.String())
	}
}

// TestARecordOfAFormerEpochIsProved has a countersigned epoch whose database
// was set aside, and a new one that nobody countersigned.
func TestARecordOfAFormerEpochIsProved(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "door")
	gatehouse := func(args ...string) (status int, said string) {
		var out syncBuffer
		status = cli.Run(ctx, newRoot(), append(args, "--data", dir), &out, &out)
		return status, out.b.String()
	}
	if status, said := gatehouse("init", "--controller", "north-1"); status != 0 {
		t.Fatal(said)
	}
	if err := writeDay(dir); err != nil {
		t.Fatal(err)
	}
	now, state := time.Now(), access.ClockSynchronised
	l, err := openLog(dir, &now, &state)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	former := l.Epoch()
	r := visitorlog.Receipt{Epoch: former, Size: 5, Time: now, JWS: "eyJh.eyJi.c2ln"}
	if r.Root, err = l.Root(ctx, 5); err != nil {
		t.Fatal(err)
	}
	if r.Checkpoint, err = l.Checkpoint(ctx, 5); err != nil {
		t.Fatal(err)
	}
	if err := l.Acknowledge(ctx, r); err != nil {
		t.Fatal(err)
	}
	prove := func(args ...string) (int, string) { return gatehouse(append([]string{"log", "proof"}, args...)...) }
	status, present := prove("3")
	if p, err := visitorlog.ParseProof([]byte(present)); status != 0 || err != nil || p.Index != 3 || p.Size != 5 || p.Epoch != former {
		t.Fatalf("%d, %v\n%s", status, err, present)
	}
	if status, said := prove("5"); status != 1 || !strings.Contains(said, "not countersigned by the CRM yet: it has the 5 records before") {
		t.Errorf("a record after the receipt: %d, %s", status, said)
	}

	r.Size = 100
	if begun, err := l.Reconcile(ctx, r); err != nil || !begun {
		t.Fatal(begun, err)
	}
	if status, said := prove("0"); status != 1 || !strings.Contains(said, "not countersigned") {
		t.Errorf("a record of the new epoch: %d, %s", status, said)
	}
	if status, said := prove("3", "--epoch", former); status != 0 || said != present {
		t.Errorf("a record of the former epoch: %d, %s; want\n%s", status, said, present)
	}
}
