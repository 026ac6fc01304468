package main

import (
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestControllerScripts runs the scripts that need a controller, which the
// command "door" plays:
//
//	door init NAME
//	door join NAME BUNDLE
func TestControllerScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/controllers",
		Setup: raceOptions,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"door": playDoor},
	})
}

func playDoor(ts *testscript.TestScript, _ bool, args []string) {
	switch {
	case len(args) == 2 && args[0] == "init":
		dir := ts.MkAbs(args[1])
		_, err := keys.InitController(pki.KeysDir(dir), keys.ES256)
		ts.Check(err)
		k, err := keys.LoadController(keys.File(pki.KeysDir(dir)))
		ts.Check(err)
		_, err = pki.WriteRequest(dir, args[1], k)
		ts.Check(err)
		ts.Setenv("FINGERPRINT", keys.Fingerprint(k.Log.JWK()))
	case len(args) == 3 && args[0] == "join":
		b, err := pki.ParseBundle([]byte(ts.ReadFile(args[2])))
		ts.Check(err)
		j, err := pki.Prepare(ts.MkAbs(args[1]), b, time.Now())
		ts.Check(err)
		_, err = j.Join(pki.Options{Fingerprint: b.Fingerprint()})
		ts.Check(err)
	default:
		ts.Fatalf("door %q: want init NAME or join NAME BUNDLE", args)
	}
}
