package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestLogScripts runs the scripts that need records, which these commands
// bring about in the CRM in the folder crm:
//
//	door NAME            a controller of that name is approved
//	door NAME N          its log gets N more visits, of three records each, and is sent
//	door NAME N keep     and is only written
//	door NAME early      its newest record is sent early
//	door NAME report     it says how long its log is
//	door NAME copy       its log is copied
//	door NAME restore    and the copy put back
//	door NAME lose       its log is lost
//	check                the CRM checks what it received
//	follow               log list --follow begins
//	followed PATTERN     and has printed that soon
//	sql STATEMENT        somebody changes the CRM's database
//
// The log is real, and so is what the CRM does with it; only the network
// between them is left out.
func TestLogScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/log",
		Setup: func(e *testscript.Env) error {
			e.Values["following"] = new(following)
			return raceOptions(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"door": func(ts *testscript.TestScript, _ bool, args []string) { playLog(ts, args) },
			"check": func(ts *testscript.TestScript, _ bool, _ []string) {
				withCentral(ts, func(s *central.Store, _ *keys.CRMKeys) {
					for n := 1; n > 0; {
						var err error
						n, err = s.Check(context.Background())
						ts.Check(err)
					}
				})
			},
			"follow":   func(ts *testscript.TestScript, _ bool, _ []string) { startFollowing(ts) },
			"followed": func(ts *testscript.TestScript, _ bool, args []string) { stopFollowing(ts, args[0]) },
			"sql": func(ts *testscript.TestScript, _ bool, args []string) {
				db, err := sql.Open("sqlite3", "file:"+ts.MkAbs("crm/central.db"))
				ts.Check(err)
				defer db.Close()
				res, err := db.Exec(args[0])
				ts.Check(err)
				if n, err := res.RowsAffected(); err != nil || n == 0 {
					ts.Fatalf("%s: changed nothing (%v)", args[0], err)
				}
			},
		},
	})
}

// following is a "log list --follow" that runs in the test's own process, so
// that what it prints can be watched.
type following struct {
	mu     sync.Mutex
	out    bytes.Buffer
	cancel func()
	status chan int
}

func (f *following) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.Write(b)
}

func (f *following) printed() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.String()
}

func startFollowing(ts *testscript.TestScript) {
	f := ts.Value("following").(*following)
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.status = cancel, make(chan int, 1)
	args := []string{"log", "list", "--data", ts.MkAbs("crm"), "--follow", "--last", "1"}
	go func() { f.status <- cli.Run(ctx, newRoot(), args, f, f) }()
	ts.Defer(cancel)
}

func stopFollowing(ts *testscript.TestScript, pattern string) {
	f := ts.Value("following").(*following)
	want := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(time.Minute); !want.MatchString(f.printed()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%q was not printed:\n%s", pattern, f.printed())
		}
	}
	f.cancel()
	if status := <-f.status; status != 0 {
		ts.Fatalf("ended with status %d:\n%s", status, f.printed())
	}
}

func withCentral(ts *testscript.TestScript, f func(*central.Store, *keys.CRMKeys)) {
	dir := ts.MkAbs("crm")
	_, k, err := openSite(dir)
	ts.Check(err)
	s, err := openCentral(context.Background(), dir, central.Options{Cosigner: k.Cosigner.Note()})
	ts.Check(err)
	defer func() { ts.Check(s.Close()) }()
	f(s, k)
}

