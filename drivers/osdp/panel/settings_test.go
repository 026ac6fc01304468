package panel

import (
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
)

func number(n int) *int { return &n }

func TestADeviceIsOnePartOfAPeripheral(t *testing.T) {
	iris := []biometric.Part{biometric.LeftIris}
	for _, c := range []struct {
		device Device
		part   string
		want   string // of Lines; empty: it is refused
	}{
		{Device{Line: "a"}, asReader, "osdp:a#0/reader"},
		{Device{Line: "a", Address: 126, Reader: 1, Keypad: true}, asReader, "osdp:a#126/reader1"},
		{Device{Line: "a", ClearText: true, Checksum: true}, asReader, "osdp:a#0/reader"},
		{Device{Line: "a", Address: 127}, asReader, ""},
		{Device{Line: "a", Address: -1}, asReader, ""},
		{Device{Line: "a", Reader: 8}, asReader, ""},
		{Device{}, asReader, ""},
		{Device{Line: "a", Tamper: true}, asReader, ""},
		{Device{Line: "a", Threshold: 1}, asReader, ""},
		{Device{Line: "a"}, asIndicator, "osdp:a#0/indicator"},
		{Device{Line: "a", Keypad: true}, asIndicator, ""},
		{Device{Line: "a", Tamper: true}, asInput, "osdp:a#0/tamper"},
		{Device{Line: "a", Input: number(3), Normally: "closed"}, asInput, "osdp:a#0/input3"},
		{Device{Line: "a", Input: number(3), Normally: "shut"}, asInput, ""},
		{Device{Line: "a", Input: number(3)}, asInput, ""},
		{Device{Line: "a", Input: number(-1), Normally: "open"}, asInput, ""},
		{Device{Line: "a", Input: number(0), Normally: "open", Tamper: true}, asInput, ""},
		{Device{Line: "a", Tamper: true, Normally: "open"}, asInput, ""},
		{Device{Line: "a", Normally: "open"}, asInput, ""},
		{Device{Line: "a", Parts: iris, Threshold: 255, Quality: 255}, asScanner, "osdp:a#0/iris-scanner"},
		{Device{Line: "a", Parts: []biometric.Part{biometric.LeftThumb}, Threshold: 1, Format: "ansi-378", Reader: 2}, asScanner, "osdp:a#0/fingerprint-scanner2"},
		{Device{Line: "a", Parts: iris, Threshold: 1, Format: "ansi-378"}, asScanner, ""},
		{Device{Line: "a", Parts: iris, Threshold: 1, Format: "iso"}, asScanner, ""},
		{Device{Line: "a", Parts: iris}, asScanner, ""},
		{Device{Line: "a", Parts: iris, Threshold: 256}, asScanner, ""},
		{Device{Line: "a", Parts: iris, Threshold: 1, Quality: 256}, asScanner, ""},
		{Device{Line: "a", Parts: iris, Threshold: 1, ClearText: true}, asScanner, ""},
		{Device{Line: "a", Threshold: 1}, asScanner, ""},
		{Device{Line: "a"}, asStrike, ""},
		{Device{Line: "a"}, "window", ""},
	} {
		d := c.device
		if lines := d.Lines(); lines != nil {
			t.Errorf("%+v takes %q before it is known what it is", c.device, lines)
		}
		err := d.ValidateAs(c.part)
		if (err == nil) != (c.want != "") {
			t.Errorf("%s %+v: %v", c.part, c.device, err)
		}
		if err == nil && !slices.Equal(d.Lines(), []string{c.want}) {
			t.Errorf("%s %+v takes %q, not %q", c.part, c.device, d.Lines(), c.want)
		}
	}
}

func TestWhatADeviceSaysOfItself(t *testing.T) {
	secure := &Device{Line: "a", Keypad: true, Parts: []biometric.Part{biometric.LeftIris}}
	if keys, facility := secure.Keys(); keys != badge.Keypad4Bit || facility != 0 {
		t.Errorf("a keypad sends %q, %d", keys, facility)
	}
	if !secure.Authenticated() || secure.Modality() != biometric.Iris {
		t.Errorf("authenticated: %v, modality %q", secure.Authenticated(), secure.Modality())
	}
	clear := &Device{Line: "a", ClearText: true}
	if keys, _ := clear.Keys(); keys != "" || clear.Authenticated() || clear.Modality() != "" {
		t.Errorf("in clear text: keys %q, authenticated: %v, modality %q", keys, clear.Authenticated(), clear.Modality())
	}
}

func TestWhatIsWrongBetweenDevicesIsNamedAtTheLaterOne(t *testing.T) {
	s := &Settings{Lines: []Line{{Name: "a", Port: "/dev/a"}, {Name: "b", Port: "/dev/b"}}}
	faults := s.ValidateDevices([]*Device{
		{Line: "a"}, {Line: "a", Address: 1, ClearText: true}, {Line: "b", ClearText: true}, // three readers
		{Line: "a"}, {Line: "a", ClearText: true}, {Line: "b", ClearText: true, Checksum: true}, {Line: "c"}, {},
	})
	want := []string{"", "", "", "", "clear_text", "checksum", `"c"`, ""}
	for i, err := range faults {
		if (err == nil) != (want[i] == "") || err != nil && !strings.Contains(err.Error(), want[i]) {
			t.Errorf("device %d: %v, want %q", i, err, want[i])
		}
	}
}

func TestADriverIsNotOpenedWithFaultySettings(t *testing.T) {
	if b, err := Open(DefaultSettings(), silent); err == nil {
		b.Close()
		t.Error("it opened without a line")
	}
}
