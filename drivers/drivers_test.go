package drivers_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/drivers"
)

func TestEveryDriverHasANameOfItsOwnAndSettings(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range drivers.Table {
		if d.Name == "" || seen[d.Name] {
			t.Errorf("the name %q is empty or there twice", d.Name)
		}
		seen[d.Name] = true
		if found, ok := drivers.Lookup(d.Name); !ok || found.Name != d.Name {
			t.Errorf("%s is not found", d.Name)
		}
		if a, b := d.Settings(), d.Settings(); a == nil || a == b {
			t.Errorf("%s: Settings does not make new settings each time", d.Name)
		}
		if a, b := d.Device(), d.Device(); a == nil || a == b {
			t.Errorf("%s: Device does not make a new device each time", d.Name)
		}
		if _, err := d.Open("nonsense", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), d.Name) {
			t.Errorf("%s opened with another driver's settings: %v", d.Name, err)
		}
	}
	if _, ok := drivers.Lookup("no such driver"); ok {
		t.Error("a driver that does not exist was found")
	}
}
