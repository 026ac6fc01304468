package sfm

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

// The first is the one that the maker's manual shows.
var vectors = []struct {
	name  string
	p     Packet
	frame string
}{
	{"ES user 0x9929", Packet{Command: ES, Param: 0x9929}, "40 05 29 99 00 00 00 00 00 00 00 07 0A"},
	{"IS", Packet{Command: IS}, "40 11 00 00 00 00 00 00 00 00 00 51 0A"},
	{"IS found user 0x9929, finger 1", Packet{Command: IS, Param: 0x9929, Size: 1, Flag: byte(Success)}, "40 11 29 99 00 00 01 00 00 00 61 75 0A"},
	{"IS not found", Packet{Command: IS, Flag: byte(NotFound)}, "40 11 00 00 00 00 00 00 00 00 69 BA 0A"},
	{"IS to terminal 2", Packet{Terminal: 2, Command: IS}, "41 02 00 11 00 00 00 00 00 00 00 00 00 54 0A"},
}

func TestPacketsAreThoseOfTheManual(t *testing.T) {
	for _, v := range vectors {
		want := unhex(t, v.frame)
		if got, err := v.p.AppendBinary(nil); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is written as % X, %v", v.name, got, err)
		}
		if p, n, err := ParsePacket(want); err != nil || n != len(want) || p != v.p {
			t.Errorf("%s is read as %v, %v", v.name, p, err)
		}
	}
}

func TestEachPacketIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Packet{rapid.Uint16().Draw(t, "terminal"), Command(rapid.Byte().Draw(t, "command")), rapid.Uint32().Draw(t, "param"),
			rapid.Uint32().Draw(t, "size"), rapid.Byte().Draw(t, "flag")}
		b, _ := p.AppendBinary(nil)
		got, n, err := ParsePacket(b)
		if err != nil || got != p || n != len(b) {
			t.Fatalf("% X is read as %v, %v", b, got, err)
		}
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if got, _, err := ParsePacket(b); err == nil {
			t.Fatalf("% X, with one bit changed, is read as %v", b, got)
		}
	})
}

func TestEveryErrorSaysWhatItIs(t *testing.T) {
	for e, known := range errorNames {
		if known.name == "" || known.is != nil && !errors.Is(e, known.is) || !fingerprint.IsRefusal(e) {
			t.Errorf("%#02x: %v", byte(e), e)
		}
	}
	if err := error(Error(0x77)); !strings.Contains(err.Error(), "0x77") || errors.Is(err, fingerprint.ErrFailed) {
		t.Errorf("an unknown error: %v", err)
	}
}

// FuzzPacket: what is read as a packet is written as the same bytes, and one is
// found behind anything.
func FuzzPacket(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.frame))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, n, err := ParsePacket(b); err == nil {
			if again, _ := p.AppendBinary(nil); !bytes.Equal(again, b[:n]) {
				t.Errorf("% X is written as % X", b[:n], again)
			}
		}
		last := unhex(t, vectors[2].frame)
		all := append(append(bytes.Clone(b), make([]byte, networkSize)...), last...)
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
	})
}
