package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryRuleIsHeldByTestsThatExist reads docs/rules.md.
func TestEveryRuleIsHeldByTestsThatExist(t *testing.T) {
	declared := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range function.FindAllSubmatch(source, -1) {
			declared[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "docs", "rules.md"))
	if err != nil {
		t.Fatal(err)
	}
	rules := regexp.MustCompile(`(?m)^\| (\d+) \|.*$`).FindAllStringSubmatch(string(text), -1)
	if len(rules) != 13 {
		t.Fatalf("docs/rules.md has %d rules, not 13", len(rules))
	}
	for _, rule := range rules {
		named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(rule[0], -1)
		if len(named) == 0 {
			t.Errorf("rule %s names no test", rule[1])
		}
		for _, name := range named {
			if !declared[name[1]] {
				t.Errorf("rule %s: there is no test %s", rule[1], name[1])
			}
		}
	}
}
