package osdp

import (
	"bytes"
	"errors"
	"testing"
)

func TestPartsMakeTheWholeMessage(t *testing.T) {
	message := bytes.Repeat([]byte("template"), 40)
	var a Assembler
	for offset := 0; offset < len(message); {
		n := min(100, len(message)-offset)
		data, err := Fragment{uint16(len(message)), uint16(offset), message[offset : offset+n]}.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFragment(data)
		if err != nil {
			t.Fatal(err)
		}
		offset += n
		got, done, err := a.Add(f)
		if err != nil || done != (offset == len(message)) {
			t.Fatalf("at %d: done %v, %v", offset, done, err)
		}
		if done && !bytes.Equal(got, message) {
			t.Error("the whole is another message")
		}
	}
}

func TestAPartOutOfPlaceIsRefused(t *testing.T) {
	first := Fragment{10, 0, Secret("abcde")}
	for name, parts := range map[string][]Fragment{
		"the first is missing":  {{10, 5, Secret("fghij")}},
		"one is missing":        {first, {10, 6, Secret("ghij")}},
		"one comes twice":       {first, {10, 5, Secret("fg")}, {10, 5, Secret("fg")}},
		"another message's":     {first, {11, 5, Secret("fghij")}},
		"longer than the whole": {first, {10, 5, Secret("fghijk")}},
		"nothing in it":         {first, {10, 5, nil}},
		"the sender gave up":    {first, {10, 10, nil}},
		"longer than is taken":  {{MaxMessage + 1, 0, Secret("a")}},
	} {
		t.Run(name, func(t *testing.T) {
			var a Assembler
			for i, f := range parts {
				_, done, err := a.Add(f)
				if last := i == len(parts)-1; done || last != errors.Is(err, ErrFragment) {
					t.Errorf("part %d: done %v, %v", i, done, err)
				}
			}
			if _, done, err := a.Add(Fragment{2, 0, Secret("ok")}); !done || err != nil {
				t.Errorf("a new message afterwards: %v, %v", done, err)
			}
		})
	}
}

// Replies whose control byte says so come in parts, whatever their code.
func TestABiometricTemplateMayComeInParts(t *testing.T) {
	want := BioTemplate{Type: LeftIris, Quality: 60, Template: bytes.Repeat(Secret("iris"), 100)}
	message, err := want.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &Peripheral{}
	for offset := 0; offset < len(message); offset += 150 {
		end := min(offset+150, len(message))
		data, err := Fragment{uint16(len(message)), uint16(offset), message[offset:end]}.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, whole, err := p.parse(Frame{Reply: true, Control: ControlMulti, Code: byte(CodeBIOREADR), Data: data})
		if err != nil || whole != (end == len(message)) {
			t.Fatalf("at %d: whole %v, %v", offset, whole, err)
		}
		if whole && !bytes.Equal(got.(BioTemplate).Template, want.Template) {
			t.Error("another template was put together")
		}
	}
}
