package allowlist

import (
	"strconv"
	"strings"
)

// lines knows the line of each key of a TOML text. The TOML library tells
// lines only where the text does not parse.
type lines map[string]int

// of is the line of a key, or of the innermost table around it that has one.
func (l lines) of(path ...string) int {
	for n := len(path); n > 0; n-- {
		if at, ok := l[joinPath(path[:n])]; ok {
			return at
		}
	}
	return 1
}

func joinPath(path []string) string { return strings.Join(path, "\x00") }

// findLines scans a text that has already been found to be TOML. Elements of
// lists have their index as a key.
func findLines(text string) lines {
	s := lineScanner{text: text, line: 1, found: make(lines), lists: make(map[string]int)}
	var section []string
	for s.skip(true) {
		at, before := s.line, s.i
		if s.text[s.i] != '[' {
			path := append(section[:len(section):len(section)], s.key()...)
			s.note(path, at)
			s.value(path)
			if s.i == before { // never on TOML
				s.i++
			}
			continue
		}
		isList := strings.HasPrefix(s.text[s.i:], "[[")
		s.i++
		if isList {
			s.i++
		}
		keys := s.key()
		section = nil
		for i, k := range keys {
			section = append(section, k)
			name := joinPath(section)
			n, known := s.lists[name]
			switch {
			case isList && i == len(keys)-1:
				s.lists[name] = n + 1
				s.note(section, at)
				section = append(section, strconv.Itoa(n))
			case known:
				section = append(section, strconv.Itoa(n-1))
			}
		}
		s.note(section, at)
		for s.i < len(s.text) && s.text[s.i] == ']' {
			s.i++
		}
	}
	return s.found
}

type lineScanner struct {
	text  string
	i     int
	line  int
	found lines
	lists map[string]int // length so far of each [[list]]
}

func (s *lineScanner) note(path []string, line int) {
	if name := joinPath(path); s.found[name] == 0 {
		s.found[name] = line
	}
}

// skip goes over blanks, and over line ends and comments where they may be. It
// says whether anything is left.
func (s *lineScanner) skip(ends bool) bool {
	for ; s.i < len(s.text); s.i++ {
		switch s.text[s.i] {
		case ' ', '\t', '\r':
		case '\n':
			if !ends {
				return true
			}
			s.line++
		case '#':
			if !ends {
				return true
			}
			for s.i+1 < len(s.text) && s.text[s.i+1] != '\n' {
				s.i++
			}
		default:
			return true
		}
	}
	return false
}

// key reads a dotted key up to and without what ends it, and the equals sign
// if there is one.
func (s *lineScanner) key() []string {
	var path []string
	for s.skip(false) {
		switch c := s.text[s.i]; c {
		case '.':
			s.i++
		case '=':
			s.i++
			return path
		case '"', '\'':
			path = append(path, s.quoted())
		case ']', '\n', ',', '}':
			return path
		default:
			from := s.i
			for s.i < len(s.text) && !strings.ContainsRune(" \t\r\n.=]\"',}", rune(s.text[s.i])) {
				s.i++
			}
			path = append(path, s.text[from:s.i])
		}
	}
	return path
}

// quoted reads a string of any of the four sorts; escapes stay as they are.
func (s *lineScanner) quoted() string {
	quote := s.text[s.i : s.i+1]
	if long := strings.Repeat(quote, 3); strings.HasPrefix(s.text[s.i:], long) {
		quote = long
	}
	s.i += len(quote)
	from := s.i
	for s.i < len(s.text) && !strings.HasPrefix(s.text[s.i:], quote) {
		switch {
		case s.text[s.i] == '\\' && quote[0] == '"' && s.i+1 < len(s.text):
			s.i++
		}
		if s.text[s.i] == '\n' {
			s.line++
		}
		s.i++
	}
	text := s.text[from:min(s.i, len(s.text))]
	s.i = min(s.i+len(quote), len(s.text))
	for len(quote) == 3 && s.i < len(s.text) && s.text[s.i] == quote[0] { // up to two quotes more may end it
		s.i++
	}
	return text
}

// maxDepth is how deep lines are told apart; a policy is half as deep.
const maxDepth = 12

// nested goes over a value, however deep it is.
func (s *lineScanner) nested() {
	for depth := 0; s.skip(true); {
		switch s.text[s.i] {
		case '"', '\'':
			s.quoted()
		case '[', '{':
			depth++
			s.i++
		case ']', '}':
			if depth == 0 { // of what is around
				return
			}
			depth--
			s.i++
		case ',':
			if depth == 0 {
				return
			}
			s.i++
		default:
			s.i++
			continue
		}
		if depth == 0 {
			return
		}
	}
}

func (s *lineScanner) value(path []string) {
	if !s.skip(false) {
		return
	}
	path = path[:len(path):len(path)]
	if len(path) > maxDepth {
		s.nested()
		return
	}
	switch s.text[s.i] {
	case '"', '\'':
		s.quoted()
	case '[':
		s.i++
		for n := 0; s.skip(true) && s.text[s.i] != ']'; {
			if s.text[s.i] == ',' {
				s.i++
				continue
			}
			before := s.i
			item := append(path, strconv.Itoa(n))
			s.note(item, s.line)
			s.value(item)
			n++
			if s.i == before { // never on TOML
				s.i++
			}
		}
		s.i = min(s.i+1, len(s.text))
	case '{':
		s.i++
		for s.skip(true) && s.text[s.i] != '}' {
			if s.text[s.i] == ',' {
				s.i++
				continue
			}
			before, at := s.i, s.line
			item := append(path, s.key()...)
			s.note(item, at)
			s.value(item)
			if s.i == before { // never on TOML
				s.i++
			}
		}
		s.i = min(s.i+1, len(s.text))
	default:
		for s.i < len(s.text) && !strings.ContainsRune(",]}#\n", rune(s.text[s.i])) {
			s.i++
		}
	}
}
