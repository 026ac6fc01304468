package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheTableOfFuzzTargetsIsWhole holds docs/fuzzing.md to the targets of the
// module, both ways.
func TestTheTableOfFuzzTargetsIsWhole(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "fuzzing.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	cell := regexp.MustCompile("`([a-z0-9/]+)` (Fuzz[^|;]+)")
	for _, m := range cell.FindAllStringSubmatch(string(text), -1) {
		for _, name := range strings.Split(m[2], ",") {
			listed[m[1]+" "+strings.TrimSpace(name)] = true
		}
	}
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	found := map[string]bool{}
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range target.FindAllStringSubmatch(string(b), -1) {
			found[filepath.ToSlash(filepath.Dir(path))[len("../"):]+" "+m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 30 {
		t.Errorf("only %d targets were found", len(found))
	}
	for name := range found {
		if !listed[name] {
			t.Errorf("docs/fuzzing.md does not name %s", name)
		}
	}
	for name := range listed {
		if !found[name] {
			t.Errorf("docs/fuzzing.md names %s, which does not exist", name)
		}
	}
}
