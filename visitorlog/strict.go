package visitorlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// decodeStrictly decodes one JSON object that has each of the named properties
// once, spelled so, and no others.
func decodeStrictly(text []byte, into any, names ...string) error {
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown property %q", name)
		}
		if seen[name] {
			return fmt.Errorf("property %q twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if string(value) == "null" {
			return fmt.Errorf("property %q is null", name)
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows it")
	}
	for _, name := range names {
		if !seen[name] {
			return fmt.Errorf("no %q", name)
		}
	}
	return json.Unmarshal(text, into)
}
