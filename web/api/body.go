package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

const (
	maxBody    = 64 << 10 // bytes of JSON; an object that names 1,000 others fits
	maxDepth   = 8
	maxKey     = 64
	maxJSONKey = "abcdefghijklmnopqrstuvwxyz0123456789_-"
)

// tree reads one JSON object strictly: UTF-8, nothing after it, no name twice in
// an object, and names only as they are written here, since encoding/json takes
// Name and NAME for name. An error quotes none of its values, as they may be a
// card's or a PIN.
func tree(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := readValue(d, 0)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the body is not a JSON object")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return object, nil
}

func readValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("the body is nested more than %d deep", maxDepth)
	}
	t, err := token(d)
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		return readObject(d, depth)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := readValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := token(d)
		return list, err
	}
	return t, nil
}

func readObject(d *json.Decoder, depth int) (any, error) {
	object := make(map[string]any)
	for d.More() {
		t, err := token(d)
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok || key == "" || len(key) > maxKey || strings.Trim(key, maxJSONKey) != "" {
			return nil, errors.New("a name in the body is not of lower-case letters, digits, dashes and underscores")
		}
		if _, twice := object[key]; twice {
			return nil, fmt.Errorf("%s is there twice", fields.Quote(key))
		}
		if object[key], err = readValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := token(d)
	return object, err
}

// token is the next one. The decoder's own errors may show a part of the text.
func token(d *json.Decoder) (json.Token, error) {
	t, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("the body is not JSON, at byte %d", d.InputOffset())
	}
	return t, nil
}

// decodeBody reads a body into v, a pointer to a struct: strictly, and with no
// name that v does not have.
func decodeBody(text []byte, v any) error {
	object, err := tree(text)
	if err != nil {
		return err
	}
	return decodeTree(object, v)
}

const unknownField = "json: unknown field "

func decodeTree(object map[string]any, v any) error {
	err := decodeFields(object, v)
	if err == nil {
		return nil
	}
	if mistyped, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &fault{mistyped.Field, fmt.Sprintf("is a JSON %s, and not %s", cutWord(mistyped.Value), wanted(mistyped.Type))}
	}
	if name, ok := strings.CutPrefix(err.Error(), unknownField); ok {
		return fmt.Errorf("there is no field %s here", name)
	}
	// A text that is no time, say: the error may show it, and does not name the field.
	for _, name := range slices.Sorted(maps.Keys(object)) {
		err := decodeFields(map[string]any{name: object[name]}, reflect.New(reflect.TypeOf(v).Elem()).Interface())
		if err != nil && !strings.HasPrefix(err.Error(), unknownField) {
			return &fault{name, "is not of its form: times are written such as 2026-03-01T08:00:00Z, lengths of time such as 10m"}
		}
	}
	return errors.New("a value in the body is not of its form")
}

func decodeFields(object map[string]any, v any) error {
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// cutWord is the first word of a text: that of a number is followed by itself.
func cutWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

// wanted is a type in JSON's words.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a whole number in its range"
}

// merge applies a JSON merge patch (RFC 7396): what is null goes, objects are
// merged, everything else takes the old one's place.
func merge(into map[string]any, patch map[string]any) map[string]any {
	for key, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(into, key)
		case map[string]any:
			was, ok := into[key].(map[string]any)
			if !ok {
				was = make(map[string]any)
			}
			into[key] = merge(was, v)
		default:
			into[key] = v
		}
	}
	return into
}

// patch changes what v, a pointer to a struct, says by a merge patch. What v
// keeps to itself, such as a card's number, stays.
func patch(v any, change map[string]any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var was map[string]any
	if err := d.Decode(&was); err != nil {
		return err
	}
	shown := reflect.ValueOf(v).Elem()
	for i := range shown.NumField() {
		if f := shown.Field(i); f.CanSet() { // the others are not shown
			f.SetZero()
		}
	}
	return decodeTree(merge(was, change), v)
}
