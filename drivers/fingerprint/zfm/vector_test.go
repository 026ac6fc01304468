package zfm

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

// vectors are frames that the manuals and other drivers show, and ones
// computed by their rules.
var vectors = []struct {
	name    string
	pid     PID
	payload []byte
	frame   string
}{
	{"VfyPwd 0", Command, []byte{byte(VfyPwd), 0, 0, 0, 0}, "EF 01 FF FF FF FF 01 00 07 13 00 00 00 00 00 1B"},
	{"ReadSysPara", Command, []byte{byte(ReadSysPara)}, "EF 01 FF FF FF FF 01 00 03 0F 00 13"},
	{"GenImg", Command, []byte{byte(GenImg)}, "EF 01 FF FF FF FF 01 00 03 01 00 05"},
	{"Img2Tz 1", Command, []byte{byte(Img2Tz), 1}, "EF 01 FF FF FF FF 01 00 04 02 01 00 08"},
	{"Img2Tz 2", Command, []byte{byte(Img2Tz), 2}, "EF 01 FF FF FF FF 01 00 04 02 02 00 09"},
	{"RegModel", Command, []byte{byte(RegModel)}, "EF 01 FF FF FF FF 01 00 03 05 00 09"},
	{"Store buffer 1, ID 7", Command, []byte{byte(Store), 1, 0, 7}, "EF 01 FF FF FF FF 01 00 06 06 01 00 07 00 15"},
	{"Search buffer 1, 0 to 199", Command, []byte{byte(Search), 1, 0, 0, 0, 200}, "EF 01 FF FF FF FF 01 00 08 04 01 00 00 00 C8 00 D6"},
	{"HiSpeedSearch", Command, []byte{byte(HiSpeedSearch), 1, 0, 0, 0, 200}, "EF 01 FF FF FF FF 01 00 08 1B 01 00 00 00 C8 00 ED"},
	{"TemplateNum", Command, []byte{byte(TemplateNum)}, "EF 01 FF FF FF FF 01 00 03 1D 00 21"},
	{"ReadIndexTable 0", Command, []byte{byte(ReadIndex), 0}, "EF 01 FF FF FF FF 01 00 04 1F 00 00 24"},
	{"DeletChar 7", Command, []byte{byte(DeletChar), 0, 7, 0, 1}, "EF 01 FF FF FF FF 01 00 07 0C 00 07 00 01 00 1C"},
	{"UpChar 1", Command, []byte{byte(UpChar), 1}, "EF 01 FF FF FF FF 01 00 04 08 01 00 0E"},
	{"DownChar 1", Command, []byte{byte(DownChar), 1}, "EF 01 FF FF FF FF 01 00 04 09 01 00 0F"},
	{"AuraLed breathe blue", Command, append([]byte{byte(AuraLED)}, 1, 0x80, 2, 0), "EF 01 FF FF FF FF 01 00 07 35 01 80 02 00 00 C0"},
	{"SetSysPara security 3", Command, []byte{byte(SetSysPara), paramSecurity, 3}, "EF 01 FF FF FF FF 01 00 05 0E 05 03 00 1C"},
	{"AutoEnroll 5", Command, []byte{byte(AutoEnroll), 5, 1, 0, 1, 1}, "EF 01 FF FF FF FF 01 00 08 31 05 01 00 01 01 00 42"},
	{"ack ok", Ack, []byte{byte(OK)}, "EF 01 FF FF FF FF 07 00 03 00 00 0A"},
	{"ack no finger", Ack, []byte{byte(NoFinger)}, "EF 01 FF FF FF FF 07 00 03 02 00 0C"},
	{"search hit 7, score 98", Ack, []byte{byte(OK), 0, 7, 0, 98}, "EF 01 FF FF FF FF 07 00 07 00 00 07 00 62 00 77"},
	{"not found", Ack, []byte{byte(NotFound), 0, 0, 0, 0}, "EF 01 FF FF FF FF 07 00 07 09 00 00 00 00 00 17"},
	{"ReadSysPara ack", Ack, []byte{0, 0, 0, 0, 0, 0, 200, 0, 3, 0xFF, 0xFF, 0xFF, 0xFF, 0, 2, 0, 6},
		"EF 01 FF FF FF FF 07 00 13 00 00 00 00 00 00 C8 00 03 FF FF FF FF 00 02 00 06 04 E9"},
}