func playLog(ts *testscript.TestScript, args []string) {
	ctx := context.Background()
	dir := ts.MkAbs(args[0])
	if len(args) == 1 {
		_, err := keys.InitController(pki.KeysDir(dir), keys.ES256)
		ts.Check(err)
		k, err := keys.LoadController(keys.File(pki.KeysDir(dir)))
		ts.Check(err)
		jwk, err := json.Marshal(k.Log.JWK())
		ts.Check(err)
		vkey, err := keys.VKey("gatehouse/"+args[0], k.Log.JWK())
		ts.Check(err)
		withCentral(ts, func(s *central.Store, _ *keys.CRMKeys) {
			ts.Check(s.Approve(ctx, central.Controller{Name: args[0], JWK: jwk, VKey: vkey}))
		})
		return
	}
	data, image := filepath.Join(dir, "data"), filepath.Join(dir, "image")
	switch args[1] {
	case "copy":
		copyFiles(ts, data, image)
	case "restore":
		ts.Check(os.RemoveAll(data))
		copyFiles(ts, image, data)
	case "lose":
		ts.Check(os.RemoveAll(data))
	default:
		k, err := keys.LoadController(keys.File(pki.KeysDir(dir)))
		ts.Check(err)
		l := openRecords(ts, data, args[0], k)
		defer func() { ts.Check(l.Close()) }()
		withCentral(ts, func(s *central.Store, _ *keys.CRMKeys) {
			switch args[1] {
			case "early":
				head, err := l.Head(ctx)
				ts.Check(err)
				_, err = s.Early(ctx, batchOf(ts, l, args[0], head.Size-1, 1))
				ts.Check(err)
			case "report":
				head, err := l.Head(ctx)
				ts.Check(err)
				signed, err := l.Checkpoint(ctx, head.Size)
				ts.Check(err)
				_, _, err = s.Report(ctx, central.Report{Controller: args[0], Epoch: head.Epoch, Session: head.Epoch, Online: true, Checkpoint: signed})
				ts.Check(err)
			default:
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				for i := range n {
					visit(ts, l, i)
				}
				if len(args) == 2 {
					_, _, err = s.Ingest(ctx, batchOf(ts, l, args[0], 0, central.MaxBatch))
					ts.Check(err)
				}
			}
		})
	}
}

func openRecords(ts *testscript.TestScript, data, name string, k *keys.ControllerKeys) *visitorlog.Log {
	v, err := k.Log.Verifier(keys.TypeRecord)
	ts.Check(err)
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	l, err := visitorlog.Open(data, visitorlog.Options{
		Controller: name, Signer: k.Log, Verifier: v, Note: k.Log.NoteSigner, NoteVerifier: k.Log.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			at = at.Add(time.Second)
			return at, visitorlog.Clock{State: access.ClockSynchronised, Boot: "boot"}
		},
	})
	ts.Check(err)
	return l
}

// visit is somebody who comes in and, each second time, is denied.
func visit(ts *testscript.TestScript, l *visitorlog.Log, i int) {
	policy := &visitorlog.Policy{Version: 3, Freshness: access.Fresh}
	var cause uint64
	for _, d := range []visitorlog.Draft{
		{Type: visitorlog.DecisionGranted, Subject: "p-1", Data: visitorlog.Data{Door: "lab", Reader: "lab-in", Direction: access.In,
			Decision: "granted", Reason: "granted", Factors: []string{"badge"}, Kind: access.Staff, Policy: policy}},
		{Type: visitorlog.PassageEntered, Subject: "p-1", Data: visitorlog.Data{Door: "lab", Direction: access.In, Cause: &cause}},
		{Type: visitorlog.DecisionDenied, Data: visitorlog.Data{Door: "store", Reader: "store-in", Direction: access.In,
			Decision: "denied", Reason: "unknown", Policy: policy, Detail: fmt.Sprint("visit ", i)}},
	} {
		e, err := l.Append(context.Background(), func(*visitorlog.Tx) (visitorlog.Draft, error) { return d, nil })
		ts.Check(err)
		if d.Type == visitorlog.DecisionGranted {
			cause = e.Seq
		}
	}
}

func batchOf(ts *testscript.TestScript, l *visitorlog.Log, name string, first uint64, most int) central.Batch {
	list, err := l.Entries(context.Background(), first, most)
	ts.Check(err)
	b := central.Batch{Controller: name, Epoch: l.Epoch(), First: first}
	for _, e := range list {
		b.Records = append(b.Records, e.JWS)
	}
	b.Checkpoint, err = l.Checkpoint(context.Background(), first+uint64(len(list)))
	ts.Check(err)
	return b
}

func copyFiles(ts *testscript.TestScript, from, to string) {
	ts.Check(os.MkdirAll(to, 0o700))
	ts.Check(filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, d.Name()), b, 0o600)
	}))
}
