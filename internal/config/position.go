package config

import (
	"fmt"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"
)

// positions says on which line each value of a document begins, by path. The
// TOML library keeps no positions of what it has decoded, and none at all that
// tell the elements of an array from one another.
type positions map[string]int

// near is the line of a path, or of the nearest table around it that is in
// the document: a value that is missing has no line of its own.
func (p positions) near(path string) int {
	for path != "" {
		if line, ok := p[path]; ok {
			return line
		}
		path = parent(path)
	}
	return 1
}

// parent is the path of the table or array around a path; empty: the document.
func parent(path string) string {
	quoted := false
	for i := len(path) - 1; i > 0; i-- {
		switch c := path[i]; {
		case c == '"' && path[i-1] != '\\':
			quoted = !quoted
		case !quoted && (c == '.' || c == '['):
			return path[:i]
		}
	}
	return ""
}

// join adds a key to a path.
func join(path, key string) string {
	if !isBare(key) {
		key = fmt.Sprintf("%q", key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func isBare(key string) bool {
	for i := range len(key) {
		if !isBareByte(key[i]) {
			return false
		}
	}
	return key != ""
}

func isBareByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

// find goes through a document that the TOML library has accepted.
func find(doc string) positions {
	f := &finder{doc: doc, found: positions{}, arrays: map[string]int{}}
	for i := range len(doc) {
		if doc[i] == '\n' {
			f.ends = append(f.ends, i)
		}
	}
	for _, mark := range []string{"\ufeff", "\xff\xfe", "\xfe\xff"} { // the library goes past these, too
		if strings.HasPrefix(doc, mark) {
			f.at = len(mark)
		}
	}
	f.document()
	return f.found
}

// finder is a scanner of well-formed TOML. It knows no more of the grammar
// than it takes to tell keys, tables and arrays from what is in strings and
// comments.
type finder struct {
	doc    string
	at     int
	ends   []int // where the lines end
	found  positions
	arrays map[string]int // how many elements each array of tables has so far
}

func (f *finder) document() {
	table := ""
	for {
		f.space()
		if f.at >= len(f.doc) {
			return
		}
		if f.peek() != '[' {
			f.pair(table)
			continue
		}
		start := f.at
		f.at++
		array := f.peek() == '['
		if array {
			f.at++
		}
		keys := f.key()
		f.skip(']')
		if array {
			f.skip(']')
		}
		table = f.enter(keys, array, start)
	}
}

// enter resolves the path of a header: a name of an array of tables stands for
// its last element.
func (f *finder) enter(keys []string, array bool, start int) string {
	path := ""
	for i, k := range keys {
		path = join(path, k)
		f.note(path, start)
		last := i == len(keys)-1
		if last && array {
			f.arrays[path]++
		}
		if n := f.arrays[path]; n > 0 {
			path = index(path, n-1)
			f.note(path, start)
		}
	}
	return path
}

// pair reads key = value.
func (f *finder) pair(table string) {
	start := f.at
	path := table
	for _, k := range f.key() {
		path = join(path, k)
		f.note(path, start)
	}
	f.skip('=')
	f.value(path)
}

func (f *finder) value(path string) {
	f.space()
	switch f.peek() {
	case '{':
		f.list('}', func(int) { f.pair(path) })
	case '[':
		f.list(']', func(i int) {
			f.note(index(path, i), f.at)
			f.value(index(path, i))
		})
	case '"', '\'':
		f.text()
	default:
		for f.at < len(f.doc) && !strings.ContainsRune(",]}#\r\n", rune(f.peek())) {
			f.at++
		}
	}
}

// list reads what is between brackets, with commas between.
func (f *finder) list(end byte, element func(i int)) {
	f.at++
	for i := 0; ; i++ {
		f.space()
		if f.at >= len(f.doc) {
			return
		}
		if f.peek() == end {
			f.at++
			return
		}
		element(i)
		f.space()
		f.skip(',')
	}
}

// key reads a key, which dots may divide.
func (f *finder) key() []string {
	var keys []string
	for {
		f.space()
		start := f.at
		if c := f.peek(); c == '"' || c == '\'' {
			f.text()
			keys = append(keys, unquote(f.doc[start:f.at]))
		} else {
			for f.at < len(f.doc) && isBareByte(f.peek()) {
				f.at++
			}
			keys = append(keys, f.doc[start:f.at])
		}
		f.space()
		if f.peek() != '.' {
			return keys
		}
		f.at++
	}
}

// text goes past a string of any of the four kinds.
func (f *finder) text() {
	quote := f.doc[f.at : f.at+1]
	if long := strings.Repeat(quote, 3); strings.HasPrefix(f.doc[f.at:], long) {
		f.at += 3
		for f.at < len(f.doc) && !strings.HasPrefix(f.doc[f.at:], long) {
			f.char(quote)
		}
		f.at = min(f.at+3, len(f.doc))
		// A long string may end in quotes of its own: two by the standard, and
		// more where the library is lenient. None can follow a string.
		for strings.HasPrefix(f.doc[f.at:], quote) {
			f.at++
		}
		return
	}
	f.at++
	for f.at < len(f.doc) && f.doc[f.at] != quote[0] {
		f.char(quote)
	}
	f.at = min(f.at+1, len(f.doc))
}

func (f *finder) char(quote string) {
	if quote == `"` && f.peek() == '\\' {
		f.at++
	}
	f.at = min(f.at+1, len(f.doc))
}

// space goes past blanks, line ends and comments.
func (f *finder) space() {
	for f.at < len(f.doc) {
		switch f.doc[f.at] {
		case ' ', '\t', '\r', '\n':
			f.at++
		case '#':
			n := strings.IndexByte(f.doc[f.at:], '\n')
			if n < 0 {
				n = len(f.doc) - f.at
			}
			f.at += n
		default:
			return
		}
	}
}

func (f *finder) skip(c byte) {
	f.space()
	if f.peek() == c {
		f.at++
	}
}

// peek is the next byte; 0 at the end.
func (f *finder) peek() byte {
	if f.at >= len(f.doc) {
		return 0
	}
	return f.doc[f.at]
}

// note keeps the first place of a path.
func (f *finder) note(path string, at int) {
	if _, ok := f.found[path]; !ok {
		f.found[path] = 1 + sort.SearchInts(f.ends, at)
	}
}

// unquote is the value of a string as written.
func unquote(s string) string {
	var v struct {
		S string `toml:"s"`
	}
	if _, err := toml.Decode("s = "+s, &v); err != nil {
		return s
	}
	return v.S
}