func TestPacketsAreThoseOfTheManual(t *testing.T) {
	for _, v := range vectors {
		want := unhex(t, v.frame)
		got, err := Packet{AnyAddress, v.pid, v.payload}.AppendBinary(nil)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is written as % X, %v", v.name, got, err)
		}
		p, n, err := ParsePacket(append(want, 0xEF))
		if err != nil || n != len(want) || p.PID != v.pid || p.Address != AnyAddress || !bytes.Equal(p.Payload, v.payload) {
			t.Errorf("%s is read as %v, %d, %v", v.name, p.PID, n, err)
		}
	}
	if got := aura(fingerprint.Light{Colour: fingerprint.Blue, Effect: fingerprint.Breathe}); !bytes.Equal(got, []byte{1, 0x80, 2, 0}) {
		t.Errorf("breathing blue is % X", got)
	}
}

// The length of a packet with 256 bytes is 0x0102. A driver that adds it as
// one number to the sum is 0xFF off.
func TestTheSumAddsBothBytesOfTheLength(t *testing.T) {
	payload := make([]byte, 256)
	for i := range payload {
		payload[i] = byte(i)
	}
	b, err := Packet{AnyAddress, Data, payload}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := [2]byte(b[len(b)-2:]); got != [2]byte{0x7F, 0x85} {
		t.Errorf("the sum is % X", got)
	}
	b[len(b)-2], b[len(b)-1] = 0x80, 0x84
	if _, _, err := ParsePacket(b); !errors.Is(err, ErrPacket) {
		t.Errorf("the other sum: %v", err)
	}
}

func TestPacketsOfNoSizeAreRefused(t *testing.T) {
	for _, size := range []int{0, MaxPayload + 1} {
		if _, err := (Packet{Payload: make([]byte, size)}).AppendBinary(nil); err == nil {
			t.Errorf("a payload of %d bytes is written", size)
		}
	}
	for _, frame := range []string{
		"EF 01 FF FF FF FF 07 00 02 00 09", "EF 01 FF FF FF FF 07 01 03 00 00 0A", "EF 01 FF FF FF FF 05 00 03 00 00 08",
	} {
		if _, _, err := ParsePacket(unhex(t, frame)); !errors.Is(err, ErrPacket) {
			t.Errorf("%s: %v", frame, err)
		}
	}
}

// An R503 sends 55 when it starts.
func TestAPacketIsFoundBehindTheByteOfTheStart(t *testing.T) {
	ack := unhex(t, "EF 01 FF FF FF FF 07 00 03 00 00 0A")
	for _, before := range []string{"55", "EF", "EF 01", "EF 01 FF FF FF FF 07 00 03 00 00 0B", "00 55 EF EF"} {
		b := append(unhex(t, before), ack...)
		found := false
		n, ok := Next(b, func(p Packet) bool { found = p.PID == Ack; return true })
		if !ok || n != len(b) || !found {
			t.Errorf("behind %s: %d, %v", before, n, ok)
		}
	}
}

func TestEachPacketIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Packet{rapid.Uint32().Draw(t, "address"), rapid.SampledFrom([]PID{Command, Data, Ack, LastData}).Draw(t, "pid"),
			rapid.SliceOfN(rapid.Byte(), 1, MaxPayload).Draw(t, "payload")}
		b, err := p.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, n, err := ParsePacket(b)
		if err != nil || n != len(b) || got.Address != p.Address || got.PID != p.PID || !bytes.Equal(got.Payload, p.Payload) {
			t.Fatalf("% X is read as another, %v", b, err)
		}
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if got, _, err := ParsePacket(b); err == nil && got.Address == p.Address {
			t.Fatalf("% X, with one bit changed, is read", b)
		}
	})
}

func TestEveryCodeSaysWhatItIs(t *testing.T) {
	for code, known := range codes {
		if known.name == "" || known.is != nil && !errors.Is(code, known.is) || code != OK && !fingerprint.IsRefusal(code) {
			t.Errorf("%#02x: %v", byte(code), code)
		}
	}
	if err := error(Code(0x77)); !strings.Contains(err.Error(), "0x77") || errors.Is(err, fingerprint.ErrFailed) {
		t.Errorf("an unknown code: %v", err)
	}
}

// FuzzPacket: what is read as a packet is written as the same bytes, and Next
// steps over everything else.
func FuzzPacket(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.frame))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, n, err := ParsePacket(b); err == nil {
			if again, err := p.AppendBinary(nil); err != nil || !bytes.Equal(again, b[:n]) {
				t.Errorf("% X is written as % X, %v", b[:n], again, err)
			}
		}
		ack := unhex(t, "EF 01 FF FF FF FF 07 00 03 00 00 0A")
		all := append(append(bytes.Clone(b), make([]byte, MaxPacket)...), ack...) // the zeros end what b has begun
		end := 0
		for end < len(all) {
			n, ok := Next(all[end:], func(p Packet) bool { return true })
			if end += n; !ok {
				break
			}
		}
		if end != len(all) {
			t.Errorf("the packet at the end was not found: %d of %d bytes", end, len(all))
		}
	})
}
