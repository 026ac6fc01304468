package config

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const samples = "../../configs"

// checkSyntax is the line in which each sample says how it is checked.
var checkSyntax = regexp.MustCompile(`(?m)^# Check it with: (gatehouse|gatehouse-crm) check( --demo)? --config configs/(\S+)$`)

// check does what a sample says.
func check(t *testing.T, path string) error {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := checkSyntax.FindStringSubmatch(string(doc))
	if m == nil {
		t.Fatal("the sample does not say how to check it")
	}
	if name, err := filepath.Rel(samples, path); err != nil || m[3] != name {
		t.Errorf("the sample says how to check %s", m[3])
	}
	if m[1] == "gatehouse-crm" {
		_, err = LoadCRM(path)
	} else {
		_, err = LoadController(path, Options{Demo: m[2] != ""})
	}
	return err
}

// files is what a pattern finds below configs, which is never nothing.
func files(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(samples, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("%s finds nothing", pattern)
	}
	return found
}

func TestEverySampleIsValid(t *testing.T) {
	for _, path := range files(t, "*.toml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			if err := check(t, path); err != nil {
				t.Error(err)
			}
		})
	}
}

// Each file in invalid/ says in comments what is reported of it, line by line:
//
//	# want: 12: door[0].unlock: "0s" is outside 1s to 5m
func TestEveryFaultOfAnInvalidSampleIsReportedAndNothingElse(t *testing.T) {
	for _, path := range files(t, "invalid/*.toml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			doc, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(doc)) {
				if w, ok := strings.CutPrefix(line, "# want: "); ok {
					want = append(want, strings.TrimSpace(w))
				}
			}
			if len(want) == 0 {
				t.Error("the sample does not say what is wrong with it")
			}
			var faults Faults
			if err := check(t, path); !errors.As(err, &faults) {
				t.Fatalf("error %v, want faults", err)
			}
			var got []string
			for _, f := range faults {
				if f.File != path {
					t.Errorf("fault in %q", f.File)
				}
				got = append(got, strings.TrimPrefix(f.Error(), path+":"))
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("faults, - wanted + reported:\n%s", d)
			}
			if strings.Contains(faults.Error(), "hunter2") {
				t.Error("a password was repeated")
			}
		})
	}
}
