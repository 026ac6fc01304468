package api

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-acs/gatehouse/access/registry"
)

func TestABodyIsReadStrictly(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{``, "not JSON"}, {`{`, "not JSON"}, {`{}x`, "something follows"}, {`{}{}`, "something follows"}, {`[]`, "not a JSON object"}, {`"x"`, "not a JSON object"}, {`null`, "not a JSON object"},
		{`{"name":"a","name":"b"}`, `"name" is there twice`}, {`{"instead":{"iris":"pin","iris":"pin"}}`, "twice"},
		{`{"Name":"a"}`, "lower-case"}, {"{\"\u212aind\":\"staff\"}", "lower-case"}, {`{"":1}`, "lower-case"}, {`{"` + strings.Repeat("x", 65) + `":1}`, "lower-case"},
		{"{\"name\":\"\xff\"}", "not UTF-8"}, {strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), "nested"}, {`{"a":` + strings.Repeat("[", 1000), "nested"},
		{`{"nmae":"a"}`, `no field "nmae"`}, {`{"name":7}`, "name: is a JSON number"}, {`{"groups":["a",7]}`, "groups"},
		{`{"name":"a","from":"yesterday"}`, "from: is not of its form"}, {`{"from":7}`, "from: is not of its form"}, {`{"clearance":-1}`, "whole number"}, {`{"clearance":1.5}`, "whole number"},
	} {
		var p registry.Person
		if err := decodeBody([]byte(tt.text), &p); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
	var p registry.Person
	if err := decodeBody([]byte(`{"person":"p-1","kind":"staff","from":"2026-03-01T08:00:00+01:00"}`), &p); err != nil || p.From.UTC().Hour() != 7 {
		t.Errorf("%+v: %v", p, err)
	}
}

// The examples of RFC 7396, appendix A, that are of objects.
func TestAMergePatchIsThatOfTheRFC(t *testing.T) {
	for _, tt := range []struct{ was, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{"a":"foo"}`, `{"a":{"b":null}}`, `{"a":{}}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		was, patch, want := mustTree(t, tt.was), mustTree(t, tt.patch), mustTree(t, tt.want)
		if diff := cmp.Diff(want, merge(was, patch)); diff != "" {
			t.Errorf("%s by %s: %s", tt.was, tt.patch, diff)
		}
	}
}

func mustTree(t testing.TB, text string) map[string]any {
	t.Helper()
	return must(tree([]byte(text)))(t)
}

// FuzzBody: what is accepted is what encoding/json reads as well, no error shows
// a value, and a patch that is applied twice changes nothing the second time.
func FuzzBody(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"person":"p-1","kind":"staff","instead":{"iris":"pin"},"groups":["ops"],"until":null}`, `{"name":"Ada","clearance":5}`,
		`{"a":{"b":[1,2.5e3,true,null,"x"]}}`, `{"name":"a","name":"b"}`, `{"Name":"a"}`, `{"from":"2026-03-01T08:00:00Z"}`, "{\"name\":\"\\ud800\"}", `{"instead":{"iris":null}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		object, err := tree(text)
		if err != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var plain map[string]any
		if err := d.Decode(&plain); err != nil || !reflect.DeepEqual(object, plain) {
			t.Fatalf("%q is read as %v, and by encoding/json as %v: %v", text, object, plain, err)
		}
		for _, v := range []any{new(registry.Person), new(registry.Credential), new(registry.Door), new(registry.Visit)} {
			if patch(v, mustTree(t, string(text))) != nil {
				continue
			}
			once := must(json.Marshal(v))(t)
			if err := patch(v, mustTree(t, string(text))); err != nil {
				t.Fatalf("%q again: %v", text, err)
			}
			if again := must(json.Marshal(v))(t); !bytes.Equal(once, again) {
				t.Fatalf("%q: %s, and again %s", text, once, again)
			}
		}
	})
}
