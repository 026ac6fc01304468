package main

import (
	"os"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestJoinScripts runs the scripts that need a CRM, which the command "crm"
// plays:
//
//	crm init DIR
//	crm approve DIR REQUEST BUNDLE
func TestJoinScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/join",
		Setup: raceOptions,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"crm": playCRM},
	})
}

func playCRM(ts *testscript.TestScript, _ bool, args []string) {
	switch {
	case len(args) == 2 && args[0] == "init":
		s, err := pki.InitSite(ts.MkAbs(args[1]), pki.SiteOptions{Hosts: []string{"localhost"}, Timezone: "Europe/Amsterdam", Now: time.Now()})
		ts.Check(err)
		ts.Setenv("FINGERPRINT", s.Cosigner.Fingerprint())
	case len(args) == 4 && args[0] == "approve":
		dir := ts.MkAbs(args[1])
		s, err := pki.ReadSite(dir)
		ts.Check(err)
		k, err := keys.LoadCRM(keys.File(pki.KeysDir(dir)), s.Cosigner.Name())
		ts.Check(err)
		r, err := pki.ParseRequest([]byte(ts.ReadFile(args[2])))
		ts.Check(err)
		bundle, _, err := s.Approve(dir, k, r, pki.ApproveOptions{Now: time.Now()})
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[3]), bundle, 0o600))
	default:
		ts.Fatalf("crm %q: want init DIR or approve DIR REQUEST BUNDLE", args)
	}
}
