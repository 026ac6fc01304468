// Command benchtable makes one table of the output of `go test -bench`. It
// ends with exit status 1 if a goal was missed or a benchmark failed.
//
// A benchmark gets a row with limit, ratio and goal by what it reports with
// b.ReportMetric, all of one unit such as lookups/s, ns or MB:
//
//	got-UNIT    what was measured
//	limit-UNIT  what the machine or the bare library does in the same run
//	min-ratio   the goal: got ÷ limit is at least this
//	max-ratio   the goal: got ÷ limit is at most this
//	min-UNIT    the goal, where there is no limit: got is at least this
//	max-UNIT    the goal, where there is no limit: got is at most this
//
// One that reports nothing of its own gets a row with its time an operation.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"text/tabwriter"
)

func main() {
	ok, err := run(os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "benchtable: %v\n", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// row is one benchmark.
type row struct {
	what            string
	unit            string
	got             float64
	limit           float64  // 0: none
	least, most     *float64 // goals; nil: none
	ofRatio, missed bool
}

// run reads benchmarks until the end and prints the table. What it reads is
// passed on to progress, for a long run has something to say before its end.
func run(in io.Reader, out, progress io.Writer) (ok bool, err error) {
	ok = true
	var rows []row
	pkg := ""
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if name, found := strings.CutPrefix(line, "pkg: "); found {
			pkg = path.Base(name)
		}
		if strings.HasPrefix(line, "FAIL") || strings.HasPrefix(line, "--- FAIL") || strings.HasPrefix(line, "panic:") {
			ok = false
		}
		r, is, err := parse(line)
		if err != nil {
			return false, err
		}
		if is {
			r.what = pkg + ": " + r.what
			rows = append(rows, r)
			ok = ok && !r.missed
		}
		if is || !ok {
			fmt.Fprintln(progress, line)
		}
	}
	if err := lines.Err(); err != nil {
		return false, err
	}
	if len(rows) == 0 {
		return false, fmt.Errorf("there was no benchmark to read")
	}
	fmt.Fprintln(progress)
	return ok, print(out, rows)
}

// parse reads one line; is says whether it is a benchmark's.
func parse(line string) (r row, is bool, err error) {
	f := strings.Fields(line)
	if len(f) < 4 || len(f)%2 != 0 || !strings.HasPrefix(f[0], "Benchmark") {
		return row{}, false, nil
	}
	if _, err := strconv.ParseUint(f[1], 10, 64); err != nil {
		return row{}, false, nil
	}
	metrics := map[string]float64{}
	for i := 2; i < len(f); i += 2 {
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return row{}, false, fmt.Errorf("%q is not a number in %q", f[i], line)
		}
		metrics[f[i+1]] = v
	}
	r.what = title(f[0])
	for unit, v := range metrics {
		if u, found := strings.CutPrefix(unit, "got-"); found {
			r.unit, r.got = u, v
		}
	}
	if r.unit == "" {
		r.unit, r.got = "ns/op", metrics["ns/op"]
		return r, true, nil
	}
	goal := func(name string) *float64 {
		if v, ok := metrics[name]; ok {
			return &v
		}
		return nil
	}
	r.limit = metrics["limit-"+r.unit]
	r.least, r.most = goal("min-ratio"), goal("max-ratio")
	r.ofRatio = r.least != nil || r.most != nil
	held := r.got
	switch {
	case r.ofRatio && r.limit == 0:
		return row{}, false, fmt.Errorf("%s has a goal for its ratio and no limit-%s", f[0], r.unit)
	case r.ofRatio:
		held = r.got / r.limit
	default:
		r.least, r.most = goal("min-"+r.unit), goal("max-"+r.unit)
	}
	r.missed = r.least != nil && held < *r.least || r.most != nil && held > *r.most
	return r, true, nil
}

// title makes words of a benchmark's name: BenchmarkLookup/1M_credentials-2 is
// "Lookup, 1M credentials".
func title(name string) string {
	name = strings.TrimPrefix(name, "Benchmark")
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if _, err := strconv.Atoi(name[i+1:]); err == nil {
			name = name[:i] // the number of processors
		}
	}
	return strings.NewReplacer("/", ", ", "_", " ").Replace(name)
}

func print(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tmeasured\tlimit\tratio\tgoal\t")
	for _, r := range rows {
		limit, ratio := "", ""
		if r.limit != 0 {
			limit, ratio = quantity(r.limit, r.unit), fmt.Sprintf("%.2f", r.got/r.limit)
		}
		verdict := ""
		if r.missed {
			verdict = "MISSED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.what, quantity(r.got, r.unit), limit, ratio, r.goal(), verdict)
	}
	return t.Flush()
}

func (r row) goal() string {
	show := func(v float64) string {
		if r.ofRatio {
			return fmt.Sprintf("%.2f", v)
		}
		return quantity(v, r.unit)
	}
	var goals []string
	if r.least != nil {
		goals = append(goals, "≥ "+show(*r.least))
	}
	if r.most != nil {
		goals = append(goals, "≤ "+show(*r.most))
	}
	return strings.Join(goals, ", ")
}

// quantity writes a value to three places, with its unit: 12.3 µs/op,
// 108 k lookups/s.
func quantity(v float64, unit string) string {
	prefixes := []string{"", "k ", "M ", "G "}
	if rest, ok := strings.CutPrefix(unit, "ns"); ok {
		prefixes, unit = []string{"ns", "µs", "ms", "s"}, rest
	}
	i := 0
	for ; v >= 999.5 && i < len(prefixes)-1; i++ {
		v /= 1000
	}
	places := 0
	switch {
	case v == 0 || v >= 99.95:
	case v >= 9.995:
		places = 1
	default:
		places = 2
	}
	return strconv.FormatFloat(v, 'f', places, 64) + " " + prefixes[i] + unit
}
