package biometric_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/biometric"
)

func TestNoWayOfPrintingShowsATemplate(t *testing.T) {
	secret := []byte("SECRETSECRET")
	template := biometric.NewTemplate(bytes.Clone(secret))
	type holder struct {
		Shown  biometric.Template
		hidden biometric.Template
		list   []biometric.Template
	}
	h := holder{template, template, []biometric.Template{template}}
	var out strings.Builder
	for _, verb := range "vTtbcdoOqxXUeEfFgGsp" {
		for _, flags := range []string{"", "+", "#", "-20", "020", "."} {
			format := "%" + flags + string(verb)
			for _, v := range []any{template, &template, h, &h, []any{template}, map[string]any{"a": template}, fmt.Errorf("about %v", template)} {
				fmt.Fprintf(&out, format+"\n", v)
			}
		}
	}
	fmt.Fprintln(&out, template, h)
	for _, handler := range []slog.Handler{
		slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil),
	} {
		slog.New(handler).Info("a template", "it", template, "holder", h, slog.Group("g", "it", template))
	}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	printed := out.String()
	for _, form := range []string{"%s", "%x", "%X", "%d", "%o", "%b", "%q", "%v", "%#v"} {
		want := strings.Trim(fmt.Sprintf(form, secret[:4]), "[]{}")
		if strings.Contains(printed, want) {
			t.Errorf("printed as with %s: %q is there", form, want)
		}
	}
	if !strings.Contains(printed, "[template of 12 bytes]") {
		t.Error("its length is not shown")
	}
}

func TestAClearedTemplateIsGoneEverywhere(t *testing.T) {
	b := []byte("SECRET")
	one := biometric.NewTemplate(b)
	other := one
	biometric.ClearAll([]biometric.Template{one, {}})
	if !bytes.Equal(b, make([]byte, 6)) || other.Bytes() != nil {
		t.Errorf("left are %q and %q", b, other.Bytes())
	}
}

func TestAMatchThatIsNoneLetsNobodyIn(t *testing.T) {
	var m biometric.Match
	if m.Outcome == biometric.Matched {
		t.Errorf("the zero match is %q", m.Outcome)
	}
}
