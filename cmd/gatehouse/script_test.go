package main

import (
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	// Most of what runs at once waits, for a person or a line.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"gatehouse": main})
}

// TestScripts runs the program as a person would. The scripts read like a
// manual, and each fault that is put right adds one.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: raceOptions})
}

// raceOptions gives a script's programs those of the race detector, which
// otherwise has each of them wait for a second before it exits.
func raceOptions(e *testscript.Env) error {
	e.Setenv("GORACE", os.Getenv("GORACE"))
	return nil
}
