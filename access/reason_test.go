package access

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The golden list only ever grows: records of many years name these codes.
func TestReasonCodesAreNeverRenamed(t *testing.T) {
	b, err := os.ReadFile("testdata/reasons.golden")
	if err != nil {
		t.Fatal(err)
	}
	golden := strings.Fields(string(b))
	var codes []string
	for _, r := range Reasons() {
		codes = append(codes, string(r.Code))
	}
	for _, c := range golden {
		if !slices.Contains(codes, c) {
			t.Errorf("reason %q was renamed or removed: records name it for ever", c)
		}
	}
	for _, c := range codes {
		if !slices.Contains(golden, c) {
			t.Errorf("reason %q is new: add it to testdata/reasons.golden", c)
		}
	}
}

func TestEveryReasonConstantIsInTheTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := make(map[Reason]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Reason" {
			for _, v := range spec.Values {
				code, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				constants[Reason(code)] = true
			}
		}
		return true
	})
	for code := range constants {
		if _, ok := code.Text(); !ok {
			t.Errorf("reason %q is not in the table", code)
		}
	}
	if len(constants) != len(Reasons()) || len(constants) == 0 {
		t.Errorf("%d constants, %d rows in the table", len(constants), len(Reasons()))
	}
}

func TestEveryReasonSaysWhatItMeansAndWhatToDo(t *testing.T) {
	page := ReasonsPage()
	for _, r := range Reasons() {
		for what, s := range map[string]string{"meaning": r.Meaning, "action": r.Action} {
			if !strings.HasSuffix(s, ".") || strings.Count(s, ". ") > 0 || strings.Contains(s, "|") {
				t.Errorf("%s: %s %q is not one sentence", r.Code, what, s)
			}
		}
		if strings.Count(page, "| `"+string(r.Code)+"` |") != 1 {
			t.Errorf("%s does not have one row on the page", r.Code)
		}
		if granted := strings.HasPrefix(string(r.Code), "granted"); r.Granted != granted {
			t.Errorf("%s: granted is %v", r.Code, r.Granted)
		}
	}
}
