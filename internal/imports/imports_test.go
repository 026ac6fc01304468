package imports

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/gatehouse-acs/gatehouse"

// root is the module's folder.
const root = "../.."

func TestImportsAreThoseOfTheTable(t *testing.T) {
	files, err := parse(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go file was found")
	}
	for _, fault := range check(files) {
		t.Error(fault)
	}
	for _, fault := range stale(files) {
		t.Error(fault)
	}
}

func TestThePartsThatDecideDoNoIOAndReadNoClock(t *testing.T) {
	files, err := parse(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range pure {
		if !slices.ContainsFunc(files, func(f file) bool { return isPure(f, pattern) }) {
			t.Errorf("%s finds nothing", pattern)
		}
	}
	for _, fault := range checkPure(files) {
		t.Error(fault)
	}
}

// file is one Go file. Its path is relative to the module and has slashes.
type file struct {
	path    string
	syntax  *ast.File
	fset    *token.FileSet
	imports map[string]string // by the name that the file knows it under
}

func (f file) pkg() string  { return path.Dir(f.path) }
func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// parse reads every Go file of a module, under whatever build constraint.
// A test that asks `go list` is fooled by the test cache; the files that this
// one opens are part of its cache key.
func parse(root string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if rel != "." && (base == "testdata" || base == "node_modules" || rel == "bin" || rel == "run" || base[0] == '.' || base[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		f := file{path: filepath.ToSlash(rel), fset: token.NewFileSet(), imports: map[string]string{}}
		if f.syntax, err = parser.ParseFile(f.fset, name, nil, parser.SkipObjectResolution); err != nil {
			return err
		}
		for _, spec := range f.syntax.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			local := path.Base(p)
			if spec.Name != nil {
				local = spec.Name.Name
			}
			if local == "_" || f.imports[local] != "" {
				local += " " + p // only there to be told apart
			}
			f.imports[local] = p
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

// matches reports whether a package is the pattern, or below it.
func matches(pkg, pattern string) bool {
	if pattern == everything {
		return true
	}
	if folder, ok := strings.CutSuffix(pattern, "/..."); ok {
		return strings.HasPrefix(pkg, folder+"/")
	}
	return pkg == pattern
}

func matchesAny(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(pkg, p) })
}

// row finds the row of a package: its own, or the nearest folder's.
func row(pkg string) (string, bool) {
	if _, ok := table[pkg]; ok {
		return pkg, true
	}
	for dir := path.Dir(pkg); dir != "."; dir = path.Dir(dir) {
		if _, ok := table[dir+"/..."]; ok {
			return dir + "/...", true
		}
	}
	return "", false
}

// check compares imports with the table.
//
// Tests may import every package of ours but the programs: they put real parts
// together. Those of the domain may not: what needs more is tested elsewhere.
func check(files []file) []string {
	var faults []string
	for _, f := range files {
		r, ok := row(f.pkg())
		if !ok {
			faults = append(faults, fmt.Sprintf("%s: package %s is not in the table", f.path, f.pkg()))
			continue
		}
		allowed := slices.Clone(table[r])
		inDomain := slices.ContainsFunc(pure, func(p string) bool { return path.Dir(p) == f.pkg() && path.Base(p) == "*.go" })
		if f.isTest() && !inDomain {
			allowed = append(allowed, everything)
		}
		for _, imported := range slices.Sorted(maps.Values(f.imports)) {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && ours != f.pkg() && !matchesAny(ours, allowed) {
				faults = append(faults, fmt.Sprintf("%s: %s may not import %s", f.path, f.pkg(), ours))
			}
			if f.isTest() {
				continue
			}
			for _, library := range slices.Sorted(maps.Keys(owners)) {
				below := strings.HasPrefix(imported, library+"/") && strings.Contains(library, ".")
				if (imported == library || below) && !matchesAny(f.pkg(), owners[library]) {
					faults = append(faults, fmt.Sprintf("%s: %s may not import %s", f.path, f.pkg(), imported))
				}
			}
		}
	}
	return faults
}

// stale finds rows of the table that no package has.
func stale(files []file) []string {
	used := map[string]bool{}
	for _, f := range files {
		if r, ok := row(f.pkg()); ok {
			used[r] = true
		}
	}
	var faults []string
	for _, r := range slices.Sorted(maps.Keys(table)) {
		if !used[r] {
			faults = append(faults, fmt.Sprintf("the table has a row for %s, and there is no such package", r))
		}
	}
	return faults
}

func isPure(f file, pattern string) bool {
	ok, err := path.Match(pattern, f.path)
	return ok && err == nil && !f.isTest()
}

// checkPure finds I/O, clocks and goroutines where none may be.
func checkPure(files []file) []string {
	var faults []string
	for _, f := range files {
		if !slices.ContainsFunc(pure, func(p string) bool { return isPure(f, p) }) {
			continue
		}
		for _, imported := range slices.Sorted(maps.Values(f.imports)) {
			if slices.ContainsFunc(impureImports, func(p string) bool { return imported == p || strings.HasPrefix(imported, p+"/") }) &&
				!slices.Contains(pureExceptions, imported) {
				faults = append(faults, fmt.Sprintf("%s: it decides, and may not import %s", f.path, imported))
			}
		}
		if f.imports["."] != "" {
			faults = append(faults, fmt.Sprintf("%s: a dot import hides what it calls", f.path))
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				faults = append(faults, fmt.Sprintf("%s:%d: it decides, and may not start a goroutine", f.path, f.fset.Position(n.Pos()).Line))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && slices.Contains(impureCalls[f.imports[x.Name]], n.Sel.Name) {
					faults = append(faults, fmt.Sprintf("%s:%d: it decides, and may not use %s.%s", f.path, f.fset.Position(n.Pos()).Line, f.imports[x.Name], n.Sel.Name))
				}
			}
			return true
		})
	}
	return faults
}

