package config

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

// decoder fills structs from a decoded document and reports everything that
// does not fit. The TOML library's own decoding stops at the first value of a
// wrong type, converts numbers to durations and text, and matches keys without
// regard to case.
type decoder struct {
	*report
	options Options
	refused []refusal
}

// tableDecoder is a type that decodes its table itself.
type tableDecoder interface {
	decodeTable(d *decoder, path string, table map[string]any)
}

// defaulter is a type of element that begins with values other than zero.
type defaulter interface{ setDefaults() }

// parse reads a document and decodes it into v, a pointer to a struct.
func parse(file, doc string, o Options, v any) *decoder {
	d := &decoder{report: &report{file: file}, options: o}
	var tree map[string]any
	if _, err := toml.Decode(doc, &tree); err != nil {
		d.syntax(err)
		return d
	}
	d.lines = find(doc)
	d.table("", tree, reflect.ValueOf(v).Elem())
	return d
}

// syntax reports that the document is not TOML. The parser stops there.
func (d *decoder) syntax(err error) {
	f := Fault{File: d.file, Line: 1, What: err.Error()}
	if pe := (toml.ParseError{}); errors.As(err, &pe) {
		f.Line = max(pe.Position.Line, 1) // it counts one too few at the end of a file
		f.What = "not TOML: " + spelling.Printable(strings.TrimSuffix(pe.Message, "."))
		if pe.LastKey != "" {
			f.What += fmt.Sprintf(" (after %s)", pe.LastKey)
		}
	}
	d.faults = append(d.faults, f)
}

// table decodes a table into a struct.
func (d *decoder) table(path string, table map[string]any, into reflect.Value) {
	fields := fieldsOf(into.Type())
	for _, key := range slices.Sorted(maps.Keys(table)) {
		i, ok := fields[key]
		if !ok {
			d.unknown(join(path, key), key, slices.Sorted(maps.Keys(fields)))
			continue
		}
		d.value(join(path, key), table[key], into.Field(i))
	}
}

// fieldsOf is the keys of a struct with the numbers of their fields.
func fieldsOf(t reflect.Type) map[string]int {
	fields := map[string]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "":
			fields[strings.ToLower(f.Name)] = i
		default:
			fields[name] = i
		}
	}
	return fields
}

func (d *decoder) unknown(path, key string, known []string) {
	if like := spelling.Nearest(key, known); like != "" {
		d.add(path, "there is no key %q here: did you mean %q?", key, like)
		return
	}
	if len(known) == 0 {
		d.add(path, "there is no key %q here: this table is empty", key)
		return
	}
	d.add(path, "there is no key %q here: the keys are %s", key, strings.Join(known, ", "))
}

var durationType = reflect.TypeFor[time.Duration]()

// value decodes any value.
func (d *decoder) value(path string, v any, into reflect.Value) {
	if into.Kind() == reflect.Pointer {
		p := reflect.New(into.Type().Elem())
		into.Set(p)
		into = p.Elem()
	}
	switch own := into.Addr().Interface().(type) {
	case tableDecoder:
		if t, ok := v.(map[string]any); ok {
			own.decodeTable(d, path, t)
		} else {
			d.add(path, "%s is not a table", show(v))
		}
		return
	case toml.Unmarshaler:
		if err := own.UnmarshalTOML(v); err != nil {
			d.add(path, "%v", err)
		}
		return
	case encoding.TextUnmarshaler:
		if s, ok := v.(string); !ok {
			d.add(path, "%s is not a text in quotes", show(v))
		} else if err := own.UnmarshalText([]byte(s)); err != nil {
			d.add(path, "%v", err)
		}
		return
	}
	if into.Type() == durationType {
		d.duration(path, v, into)
		return
	}
	switch into.Kind() {
	case reflect.Struct:
		if t, ok := v.(map[string]any); ok {
			d.table(path, t, into)
			return
		}
		d.add(path, "%s is not a table", show(v))
	case reflect.Map:
		d.mapping(path, v, into)
	case reflect.Slice:
		d.slice(path, v, into)
	case reflect.String:
		if s, ok := v.(string); ok {
			into.SetString(s)
			return
		}
		d.add(path, "%s is not a text in quotes", show(v))
	case reflect.Bool:
		if b, ok := v.(bool); ok {
			into.SetBool(b)
			return
		}
		d.add(path, "%s is neither true nor false", show(v))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, ok := v.(int64)
		if !ok {
			d.add(path, "%s is not a whole number", show(v))
		} else if into.OverflowInt(n) {
			d.add(path, "%d is out of range", n)
		} else {
			into.SetInt(n)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, ok := v.(int64)
		if !ok {
			d.add(path, "%s is not a whole number", show(v))
		} else if n < 0 || into.OverflowUint(uint64(n)) {
			d.add(path, "%d is out of range", n)
		} else {
			into.SetUint(uint64(n))
		}
	case reflect.Float32, reflect.Float64:
		d.number(path, v, into)
	default:
		panic(fmt.Sprintf("config: no way to decode %s into a %s", path, into.Type()))
	}
}

func (d *decoder) duration(path string, v any, into reflect.Value) {
	s, ok := v.(string)
	if !ok {
		d.add(path, `%s is not a time: write it in quotes with its unit, such as "5s", "2m" or "24h"`, show(v))
		return
	}
	t, err := time.ParseDuration(s)
	if err != nil {
		d.add(path, `%q is not a time: write a number with its unit, such as "5s", "2m" or "24h"`, s)
		return
	}
	into.SetInt(int64(t))
}

func (d *decoder) number(path string, v any, into reflect.Value) {
	var x float64
	switch n := v.(type) {
	case float64:
		x = n
	case int64:
		x = float64(n)
	default:
		d.add(path, "%s is not a number", show(v))
		return
	}
	if math.IsNaN(x) || math.IsInf(x, 0) || into.OverflowFloat(x) {
		d.add(path, "%v is out of range", x)
		return
	}
	into.SetFloat(x)
}

func (d *decoder) mapping(path string, v any, into reflect.Value) {
	t, ok := v.(map[string]any)
	if !ok {
		d.add(path, "%s is not a table", show(v))
		return
	}
	into.Set(reflect.MakeMap(into.Type()))
	for _, key := range slices.Sorted(maps.Keys(t)) {
		element := reflect.New(into.Type().Elem()).Elem()
		d.value(join(path, key), t[key], element)
		into.SetMapIndex(reflect.ValueOf(key).Convert(into.Type().Key()), element)
	}
}

func (d *decoder) slice(path string, v any, into reflect.Value) {
	list := reflect.ValueOf(v)
	if list.Kind() != reflect.Slice {
		what := "a list in brackets"
		if into.Type().Elem().Kind() == reflect.Struct {
			what = fmt.Sprintf("a list of tables: begin each with [[%s]]", path)
		}
		d.add(path, "%s is not %s", show(v), what)
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), list.Len(), list.Len()))
	for i := range list.Len() {
		element := into.Index(i)
		if e, ok := element.Addr().Interface().(defaulter); ok {
			e.setDefaults()
		}
		d.value(index(path, i), list.Index(i).Interface(), element)
	}
}

// show is a value as a fault names it.
func show(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	case time.Time:
		return "a date"
	default:
		return fmt.Sprint(v)
	}
}
