package fingerprint_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

func TestNoWayOfPrintingShowsATemplate(t *testing.T) {
	secret := []byte("SECRETSECRET")
	template := fingerprint.NewTemplate(bytes.Clone(secret))
	type holder struct {
		Shown  fingerprint.Template
		hidden fingerprint.Template
		list   []fingerprint.Template
	}
	h := holder{template, template, []fingerprint.Template{template}}
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
	one := fingerprint.NewTemplate(b)
	other := one
	fingerprint.ClearAll([]fingerprint.Template{one, {}})
	if !bytes.Equal(b, make([]byte, 6)) || other.Bytes() != nil {
		t.Errorf("left are %q and %q", b, other.Bytes())
	}
}

func TestWhatTheZeroValuesMeanLetsNobodyIn(t *testing.T) {
	var m fingerprint.Match
	if m.Outcome != fingerprint.NoMatch {
		t.Errorf("the zero match is %v", m.Outcome)
	}
	if fingerprint.IsRefusal(fingerprint.ErrSilent) || fingerprint.IsRefusal(nil) {
		t.Error("silence counts as an answer of the module")
	}
	err := fingerprint.Refuse(fingerprint.ErrInUse, "ID %d", 7)
	if !fingerprint.IsRefusal(fmt.Errorf("enrol: %w", err)) || !errors.Is(err, fingerprint.ErrInUse) {
		t.Errorf("%v is no refusal", err)
	}
}
