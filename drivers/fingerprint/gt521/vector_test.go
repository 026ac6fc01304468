package gt521

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var vectors = []struct {
	name  string
	p     Packet
	frame string
}{
	{"Open with info", Packet{1, Open}, "55 AA 01 00 01 00 00 00 01 00 02 01"},
	{"LED on", Packet{1, CmosLED}, "55 AA 01 00 01 00 00 00 12 00 13 01"},
	{"Identify", Packet{0, Identify}, "55 AA 01 00 00 00 00 00 51 00 51 01"},
	{"ACK, ID 5", Packet{5, ACK}, "55 AA 01 00 05 00 00 00 30 00 35 01"},
	{"NACK 1008", Packet{uint32(IdentifyFailed), NACK}, "55 AA 01 00 08 10 00 00 31 00 49 01"},
}

func TestPacketsAreThoseOfTheManual(t *testing.T) {
	for _, v := range vectors {
		want := unhex(t, v.frame)
		if got, err := v.p.AppendBinary(nil); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is written as % X, %v", v.name, got, err)
		}
		if p, err := ParsePacket(want); err != nil || p != v.p {
			t.Errorf("%s is read as %v, %v", v.name, p, err)
		}
	}
}

func TestEachPacketIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Packet{rapid.Uint32().Draw(t, "param"), Code(rapid.Uint16().Draw(t, "code"))}
		b, _ := p.AppendBinary(nil)
		if got, err := ParsePacket(b); err != nil || got != p {
			t.Fatalf("% X is read as %v, %v", b, got, err)
		}
		data := rapid.SliceOfN(rapid.Byte(), 1, 600).Draw(t, "data")
		d := AppendData(nil, data)
		if got, err := ParseData(d); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("% X is read as % X, %v", d, got, err)
		}
		bit := byte(1) << rapid.IntRange(0, 7).Draw(t, "bit")
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= bit
		d[rapid.IntRange(0, len(d)-1).Draw(t, "at")] ^= bit
		if got, err := ParsePacket(b); err == nil {
			t.Fatalf("% X, with one bit changed, is read as %v", b, got)
		}
		if _, err := ParseData(d); err == nil {
			t.Fatalf("% X, with one bit changed, is read", d)
		}
	})
}

func TestEveryReasonSaysWhatItIs(t *testing.T) {
	for reason, known := range reasons {
		if known.name == "" || known.is != nil && !errors.Is(reason, known.is) || !fingerprint.IsRefusal(reason) {
			t.Errorf("%#x: %v", uint32(reason), reason)
		}
	}
	if err := error(Reason(7)); !errors.Is(err, fingerprint.ErrDuplicate) || !strings.Contains(err.Error(), "ID 7") {
		t.Errorf("below the capacity: %v", err)
	}
	if err := error(Reason(0x1077)); !strings.Contains(err.Error(), "0x1077") || errors.Is(err, fingerprint.ErrDuplicate) {
		t.Errorf("an unknown reason: %v", err)
	}
}

// FuzzPacket: what is read as a packet, or as data, is written as the same
// bytes, and a packet is found behind anything.
func FuzzPacket(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.frame))
	}
	f.Add(AppendData(nil, make([]byte, infoSize)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePacket(b); err == nil {
			if again, _ := p.AppendBinary(nil); !bytes.Equal(again, b[:packetSize]) {
				t.Errorf("% X is written as % X", b, again)
			}
		}
		if data, err := ParseData(b); err == nil && !bytes.Equal(AppendData(nil, data), b) {
			t.Errorf("% X is written as % X", b, AppendData(nil, data))
		}
		ack := unhex(t, vectors[3].frame)
		all := append(append(bytes.Clone(b), make([]byte, packetSize)...), ack...)
		end := 0
		for end < len(all) {
			n, ok := Next(all[end:], func(Packet) bool { return true })
			if end += n; !ok {
				break
			}
		}
		if end != len(all) {
			t.Errorf("the packet at the end was not found: %d of %d bytes", end, len(all))
		}
		info := AppendData(nil, bytes.Repeat([]byte{7}, infoSize))
		all = append(append(bytes.Clone(b), make([]byte, len(info))...), info...)
		found := false
		for end = 0; end < len(all); {
			n, ok := NextData(all[end:], infoSize, func(data []byte) { found = data[0] == 7 })
			if end += n; !ok {
				break
			}
		}
		if !found {
			t.Error("the info packet at the end was not found")
		}
	})
}