// write makes a module of a few files.
func write(t *testing.T, sources map[string]string) []file {
	t.Helper()
	dir := t.TempDir()
	for name, text := range sources {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := parse(dir)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestAViolationOfTheTableIsFound(t *testing.T) {
	const ours = module + "/"
	for _, tt := range []struct {
		name, path, source string
		want               []string
	}{
		{"the domain imports an adapter", "badge/a.go", `package badge; import _ "` + ours + `drivers/sim"`,
			[]string{"badge/a.go: badge may not import drivers/sim"}},
		{"under a build constraint", "access/a.go", "//go:build plan9\n\npackage access; import x \"" + ours + `visitorlog"`,
			[]string{"access/a.go: access may not import visitorlog"}},
		{"a package that nobody has thought of", "sync/a.go", "package sync", []string{"sync/a.go: package sync is not in the table"}},
		{"a new folder", "util/x/a.go", "package x", []string{"util/x/a.go: package util/x is not in the table"}},
		{"a driver imports another", "drivers/wiegand/a.go", `package wiegand; import _ "` + ours + `drivers/sim"`,
			[]string{"drivers/wiegand/a.go: drivers/wiegand may not import drivers/sim"}},
		{"a driver imports what is its own", "drivers/wiegand/a.go", `package wiegand; import _ "` + ours + `badge"`, nil},
		{"a program imports everything", "cmd/gatehouse/a.go", `package main; import _ "` + ours + `drivers/sim"`, nil},
		{"a test puts real parts together", "door/a_test.go", `package door; import _ "` + ours + `internal/keys"`, nil},
		{"a test of the domain does not", "access/a_test.go", `package access; import _ "` + ours + `visitorlog"`,
			[]string{"access/a_test.go: access may not import visitorlog"}},
		{"an external test of itself", "badge/a_test.go", `package badge_test; import _ "` + ours + `badge"`, nil},
		{"a library outside its place", "door/a.go", `package door; import _ "github.com/eclipse/paho.mqtt.golang"`,
			[]string{"door/a.go: door may not import github.com/eclipse/paho.mqtt.golang"}},
		{"below a library outside its place", "visitorlog/a.go", `package visitorlog; import _ "github.com/mochi-mqtt/server/v2/packets"`,
			[]string{"visitorlog/a.go: visitorlog may not import github.com/mochi-mqtt/server/v2/packets"}},
		{"a library in its place", "sync/mqtt/a.go", `package mqtt; import _ "github.com/eclipse/paho.mqtt.golang"`, nil},
		{"log/slog is not log", "door/a.go", `package door; import _ "log/slog"`, nil},
		{"what is in testdata is no package", "door/testdata/a.go", `package x; import _ "` + ours + `drivers/sim"`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := check(write(t, map[string]string{tt.path: tt.source})); !slices.Equal(got, tt.want) {
				t.Errorf("faults %q, want %q", got, tt.want)
			}
		})
	}
}

func TestARowWithoutAPackageIsFound(t *testing.T) {
	got := stale(write(t, map[string]string{"badge/a.go": "package badge"}))
	if len(got) != len(table)-1 || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "badge,") }) {
		t.Errorf("faults %q", got)
	}
}

func TestAnImpureDecisionIsFound(t *testing.T) {
	for _, tt := range []struct {
		name, path, source string
		want               []string
	}{
		{"the clock", "access/a.go", "package access\n\nimport \"time\"\n\nvar now = time.Now\n",
			[]string{"access/a.go:5: it decides, and may not use time.Now"}},
		{"the clock by another name", "badge/a.go", "package badge\n\nimport x \"time\"\n\nfunc f() { x.Sleep(1) }\n",
			[]string{"badge/a.go:5: it decides, and may not use time.Sleep"}},
		{"a dot import", "badge/a.go", `package badge; import . "time"; var _ = Second`,
			[]string{"badge/a.go: a dot import hides what it calls"}},
		{"files", "door/machine_x.go", `package door; import _ "os/signal"`,
			[]string{"door/machine_x.go: it decides, and may not import os/signal"}},
		{"a database", "access/a.go", `package access; import _ "database/sql"`,
			[]string{"access/a.go: it decides, and may not import database/sql"}},
		{"a goroutine", "door/machine.go", "package door\n\nfunc f() {\n\tgo f()\n}\n",
			[]string{"door/machine.go:4: it decides, and may not start a goroutine"}},
		{"time as a type", "access/a.go", `package access; import "time"; func f(t time.Time) time.Time { return t.Add(time.Second) }`, nil},
		{"logging types", "badge/a.go", `package badge; import _ "log/slog"`, nil},
		{"a variable called time", "badge/a.go", `package badge; type T struct{ Now int }; func f(time T) int { return time.Now }`, nil},
		{"the loop around the machine", "door/loop.go", `package door; import "os"; var _ = os.Args`, nil},
		{"what is below access", "access/allowlist/a.go", `package allowlist; import "os"; var _ = os.Args`, nil},
		{"a test of the domain", "access/a_test.go", `package access; import "os"; var _ = os.Args`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := checkPure(write(t, map[string]string{tt.path: tt.source})); !cmp.Equal(got, tt.want) {
				t.Errorf("faults %q, want %q", got, tt.want)
			}
		})
	}
}
