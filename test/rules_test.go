package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// declaredTests are the names of the module's tests.
func declaredTests(t *testing.T) map[string]bool {
	t.Helper()
	declared := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for line := range strings.Lines(string(source)) {
			if name, ok := strings.CutPrefix(line, "func Test"); ok {
				name, _, _ = strings.Cut(name, "(")
				declared["Test"+name] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return declared
}

// TestEveryRuleAndAttackerHasTestsThatExist reads the tables of docs/rules.md
// and docs/threat-model.md: each row names tests, and there are such tests.
func TestEveryRuleAndAttackerHasTestsThatExist(t *testing.T) {
	declared := declaredTests(t)
	named := regexp.MustCompile("`(Test\\w+)`")
	for _, table := range []struct {
		file string
		row  *regexp.Regexp
		rows int
	}{
		{"rules.md", regexp.MustCompile(`(?m)^\| (\d+) \|.*$`), 13},
		{"threat-model.md", regexp.MustCompile(`(?m)^\| \*\*([^*]+)\*\*.*$`), 13},
	} {
		text, err := os.ReadFile(filepath.Join("..", "docs", table.file))
		if err != nil {
			t.Fatal(err)
		}
		rows := table.row.FindAllStringSubmatch(string(text), -1)
		if len(rows) < table.rows {
			t.Errorf("docs/%s has %d rows, not %d", table.file, len(rows), table.rows)
		}
		for _, row := range rows {
			tests := named.FindAllStringSubmatch(row[0], -1)
			if len(tests) == 0 {
				t.Errorf("docs/%s: %s names no test", table.file, row[1])
			}
			for _, test := range tests {
				if !declared[test[1]] {
					t.Errorf("docs/%s: %s: there is no test %s", table.file, row[1], test[1])
				}
			}
		}
	}
}
